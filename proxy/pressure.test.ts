import { expect, test } from "vitest";
import { DEFAULT_LIMITS } from "./limits.ts";
import { type PressureLevel, pressureLevel } from "./pressure.ts";

test.for<{ memory: number; lagMs: number; before: PressureLevel; level: PressureLevel }>([
  { memory: 0.5, lagMs: 5, before: 0, level: 0 },
  { memory: 0.8499, lagMs: 0, before: 0, level: 0 },
  { memory: 0.85, lagMs: 0, before: 0, level: 1 },
  { memory: 0.82, lagMs: 0, before: 1, level: 1 }, // Not at once: it would flicker.
  { memory: 0.8, lagMs: 0, before: 1, level: 0 },
  { memory: 0.95, lagMs: 0, before: 0, level: 2 },
  { memory: 0.91, lagMs: 0, before: 2, level: 2 },
  { memory: 0.9, lagMs: 0, before: 2, level: 1 },
  { memory: 0.1, lagMs: 250, before: 0, level: 1 },
  { memory: 0.1, lagMs: 1_000, before: 0, level: 2 },
])("$memory of memory and $lagMs ms of lag, after level $before: level $level", (row) => {
  const { memory, lagMs, before, level } = row;
  expect(pressureLevel({ memoryShare: memory, lagMs }, before, DEFAULT_LIMITS)).toBe(level);
});

test("without limits of lag only memory counts", () => {
  const policy = { ...DEFAULT_LIMITS, shedLowLagMs: 0, shedNormalLagMs: 0 };
  expect(pressureLevel({ memoryShare: 0.1, lagMs: 60_000 }, 0, policy)).toBe(0);
});
