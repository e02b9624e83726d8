import { expect, test } from "vitest";
import { silentLog } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import { DEFAULT_LIMITS } from "../limits.ts";
import { socketsOf } from "./engine-surroundings.ts";
import { PressureMonitor, processMemory } from "./pressure-monitor.ts";

test("memory moves the level up and down, and a stopped monitor leaves no timer", async () => {
  const clock = new ManualClock();
  let share = 0.5;
  const monitor = new PressureMonitor(clock, { share: () => share }, DEFAULT_LIMITS, silentLog);
  const levels: number[] = [];
  for (share of [0.5, 0.86, 0.96, 0.92, 0.88, 0.7]) {
    await clock.advance(250);
    levels.push(monitor.level);
  }
  expect(levels).toEqual([0, 1, 2, 2, 1, 0]);
  monitor[Symbol.dispose]();
  expect(clock.pendingCount).toBe(0);
});

test("this process uses some of its memory, and not all", () => {
  expect(processMemory().share()).toBeGreaterThan(0);
  expect(processMemory().share()).toBeLessThan(1);
});

test.for([
  ["Max open files            1024                 524288               files     \n", 960],
  ["Max open files            200                  200                  files     \n", 136],
  ["Max open files            10                   10                   files     \n", 1],
  ["", 0],
] as const)("%j: %i sockets", ([text, sockets]) => {
  expect(socketsOf(text)).toBe(sockets);
});
