import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, readlinkSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";

/** What a platform with this state folder would leave behind if nobody cleaned up. */
export interface Leftovers {
  readonly processes: readonly { readonly pid: number; readonly command: string }[];
  readonly namespaces: readonly string[];
  readonly links: readonly string[];
  readonly groups: readonly string[];
}

/** How long processes may take to end after SIGTERM before SIGKILL, in milliseconds. */
const GRACE_MS = 5_000;

/** The name that the executor's driver gives to bridge, namespaces, links and control groups of a state folder. */
export function networkName(state: string): string {
  return `glm${createHash("sha256").update(state).digest("hex").slice(0, 6)}`;
}

export function findLeftovers(state: string): Leftovers {
  const name = networkName(state);
  const isOurs = (entry: string) => entry === name || entry.startsWith(`${name}-`);
  return {
    processes: findProcesses(state, name),
    namespaces: listFolder("/run/netns").filter(isOurs),
    links: listFolder("/sys/class/net").filter(isOurs),
    groups: ["", ...listFolder("/sys/fs/cgroup")]
      .map((controller) => join("/sys/fs/cgroup", controller, name))
      .filter((path) => existsSync(path)),
  };
}

export function isEmpty({ processes, namespaces, links, groups }: Leftovers): boolean {
  return processes.length + namespaces.length + links.length + groups.length === 0;
}

/** SIGTERM, SIGKILL, then namespaces, links and groups. Returns what is left all the same. Idempotent. */
export async function removeLeftovers(
  state: string,
  clock: Clock,
  say: (line: string) => void,
): Promise<Leftovers> {
  const found = findLeftovers(state);
  if (isEmpty(found)) return found;
  if (found.processes.length > 0) {
    say(`Ending ${found.processes.length} processes …`);
    // The supervisor first: it would start the executor anew. A stopped process hears nothing until it goes on.
    for (const signal of ["SIGTERM", "SIGCONT"] as const) signalAll(found.processes, signal);
    for (let waitedMs = 0; waitedMs < GRACE_MS; waitedMs += 100) {
      if (findProcesses(state, networkName(state)).length === 0) break;
      await clock.sleep(100);
    }
    for (let round = 0; round < 50; round += 1) {
      const rest = findProcesses(state, networkName(state));
      if (rest.length === 0) break;
      signalAll(rest, "SIGKILL");
      await clock.sleep(50);
    }
  }
  for (const link of found.links)
    if (existsSync(`/sys/class/net/${link}`)) spawnSync("ip", ["link", "delete", link]);
  for (const namespace of found.namespaces) spawnSync("ip", ["netns", "delete", namespace]);
  for (const group of found.groups) removeGroup(group);
  return findLeftovers(state);
}

function signalAll(processes: Leftovers["processes"], signal: NodeJS.Signals): void {
  for (const { pid } of processes) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended meanwhile.
    }
  }
}

/** Processes that belong to the state folder by their control group, program, script or home. */
function findProcesses(state: string, name: string): { pid: number; command: string }[] {
  return listFolder("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => pid !== process.pid && pid !== process.ppid && belongs(pid, state, name))
    .map((pid) => ({
      pid,
      command: read(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim().slice(0, 1000),
    }));
}

function belongs(pid: number, state: string, name: string): boolean {
  // Kernel threads and zombies have no command line; a zombie is its parent's to reap and holds nothing.
  const command = read(`/proc/${pid}/cmdline`);
  if (command === "") return false;
  if (new RegExp(`/${name}(?:/|$)`, "m").test(read(`/proc/${pid}/cgroup`))) return true;
  if (link(`/proc/${pid}/exe`).startsWith(`${state}/`)) return true;
  const environment = read(`/proc/${pid}/environ`).split("\0");
  const home = environment.find((entry) => entry.startsWith("HOME="))?.slice("HOME=".length) ?? "";
  if (home.startsWith(`${state}/executor/instances/`)) return true;
  // The supervisor is `sh …/supervise.sh`; people's own shells, wherever they stand, are never taken for ours.
  const [, script = ""] = command.split("\0");
  return script.startsWith(`${state}/platform/`);
}

function removeGroup(path: string): void {
  for (const name of listFolder(path)) {
    if (existsSync(join(path, name, "cgroup.procs"))) removeGroup(join(path, name));
  }
  try {
    rmdirSync(path);
  } catch {
    // Somebody is still in it: it is reported as left.
  }
}

function listFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
