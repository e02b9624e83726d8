import { expect, test } from "vitest";
import { OutlierPolicy } from "../model/mesh.ts";
import { ejectableCount, ejectionMs, freshOutlierState, noteFailure, noteSuccess } from "./outlier.ts";

const policy = OutlierPolicy.parse({ consecutiveFailuresMax: 3, ejectionMsBase: 100, ejectionMsMax: 1000 });

test("only failures in a row count", () => {
  const state = freshOutlierState();
  expect([noteFailure(state, policy), noteFailure(state, policy)]).toEqual([false, false]);
  noteSuccess(state, policy, 0);
  expect([noteFailure(state, policy), noteFailure(state, policy), noteFailure(state, policy)]).toEqual([
    false,
    false,
    true,
  ]);
});

test("ejections double up to the cap, and are forgiven after a quiet time", () => {
  expect([0, 1, 2, 3, 4, 60].map((count) => ejectionMs(count, policy))).toEqual([
    100, 200, 400, 800, 1000, 1000,
  ]);
  const state = { ...freshOutlierState(), ejections: 4, reinstatedMs: 5000 };
  noteSuccess(state, policy, 6000);
  expect(state.ejections).toBe(4);
  noteSuccess(state, policy, 6001);
  expect(state.ejections).toBe(0);
});

test.for([
  { total: 1, percent: 50, count: 0 }, // The only one is never ejected.
  { total: 1, percent: 100, count: 1 },
  { total: 2, percent: 10, count: 1 }, // At least one of two.
  { total: 3, percent: 50, count: 1 },
  { total: 10, percent: 50, count: 5 },
  { total: 10, percent: 0, count: 0 },
])("of $total at $percent % at most $count are ejected", ({ total, percent, count }) => {
  expect(ejectableCount(total, { ...policy, ejectedPercentMax: percent })).toBe(count);
});
