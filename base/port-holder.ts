import { readFileSync, readdirSync, readlinkSync } from "node:fs";

/**
 * Who listens on a TCP port of this machine, as far as /proc tells this user: "nginx (process 812)".
 * Undefined when nobody is found or this is not Linux.
 */
export function portHolder(port: number): string | undefined {
  const inodes = new Set(["/proc/net/tcp", "/proc/net/tcp6"].flatMap((table) => listenersOf(table, port)));
  if (inodes.size === 0) return undefined;
  for (const pid of namesIn("/proc").filter((name) => /^\d+$/.test(name))) {
    for (const file of namesIn(`/proc/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${file}`))?.[1];
      if (inode !== undefined && inodes.has(inode)) {
        return `${textOf(`/proc/${pid}/comm`).trim()} (process ${pid})`;
      }
    }
  }
  return "a process of another user";
}

/** Inodes of the sockets that listen on `port`; columns as in proc(5): local address, state 0A, inode. */
function listenersOf(table: string, port: number): string[] {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return textOf(table)
    .split("\n")
    .map((row) => row.trim().split(/\s+/))
    .filter((columns) => columns[1]?.endsWith(wanted) === true && columns[3] === "0A")
    .flatMap((columns) => columns[9] ?? []);
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // Gone, or not ours to look into.
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
