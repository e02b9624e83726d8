import type { ProxyProtocol } from "../model/mesh.ts";
import { type ProxyEnds, V2_SIGNATURE, shortest } from "./proxy-protocol.ts";

/** Writing headers of the PROXY protocol (HAProxy, proxy-protocol.txt). Pure. */

const UNKNOWN_V1 = "PROXY UNKNOWN\r\n";
/** LOCAL: every receiver must take it and look at the connection itself (section 2.2). */
const LOCAL_V2: string = V2_SIGNATURE.toString("latin1") + "\x20\0\0\0";

/** The header for a connection between `ends`, as Latin-1 text; without them, or with two families, nobody is named. */
export function proxyHeaderText(version: ProxyProtocol, ends: ProxyEnds | undefined): string {
  const from = ends && addressBytes(ends.address);
  const to = ends && addressBytes(ends.ownAddress);
  if (from === undefined || to === undefined || from.length !== to.length) {
    return version === "v1" ? UNKNOWN_V1 : LOCAL_V2;
  }
  const ports = [ends!.port, ends!.ownPort] as const;
  if (version === "v1") {
    const family = from.length === 4 ? "TCP4" : "TCP6";
    return `PROXY ${family} ${addressText(from)} ${addressText(to)} ${ports[0]} ${ports[1]}\r\n`;
  }
  const fixed = Buffer.alloc(4);
  fixed[0] = 0x21;
  fixed[1] = from.length === 4 ? 0x11 : 0x21;
  fixed.writeUInt16BE(from.length * 2 + 4, 2);
  const tail = Buffer.alloc(4);
  tail.writeUInt16BE(ports[0], 0);
  tail.writeUInt16BE(ports[1], 2);
  return Buffer.concat([V2_SIGNATURE, fixed, from, to, tail]).toString("latin1");
}

/** Four bytes or sixteen; an IPv4 address inside IPv6 is one of IPv4. A zone (`%eth0`) says nothing elsewhere. */
function addressBytes(text: string): Buffer | undefined {
  const [bare = ""] = text.split("%");
  if (!bare.includes(":")) return v4Bytes(bare);
  const dotted = bare.slice(bare.lastIndexOf(":") + 1);
  const tail = dotted.includes(".") ? v4Bytes(dotted) : undefined;
  if (tail !== undefined && bare.toLowerCase().startsWith("::ffff:")) return tail;
  const groups = tail === undefined ? bare : bare.slice(0, -dotted.length) + hexGroups(tail);
  const [before = "", after] = groups.split("::");
  const head = before === "" ? [] : before.split(":");
  const rest = after === undefined || after === "" ? [] : after.split(":");
  const missing = 8 - head.length - rest.length;
  if (missing < 0 || (after === undefined && missing > 0)) return undefined;
  const bytes = Buffer.alloc(16);
  [...head, ...Array.from({ length: missing }, () => "0"), ...rest].forEach((group, index) =>
    bytes.writeUInt16BE(parseInt(group, 16), index * 2),
  );
  return bytes;
}

function v4Bytes(text: string): Buffer | undefined {
  const parts = text.split(".").map(Number);
  return parts.length === 4 ? Buffer.from(parts) : undefined;
}

function hexGroups(bytes: Buffer): string {
  return `${bytes.readUInt16BE(0).toString(16)}:${bytes.readUInt16BE(2).toString(16)}`;
}

function addressText(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join(".");
  return shortest(Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16)));
}
