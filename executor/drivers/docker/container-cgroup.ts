import { join } from "node:path";
import type { Usage } from "../../driver.ts";
import { readText } from "../process/proc.ts";

/** What the kernel accounts for a container, found through one of its processes: cgroups(7), version 1 or 2. */

const ROOT = "/sys/fs/cgroup";

/** Every process of the container, as the host numbers them. */
export function containerPids(pid: number): number[] {
  const folder = folderOf(pid, "pids") ?? folderOf(pid, "memory") ?? folderOf(pid, "");
  if (folder === undefined) return [];
  return readText(join(folder, "cgroup.procs")).split("\n").filter(Boolean).map(Number);
}

export function containerUsage(pid: number): Usage | undefined {
  const memory = folderOf(pid, "memory");
  const cpu = folderOf(pid, "cpuacct");
  if (memory !== undefined && cpu !== undefined) {
    return {
      memoryBytes: Number(readText(join(memory, "memory.usage_in_bytes"))),
      cpuSeconds: Number(readText(join(cpu, "cpuacct.usage"))) / 1e9,
    };
  }
  const unified = folderOf(pid, "");
  if (unified === undefined) return undefined;
  const micros = Number(/^usage_usec (\d+)$/m.exec(readText(join(unified, "cpu.stat")))?.[1] ?? 0);
  return { memoryBytes: Number(readText(join(unified, "memory.current"))), cpuSeconds: micros / 1e6 };
}

/** Undefined when the process has no group of its own there: the root group is everybody's. */
function folderOf(pid: number, controller: string): string | undefined {
  const lines = readText(`/proc/${pid}/cgroup`).split("\n");
  const found = parseCgroup(lines, controller);
  if (found === undefined || found === "/") return undefined;
  return join(ROOT, controller, found);
}

/** Lines are `4:memory:/docker/ID`; version 2 has the one line `0::/…`. */
export function parseCgroup(lines: readonly string[], controller: string): string | undefined {
  for (const line of lines) {
    const [, names = "", path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (path !== undefined && names.split(",").includes(controller)) return path;
  }
  return undefined;
}
