import { expect, test } from "vitest";
import { ManualClock } from "../base/manual-clock.ts";
import { DeadlineWheel, type Timed } from "./deadlines.ts";

const rethrow = (error: unknown): void => {
  throw error;
};

/** Notes when it was asked, and asks again at its deadline until that has come. */
class Sleeper implements Timed {
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  readonly firedMs: number[] = [];
  asked = 0;
  dueMs: number;
  constructor(dueMs: number) {
    this.dueMs = dueMs;
  }
  onTick(nowMs: number): number {
    this.asked += 1;
    if (nowMs < this.dueMs) return this.dueMs;
    this.firedMs.push(nowMs);
    return Infinity;
  }
}

test.for([0, 1, 49, 50, 51, 1000, 25_599, 25_600, 100_000])(
  "%i ms: not before, and within two ticks",
  async (dueMs) => {
    const clock = new ManualClock();
    const wheel = new DeadlineWheel(clock, rethrow, 50);
    const sleeper = new Sleeper(dueMs);
    wheel.watch(sleeper, dueMs);
    await clock.advance(dueMs - 1);
    expect(sleeper.firedMs).toEqual([]);
    await clock.advance(101);
    expect(sleeper.firedMs).toHaveLength(1);
    expect(wheel.count).toBe(0);
  },
);

test("a deadline that moves later costs nothing, one that moves earlier is kept", async () => {
  const clock = new ManualClock();
  const wheel = new DeadlineWheel(clock, rethrow, 50);
  const sleeper = new Sleeper(200);
  wheel.watch(sleeper, 200);
  sleeper.dueMs = 1000;
  wheel.watch(sleeper, 1000);
  await clock.advance(999);
  expect([sleeper.asked, sleeper.firedMs]).toEqual([1, []]);
  sleeper.dueMs = 1020;
  wheel.watch(sleeper, 1020);
  await clock.advance(121);
  expect(sleeper.firedMs).toHaveLength(1);
});

test("the timer runs only while somebody waits", async () => {
  const clock = new ManualClock();
  const wheel = new DeadlineWheel(clock, rethrow, 50);
  expect(clock.pendingCount).toBe(0);
  const [a, b] = [new Sleeper(500), new Sleeper(500)];
  wheel.watch(a, 500);
  wheel.watch(b, 500);
  expect(clock.pendingCount).toBe(1);
  wheel.forget(a);
  wheel.forget(a);
  await clock.advance(2000);
  expect([a.asked, b.firedMs.length, wheel.count, clock.pendingCount]).toEqual([0, 1, 0, 0]);
});

test("one that is asked may forget its neighbours", async () => {
  const clock = new ManualClock();
  const wheel = new DeadlineWheel(clock, rethrow, 50);
  const victims = [new Sleeper(100), new Sleeper(100)];
  const killer: Timed = {
    wheelNext: undefined,
    wheelPrevious: undefined,
    wheelTick: -1,
    onTick: () => {
      for (const victim of victims) wheel.forget(victim);
      return Infinity;
    },
  };
  for (const victim of victims) wheel.watch(victim, 100);
  wheel.watch(killer, 100); // The last in is asked first.
  await clock.advance(1000);
  expect(victims.map(({ asked }) => asked)).toEqual([0, 0]);
  expect(wheel.count).toBe(0);
});

test("one that throws is a fault, and the others are asked all the same", async () => {
  const clock = new ManualClock();
  const faults: unknown[] = [];
  const wheel = new DeadlineWheel(clock, (error) => faults.push(error), 50);
  const broken = new Sleeper(100);
  broken.onTick = () => {
    throw new Error("broken");
  };
  const sleepers = [new Sleeper(100), new Sleeper(100)];
  for (const one of [sleepers[0]!, broken, sleepers[1]!]) wheel.watch(one, 100);
  await clock.advance(200);
  expect(faults).toHaveLength(1);
  expect(sleepers.map(({ firedMs }) => firedMs.length)).toEqual([1, 1]);
  expect(wheel.count).toBe(0);
});
