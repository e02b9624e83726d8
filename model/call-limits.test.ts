import { expect, test } from "vitest";
import { z } from "zod";
import { callKeys, callLimitsOf, callLimitsText, policyOfCall } from "./call-limits.ts";

const Keys = z.strictObject(callKeys);

test("what is written becomes a policy, and words for a plan", () => {
  const limits = callLimitsOf(
    Keys.parse({ tryTimeout: "2s", hedge: "50ms", priority: "low", concurrency: 20 }),
  );
  expect(policyOfCall(5_000, 1, limits!)).toMatchObject({
    requestTimeoutMs: 5_000,
    answerTimeoutMs: 5_000,
    responseTimeoutMs: 2_000,
    retry: { retriesMax: 1, onTimeout: true },
    hedge: { delayMs: 50 },
    priority: "low",
    inFlightMax: 20,
  });
  expect(callLimitsText(limits!)).toBe("tryTimeout 2s, hedge 50ms, priority low, concurrency 20");
});

test("`p95` and `adaptive` leave the numbers to the proxy", () => {
  const limits = callLimitsOf(Keys.parse({ hedge: "p95", concurrency: "adaptive" }));
  expect(policyOfCall(undefined, undefined, limits!)).toMatchObject({
    requestTimeoutMs: 0,
    retry: { onTimeout: false },
    hedge: {},
    adaptive: { limitInitial: 20 },
    inFlightMax: 0,
  });
});

test("a timeout alone is for the whole and for every attempt; nothing said is nothing", () => {
  expect(policyOfCall(5_000, undefined, {})).toMatchObject({
    responseTimeoutMs: 5_000,
    answerTimeoutMs: 5_000,
  });
  expect(policyOfCall(0, undefined, {})).toMatchObject({
    requestTimeoutMs: 0,
    responseTimeoutMs: 0,
    answerTimeoutMs: 0,
  });
  expect(callLimitsOf({})).toBeUndefined();
});

test.for([
  { tryTimeout: "1ms" },
  { tryTimeout: 5 },
  { hedge: "p99" },
  { hedge: "2m" },
  { priority: "urgent" },
  { concurrency: 0 },
  { concurrency: "some" },
])("refused: %j", (mapping) => {
  expect(Keys.safeParse(mapping).success).toBe(false);
});
