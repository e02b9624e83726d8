import * as fc from "fast-check";
import { expect, test } from "vitest";
import { type Share, SmoothSplit, shareOfKey } from "./split.ts";

const shares = (weights: Record<number, number>, usable = true): Share[] =>
  Object.entries(weights).map(([release, weight]) => ({ release: Number(release), weight, usable }));

test("every window as long as the sum of the weights is dealt exactly", () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 5 }),
      fc.nat({ max: 200 }),
      (weights, start) => {
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        if (total === 0) return;
        const all = shares(Object.fromEntries(weights.entries()));
        const split = new SmoothSplit();
        const dealt = Array.from({ length: start + total }, () => split.next(all)).slice(start);
        for (const [release, weight] of weights.entries()) {
          expect(dealt.filter((one) => one === release)).toHaveLength(weight);
        }
      },
    ),
  );
});

test("a new configuration with the same weights does not begin anew", () => {
  const split = new SmoothSplit();
  const dealt = Array.from({ length: 300 }, () => split.next(shares({ 1: 90, 2: 10 })));
  for (let from = 0; from <= 200; from += 1) {
    expect(dealt.slice(from, from + 100).filter((release) => release === 2)).toHaveLength(10);
  }
});

test("a release without endpoints gives its share to the others, and gets it back", () => {
  const split = new SmoothSplit();
  const all = shares({ 1: 50, 2: 50 });
  all[1]!.usable = false;
  expect(new Set(Array.from({ length: 10 }, () => split.next(all)))).toEqual(new Set([1]));
  all[1]!.usable = true;
  const dealt = Array.from({ length: 10 }, () => split.next(all));
  expect(dealt.filter((release) => release === 2)).toHaveLength(5);
});

test("weight 0 sends nothing, and only zeros send nothing at all", () => {
  expect(new SmoothSplit().next(shares({ 1: 0, 2: 1 }))).toBe(2);
  expect(new SmoothSplit().next(shares({ 1: 0 }))).toBeUndefined();
});

test("a key stays with its release, and a growing canary never sends anybody back", () => {
  const keys = Array.from({ length: 500 }, (_, index) => `user-${index}`);
  let before = new Set<string>();
  for (const weight of [0, 1, 10, 50, 100]) {
    const on = new Set(
      keys.filter((key) => shareOfKey(shares({ 3: 100 - weight, 4: weight }), key)?.release === 4),
    );
    expect([...before].every((key) => on.has(key))).toBe(true);
    expect(on.size / keys.length).toBeCloseTo(weight / 100, 1);
    before = on;
  }
});
