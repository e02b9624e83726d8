import { expect, test } from "vitest";
import { InTurn, limitParallel } from "./in-turn.ts";

test("under one key the second waits for the first, even when that fails; other keys do not wait", async () => {
  const turns = new InTurn();
  const order: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = turns.run("a", async () => {
    await gate.promise;
    order.push("a1");
    throw new Error("a1 failed");
  });
  const second = turns.run("a", () => Promise.resolve(order.push("a2")));
  await turns.run("b", () => Promise.resolve(order.push("b")));
  expect(order).toEqual(["b"]);
  gate.resolve();
  await expect(first).rejects.toThrow("a1 failed");
  await second;
  expect(order).toEqual(["b", "a1", "a2"]);
});

test("no more than so many run at once, and all get their turn", async () => {
  const limited = limitParallel(2);
  let running = 0;
  let most = 0;
  const work = async () => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => setImmediate(resolve));
    running -= 1;
    if (most === 2) throw new Error("a failure gives its place back too");
  };
  const outcomes = await Promise.allSettled(Array.from({ length: 9 }, () => limited(work)));
  expect(outcomes).toHaveLength(9);
  expect(most).toBe(2);
  expect(running).toBe(0);
});
