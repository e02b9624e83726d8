import { expect, test } from "vitest";
import { systemClock } from "./clock.ts";
import { type Steps, atOnce, inSlices } from "./slices.ts";

function* count(to: number, onStep: () => void): Steps<number> {
  for (let step = 1; step <= to; step += 1) {
    onStep();
    yield;
  }
  return to;
}

test("at once is without a turn of the event loop", () => {
  let steps = 0;
  expect(atOnce(count(5, () => (steps += 1)))).toBe(5);
  expect(steps).toBe(5);
});

test("others run between two slices, and nothing runs longer than a slice and a step", async () => {
  let nowMs = 0;
  const clock = { ...systemClock, nowMs: () => nowMs };
  const slices: number[] = [];
  let [steps, seen] = [0, 0];
  const look = () => {
    if (steps === 10) return;
    seen += 1;
    setImmediate(look);
  };
  setImmediate(look);
  const work = count(10, () => {
    steps += 1;
    nowMs += 1;
  });
  expect(await inSlices(work, clock, (durationMs) => slices.push(durationMs))).toBe(10);
  expect(slices).toEqual([2, 2, 2, 2, 2, 0]);
  expect(seen).toBeGreaterThanOrEqual(4);
});

test("an error in a step is the caller's", async () => {
  const failing = count(3, () => {
    throw new Error("broken");
  });
  await expect(inSlices(failing, systemClock)).rejects.toThrow("broken");
});
