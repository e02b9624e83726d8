import { expect, test } from "vitest";
import { OutlierPolicy } from "../model/mesh.ts";
import {
  ejectableCount,
  ejectionMs,
  freshOutlierState,
  noteFailure,
  noteFailureShare,
  noteSuccess,
  reinstate,
} from "./outlier.ts";

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

test("too large a share of failures in an interval calls for ejection, however they are spread", () => {
  const share = OutlierPolicy.parse({
    failurePercentMax: 40,
    failureRequestsMin: 10,
    failureIntervalMs: 1_000,
  });
  const state = freshOutlierState();
  const fail = (nowMs: number): boolean => noteFailureShare(state, share, nowMs);
  const alternate = (times: number, nowMs: number): boolean[] =>
    Array.from({ length: times }, () => {
      const ejects = fail(nowMs);
      state.requests += 1;
      return ejects;
    });
  expect(alternate(6, 0)).toEqual([false, false, false, false, false, true]); // The eleventh request is the first failure of ten or more.
  expect(alternate(5, 1_000)).not.toContain(true); // A new interval counts anew.
  state.requests += 10;
  expect(fail(1_999)).toBe(false); // 6 of 21.
  state.ejectedUntilMs = 5_000;
  for (let count = 0; count < 50; count += 1) expect(fail(1_999)).toBe(false); // It is ejected already.
  reinstate(state, 1_999);
  expect(fail(1_999)).toBe(false);
  expect(state).toMatchObject({ requests: 1, failures: 1 });
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
