import { expect, test } from "vitest";
import { seededRandom } from "../base/random.ts";
import { PeakEwma, pickLowestLoad } from "./ewma.ts";

test("a peak counts at once, what is faster only with time, and an old measurement fades", () => {
  const ewma = new PeakEwma();
  expect(ewma.load(0, 5)).toBe(0);
  expect(ewma.load(1, 5)).toBe(2000); // Nothing known: tried, not flooded.
  ewma.observe(100, 1000);
  expect(ewma.load(0, 1000)).toBe(100);
  expect(ewma.load(2, 1000)).toBe(300);
  ewma.observe(10, 1000);
  expect(ewma.load(0, 1000)).toBe(100);
  ewma.observe(10, 11_000);
  expect(ewma.load(0, 11_000)).toBeCloseTo(100 / Math.E + 10 * (1 - 1 / Math.E));
  expect(ewma.load(0, 1e6)).toBeLessThan(0.001);
});

test("what was given up unanswered counts only where it took longer than expected", () => {
  const ewma = new PeakEwma();
  ewma.observe(100, 1000);
  ewma.observeAtLeast(50, 60_000);
  expect(ewma.load(0, 1000)).toBe(100);
  ewma.observeAtLeast(200, 1000);
  expect(ewma.load(0, 1000)).toBe(200);
});

test("the cheaper of two is picked, and not where it just failed", () => {
  const member = (costMs: number) => {
    const ewma = new PeakEwma();
    ewma.observe(costMs, 1);
    return { inFlight: 0, ewma };
  };
  const [cheap, dear] = [member(1), member(9)];
  const random = seededRandom(1);
  for (let count = 0; count < 20; count += 1) {
    expect(pickLowestLoad([dear, cheap], random, 1, undefined)).toBe(cheap);
    expect(pickLowestLoad([dear, cheap], random, 1, cheap)).toBe(dear);
  }
  expect(pickLowestLoad([dear], random, 1, dear)).toBe(dear);
  expect(pickLowestLoad([], random, 1, undefined)).toBeUndefined();
});
