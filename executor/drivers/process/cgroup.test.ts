import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Cgroups } from "./cgroup.ts";

/** Plain files in place of the kernel's: what is written where, and what is read. */
let root = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "cgroup-"));
});
afterEach(() => rmSync(root, { recursive: true }));

function put(path: string, text = ""): void {
  mkdirSync(join(root, path, ".."), { recursive: true });
  writeFileSync(join(root, path), text);
}
const get = (path: string) => readFileSync(join(root, path), "utf8");

test("version 2: limits, members, memory kills, usage", () => {
  put("cgroup.controllers", "cpu memory pids");
  put("cgroup.subtree_control");
  for (const file of ["cpu.max", "memory.max", "memory.swap.max", "pids.max"]) put(`glm/7/${file}`);
  put("glm/7/cgroup.procs", "41\n42\n");
  put("glm/7/memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n");
  put("glm/7/memory.current", "4096\n");
  put("glm/7/cpu.stat", "usage_usec 1500000\nuser_usec 1\n");
  const groups = Cgroups.open("glm", root);
  expect(groups?.version).toBe(2);
  groups?.create("7", { cpu: 0.5, memoryBytes: 1024 });
  expect(get("glm/7/cpu.max")).toBe("50000 100000");
  expect(get("glm/7/memory.max")).toBe("1024");
  expect(get("glm/7/memory.swap.max")).toBe("0");
  expect(get("glm/7/pids.max")).toBe("4096");
  groups?.create("7", {});
  expect(get("glm/7/cpu.max")).toBe("max 100000");
  expect(get("glm/7/memory.max")).toBe("max");
  expect(groups?.members("7")).toEqual([41, 42]);
  expect(groups?.outOfMemoryKills("7")).toBe(1);
  expect(groups?.usage("7")).toEqual({ memoryBytes: 4096, cpuSeconds: 1.5 });
  expect(groups?.joinFiles("7")).toEqual([join(root, "glm/7/cgroup.procs")]);
  expect(groups?.list()).toEqual(["7"]);
});

test("version 1: each controller has its own tree, and a missing one is done without", () => {
  for (const controller of ["memory", "cpu", "pids"]) put(`${controller}/cgroup.procs`);
  for (const file of ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]) put(`memory/glm/7/${file}`);
  for (const file of ["cpu.cfs_period_us", "cpu.cfs_quota_us"]) put(`cpu/glm/7/${file}`);
  put("memory/glm/7/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
  put("pids/glm/7/cgroup.procs", "9\n");
  const groups = Cgroups.open("glm", root);
  expect(groups?.version).toBe(1);
  groups?.create("7", { cpu: 2, memoryBytes: 2048 });
  expect(get("cpu/glm/7/cpu.cfs_quota_us")).toBe("200000");
  expect(get("memory/glm/7/memory.limit_in_bytes")).toBe("2048");
  expect(get("memory/glm/7/memory.memsw.limit_in_bytes")).toBe("2048");
  groups?.create("7", {});
  expect(get("cpu/glm/7/cpu.cfs_quota_us")).toBe("-1");
  expect(groups?.members("7")).toEqual([9]);
  expect(groups?.outOfMemoryKills("7")).toBe(3);
  expect(groups?.usage("7")).toBeUndefined(); // No cpuacct here.
  expect(groups?.joinFiles("7").length).toBe(3);
});

test("where nothing can be written there are no limits, and no failure", () => {
  expect(Cgroups.open("glm", root)).toBeUndefined();
  expect(existsSync(join(root, "glm"))).toBe(false);
});
