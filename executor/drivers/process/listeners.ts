import { readdirSync, readlinkSync } from "node:fs";
import type { Listener } from "../../driver.ts";
import { readText } from "./proc.ts";

const LISTEN_STATE = "0A";

export interface ListeningSocket extends Listener {
  readonly inode: string;
}

/** The listening rows of /proc/net/tcp or tcp6: proc(5). Addresses are hexadecimal words in host byte order. */
export function parseListening(table: string): ListeningSocket[] {
  return table.split("\n").flatMap((row) => {
    const fields = row.trim().split(/\s+/);
    const [address = "", port = ""] = (fields[1] ?? "").split(":");
    const inode = fields[9];
    if (fields[3] !== LISTEN_STATE || inode === undefined) return [];
    return [{ host: decodeAddress(address), port: Number.parseInt(port, 16), inode }];
  });
}

/** What these processes listen on; they must share one network. */
export function findListeners(pids: readonly number[]): Listener[] {
  const [first] = pids;
  if (first === undefined) return [];
  const inodes = new Set(pids.flatMap(socketInodes));
  const tables = [`/proc/${first}/net/tcp`, `/proc/${first}/net/tcp6`].map(readText);
  return tables
    .flatMap(parseListening)
    .filter(({ inode }) => inodes.has(inode))
    .map(({ host, port }) => ({ host, port }));
}

function socketInodes(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      const inode = /^socket:\[(\d+)\]$/.exec(readLink(`/proc/${pid}/fd/${fd}`))?.[1];
      return inode === undefined ? [] : [inode];
    });
  } catch {
    return []; // It ended while we looked.
  }
}

function readLink(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function decodeAddress(hex: string): string {
  if (hex.length === 8) {
    return [6, 4, 2, 0].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)).join(".");
  }
  if (/^0+$/.test(hex)) return "::";
  if (/^0{24}01000000$/i.test(hex)) return "::1";
  // ::ffff:a.b.c.d
  if (/^0{16}FFFF0000/i.test(hex)) return decodeAddress(hex.slice(24));
  return "an IPv6 address";
}
