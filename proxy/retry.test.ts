import * as fc from "fast-check";
import { expect, test } from "vitest";
import { RetryPolicy } from "../model/mesh.ts";
import { RetryBudget, judgeRetry, retryDelayMs } from "./retry.ts";

const policy = RetryPolicy.parse({});
const attempt = {
  sent: true,
  idempotent: true,
  replayable: true,
  staleConnection: false,
  timedOut: false,
  retries: 0,
};

test.for([
  { change: {}, verdict: "retry" },
  { change: { retries: 2 }, verdict: "no" },
  { change: { idempotent: false }, verdict: "no" },
  { change: { idempotent: false, sent: false }, verdict: "retry" },
  { change: { replayable: false }, verdict: "no" },
  { change: { replayable: false, sent: false }, verdict: "no" }, // Its body is gone, whoever saw it.
  { change: { staleConnection: true, retries: 2 }, verdict: "reconnect" },
  { change: { staleConnection: true, idempotent: false }, verdict: "no" },
  { change: { timedOut: true }, verdict: "no" },
] as const)("$change: $verdict", ({ change, verdict }) => {
  expect(judgeRetry({ ...attempt, ...change }, policy)).toBe(verdict);
});

test.for([
  { change: {}, verdict: "retry" },
  { change: { idempotent: false }, verdict: "no" }, // It may be at work on it still.
  { change: { retries: 2 }, verdict: "no" },
] as const)(
  "an attempt that took too long, where the policy tries again, $change: $verdict",
  ({ change, verdict }) => {
    const eager = { ...policy, onTimeout: true };
    expect(judgeRetry({ ...attempt, timedOut: true, ...change }, eager)).toBe(verdict);
  },
);

test.for([
  { retries: 1, elsewhere: true, delayMs: 0 },
  { retries: 1, elsewhere: false, delayMs: 12.5 },
  { retries: 2, elsewhere: true, delayMs: 25 },
  { retries: 9, elsewhere: true, delayMs: 125 }, // The cap.
])(
  "retry $retries, elsewhere $elsewhere: after up to twice $delayMs ms",
  ({ retries, elsewhere, delayMs }) => {
    expect(retryDelayMs(retries, elsewhere, policy, () => 0.5)).toBe(delayMs);
  },
);

test("what may have been executed is never sent again unless that is harmless or asked for", () => {
  const attempts = fc.record({
    sent: fc.boolean(),
    idempotent: fc.boolean(),
    replayable: fc.boolean(),
    staleConnection: fc.boolean(),
    timedOut: fc.boolean(),
    retries: fc.nat({ max: 3 }),
  });
  fc.assert(
    fc.property(attempts, fc.boolean(), (one, nonIdempotent) => {
      const verdict = judgeRetry(one, { ...policy, nonIdempotent });
      if (one.sent && !one.idempotent && !nonIdempotent) expect(verdict).toBe("no");
      if (!one.replayable) expect(verdict).toBe("no");
    }),
  );
});

test("the budget is a share of requests, with a burst before any has earned one", () => {
  const budget = new RetryBudget({ budgetRatio: 0.25, budgetBurst: 2 });
  expect([budget.withdraw(), budget.withdraw(), budget.withdraw()]).toEqual([true, true, false]);
  for (let count = 0; count < 3; count += 1) budget.deposit();
  expect(budget.withdraw()).toBe(false);
  budget.deposit();
  expect([budget.withdraw(), budget.withdraw()]).toEqual([true, false]);
});

test("a budget without a burst still saves up one retry", () => {
  const budget = new RetryBudget({ budgetRatio: 0.5, budgetBurst: 0 });
  expect(budget.withdraw()).toBe(false);
  for (let count = 0; count < 100; count += 1) budget.deposit();
  expect([budget.withdraw(), budget.withdraw()]).toEqual([true, false]);
});
