import { existsSync, mkdirSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Resources } from "../../../model/run-spec.ts";
import type { Usage } from "../../driver.ts";
import { readText } from "./proc.ts";

/** Most processes and threads of one instance: a fork bomb stays its own problem. */
const PIDS_MAX = 4096;
const PERIOD_US = 100_000;

/**
 * Limits and accounting through cgroups, version 2 or 1, as this machine has them. Everything is below one group
 * named after the state folder. Where a controller is missing or not ours to write, that limit is simply not there.
 */
export class Cgroups {
  readonly version: 1 | 2;
  /** The parent folder by controller; version 2 has one for all. */
  readonly #parents: ReadonlyMap<string, string>;

  private constructor(version: 1 | 2, parents: ReadonlyMap<string, string>) {
    this.version = version;
    this.#parents = parents;
  }

  /** Undefined when no controller can be used. */
  static open(name: string, root = "/sys/fs/cgroup"): Cgroups | undefined {
    if (readText(join(root, "cgroup.controllers")).includes("memory")) {
      const parent = join(root, name);
      const enabled = tryWrite(join(root, "cgroup.subtree_control"), "+cpu +memory +pids");
      if (!tryMake(parent)) return undefined;
      if (!enabled && !readText(join(parent, "cgroup.controllers")).includes("memory")) return undefined;
      tryWrite(join(parent, "cgroup.subtree_control"), "+cpu +memory +pids");
      return new Cgroups(2, new Map([["all", parent]]));
    }
    const parents = new Map<string, string>();
    for (const controller of ["pids", "memory", "cpu", "cpuacct"]) {
      const mount = join(root, controller);
      const usable = existsSync(join(mount, "cgroup.procs")) && tryMake(join(mount, name));
      if (usable) parents.set(controller, join(mount, name));
    }
    return parents.size === 0 ? undefined : new Cgroups(1, parents);
  }

  /** Makes the group and sets its limits. Idempotent. */
  create(group: string, resources: Resources): void {
    for (const parent of this.#parents.values()) tryMake(join(parent, group));
    const set = (controller: string, file: string, value: string) => {
      const parent = this.#folder(controller, group);
      if (parent !== undefined) tryWrite(join(parent, file), value);
    };
    const { cpu, memoryBytes } = resources;
    set("pids", "pids.max", String(PIDS_MAX));
    const quotaUs = cpu === undefined ? undefined : Math.max(1000, Math.round(cpu * PERIOD_US));
    if (this.version === 2) {
      set("cpu", "cpu.max", `${quotaUs ?? "max"} ${PERIOD_US}`);
      set("memory", "memory.max", String(memoryBytes ?? "max"));
      set("memory", "memory.swap.max", memoryBytes === undefined ? "max" : "0");
    } else {
      set("cpu", "cpu.cfs_period_us", String(PERIOD_US));
      set("cpu", "cpu.cfs_quota_us", String(quotaUs ?? -1));
      // The limit with swap may never be below the one without, so it is lifted first and set last.
      set("memory", "memory.memsw.limit_in_bytes", "-1");
      set("memory", "memory.limit_in_bytes", String(memoryBytes ?? -1));
      if (memoryBytes !== undefined) set("memory", "memory.memsw.limit_in_bytes", String(memoryBytes));
    }
  }

  /** The files that a process writes 0 to in order to join. */
  joinFiles(group: string): string[] {
    return [...this.#parents.values()].map((parent) => join(parent, group, "cgroup.procs"));
  }

  /** Every process in the group, whatever session or parent it has given itself. */
  members(group: string): number[] {
    const parent = this.#folder("pids", group) ?? [...this.#parents.values()].map((at) => join(at, group))[0];
    if (parent === undefined) return [];
    return readText(join(parent, "cgroup.procs")).split("\n").filter(Boolean).map(Number);
  }

  /** How many processes the kernel killed for the memory limit since the group was made. */
  outOfMemoryKills(group: string): number {
    const folder = this.#folder("memory", group);
    if (folder === undefined) return 0;
    const file = this.version === 2 ? "memory.events" : "memory.oom_control";
    return Number(/^oom_kill (\d+)$/m.exec(readText(join(folder, file)))?.[1] ?? 0);
  }

  usage(group: string): Usage | undefined {
    const memory = this.#folder("memory", group);
    const cpu = this.#folder(this.version === 2 ? "cpu" : "cpuacct", group);
    if (memory === undefined || cpu === undefined || !existsSync(memory)) return undefined;
    if (this.version === 2) {
      const micros = Number(/^usage_usec (\d+)$/m.exec(readText(join(cpu, "cpu.stat")))?.[1] ?? 0);
      return {
        memoryBytes: Number(readText(join(memory, "memory.current"))),
        cpuSeconds: micros / 1e6,
      };
    }
    return {
      memoryBytes: Number(readText(join(memory, "memory.usage_in_bytes"))),
      cpuSeconds: Number(readText(join(cpu, "cpuacct.usage"))) / 1e9,
    };
  }

  /** False while a process, or a zombie nobody has waited for, is still in it: try again. */
  remove(group: string): boolean {
    return [...this.#parents.values()].map((parent) => tryRemove(join(parent, group))).every(Boolean);
  }

  list(): string[] {
    const names = [...this.#parents.values()].flatMap((parent) =>
      existsSync(parent)
        ? readdirSync(parent, { withFileTypes: true })
            .filter((entry) => entry.isDirectory())
            .map((entry) => entry.name)
        : [],
    );
    return [...new Set(names)];
  }

  dismantle(): void {
    for (const parent of this.#parents.values()) tryRemove(parent);
  }

  #folder(controller: string, group: string): string | undefined {
    const parent = this.#parents.get(this.version === 2 ? "all" : controller);
    return parent === undefined ? undefined : join(parent, group);
  }
}

function tryMake(folder: string): boolean {
  try {
    mkdirSync(folder, { recursive: true });
    return true;
  } catch {
    return false;
  }
}

function tryWrite(file: string, value: string): boolean {
  try {
    if (!existsSync(file)) return false;
    writeFileSync(file, value);
    return true;
  } catch {
    return false;
  }
}

function tryRemove(folder: string): boolean {
  try {
    rmdirSync(folder);
  } catch {
    return !existsSync(folder);
  }
  return true;
}
