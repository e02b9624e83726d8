import { expect, test } from "vitest";
import { checkMachine, type MachineFacts } from "./checks.ts";
import type { Probe } from "./probe.ts";

const FACTS: MachineFacts = {
  platform: "linux",
  uid: 0,
  nodeVersion: "v24.21.0",
  stateFolder: "/var/lib/gilliam",
  root: "/opt/gilliam",
  nowMs: Date.UTC(2026, 10, 22),
  control: undefined,
};

const READY: Probe = {
  run: () => Promise.resolve("1.0"),
  exists: () => true,
  isWritable: () => true,
  freeBytes: () => 100 * 1024 ** 3,
  isPortFree: () => Promise.resolve(true),
  resolve: () => Promise.resolve(["127.0.0.1"]),
};

/** Level by check, for a machine that differs from a good one. */
async function levels(facts: Partial<MachineFacts>, probe: Partial<Probe>): Promise<Record<string, string>> {
  const findings = await checkMachine({ ...FACTS, ...facts }, { ...READY, ...probe });
  return Object.fromEntries(findings.map(({ check, level }) => [check, level]));
}

/** Every command but these is there. */
const without = (...names: string[]): Partial<Probe> => ({
  run: (command) => Promise.resolve(names.includes(command) ? undefined : "1.0"),
});

test("a good machine is good", async () => {
  const found = await levels({ control: { url: "http://127.0.0.1:7000", error: undefined } }, {});
  expect(new Set(Object.values(found))).toEqual(new Set(["ok"]));
});

test.for([
  { check: "system", level: "note", facts: { uid: 1000 }, probe: {} },
  { check: "system", level: "note", facts: { platform: "darwin" }, probe: {} },
  { check: "node", level: "missing", facts: { nodeVersion: "v20.1.0" }, probe: {} },
  { check: "npm", level: "missing", facts: {}, probe: without("npm") },
  { check: "python", level: "note", facts: {}, probe: without("python3") },
  { check: "flock", level: "missing", facts: {}, probe: without("flock") },
  { check: "isolation", level: "note", facts: {}, probe: without("nsenter") },
  { check: "isolation", level: "note", facts: {}, probe: without("unshare") },
  { check: "limits", level: "note", facts: { uid: 1000 }, probe: {} },
  { check: "postgres", level: "note", facts: {}, probe: { ...without("postgres"), exists: () => false } },
  { check: "postgres", level: "ok", facts: {}, probe: without("postgres") },
  { check: "state", level: "missing", facts: {}, probe: { isWritable: () => false } },
  { check: "disk", level: "missing", facts: {}, probe: { freeBytes: () => 1_000 } },
  { check: "disk", level: "note", facts: {}, probe: { freeBytes: () => undefined } },
  { check: "clock", level: "missing", facts: { nowMs: 0 }, probe: {} },
  { check: "names", level: "note", facts: {}, probe: { resolve: () => Promise.resolve([]) } },
  {
    check: "ports",
    level: "missing",
    facts: {},
    probe: { isPortFree: (port: number) => Promise.resolve(port !== 8080) },
  },
  { check: "control", level: "note", facts: {}, probe: {} },
  {
    check: "control",
    level: "missing",
    facts: { control: { url: "", error: "connection refused" } },
    probe: {},
  },
] satisfies { check: string; level: string; facts: Partial<MachineFacts>; probe: Partial<Probe> }[])(
  "$check: $level ($facts)",
  async ({ check, level, facts, probe }) => {
    expect((await levels(facts, probe))[check]).toBe(level);
  },
);

test("ports that Gilliam itself has taken are no fault", async () => {
  const control = { url: "http://127.0.0.1:7000", error: undefined };
  const found = await levels({ control }, { isPortFree: () => Promise.resolve(false) });
  expect(found["ports"]).toBeUndefined();
});
