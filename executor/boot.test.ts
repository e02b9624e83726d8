import { expect, test } from "vitest";
import type { BootInstance } from "../model/boot.ts";
import { RunSpec } from "../model/run-spec.ts";
import { planBoot } from "./boot.ts";
import type { Remembered } from "./memory.ts";

const spec = (command: string) =>
  RunSpec.parse({
    formation: "gilliam",
    service: "control",
    release: 1,
    image: { kind: "platform" },
    command,
    protocol: "http",
    health: { kind: "none" },
    resources: {},
    environment: {},
    secrets: {},
    dependencies: [],
    stop: { signal: "SIGTERM", graceMs: 0 },
  });
const part = (instanceId: string, command: string): BootInstance => ({
  instanceId,
  spec: spec(command),
  privileges: "none",
});
const remembered = (instanceId: string, command: string): Remembered => ({
  instanceId,
  spec: spec(command),
  want: "run",
  boot: "none",
  ready: true,
  restarts: 0,
  crashes: 0,
});

test("parts that did not change are kept, changed ones replaced, dropped ones stopped, new ones started", () => {
  const before = [remembered("same", "a"), remembered("changed", "a"), remembered("dropped", "a")];
  const instances = [part("same", "a"), part("changed", "b"), part("new", "a")];
  const plan = planBoot({ formation: "gilliam", instances }, before);
  expect(plan.run.map(({ instanceId }) => instanceId)).toEqual(["same", "changed", "new"]);
  expect(plan.stop.map(({ instanceId }) => instanceId)).toEqual(["changed", "dropped"]);
});

test("a missing manifest is no reason to stop anything", () => {
  const plan = planBoot(undefined, [remembered("control", "a")]);
  expect(plan.stop).toEqual([]);
  expect(plan.run.map(({ instanceId }) => instanceId)).toEqual(["control"]);
});
