import { z } from "zod";
import { formatDuration, parseDurationMs } from "../base/units.ts";
import { ClusterPolicy } from "./mesh.ts";

/** What the mapping of a dependency says about its calls beyond `timeout` and `retries`: shape, meaning, policy. */

const TRY_RULE = 'must be a duration from "10ms" to "1h"';
const HEDGE_RULE = 'must be a duration from "1ms" to "1m", or `p95`';
const PRIORITY_RULE = "must be `low`, `normal` or `high`";
const CONCURRENCY_RULE = "must be a whole number from 1 to 100000, or `adaptive`";

function within(text: string, minMs: number, maxMs: number): boolean {
  const ms = parseDurationMs(text);
  return ms !== undefined && ms >= minMs && ms <= maxMs;
}

/** Keys of `DependencyMapping`. */
export const callKeys = {
  tryTimeout: z
    .string({ error: TRY_RULE })
    .refine((text) => within(text, 10, 3_600_000), TRY_RULE)
    .optional()
    .describe(
      "Longest time for one attempt, to the head of its answer; then it is tried again if it may be.",
    ),
  hedge: z
    .string({ error: HEDGE_RULE })
    .refine((text) => text === "p95" || within(text, 1, 60_000), HEDGE_RULE)
    .optional()
    .describe(
      "After this long without an answer a second attempt goes elsewhere, if it may; the first answer wins.",
    ),
  priority: z
    .enum(["low", "normal", "high"], { error: PRIORITY_RULE })
    .optional()
    .describe("Which calls are served first when not all can be."),
  concurrency: z
    .union([z.int().min(1).max(100_000), z.literal("adaptive")], { error: CONCURRENCY_RULE })
    .optional()
    .describe("Calls that wait for their answer at once; `adaptive` follows how long answers take."),
};

/** The same, resolved. */
export const CallLimits = z.strictObject({
  tryTimeoutMs: z.int().min(1).optional(),
  /** 0: after the time in which 95 % of calls are answered. */
  hedgeMs: z.int().min(0).optional(),
  priority: z.enum(["low", "normal", "high"]).optional(),
  inFlightMax: z.int().min(1).optional(),
  adaptive: z.literal(true).optional(),
});
export type CallLimits = z.infer<typeof CallLimits>;

interface Written {
  readonly tryTimeout?: string | undefined;
  readonly hedge?: string | undefined;
  readonly priority?: CallLimits["priority"];
  readonly concurrency?: number | "adaptive" | undefined;
}

/** Undefined when nothing of it is said. */
export function callLimitsOf({ tryTimeout, hedge, priority, concurrency }: Written): CallLimits | undefined {
  const limits: CallLimits = {
    ...(tryTimeout === undefined ? {} : { tryTimeoutMs: millis(tryTimeout) }),
    ...(hedge === undefined ? {} : { hedgeMs: hedge === "p95" ? 0 : millis(hedge) }),
    ...(priority === undefined ? {} : { priority }),
    ...(typeof concurrency === "number" ? { inFlightMax: concurrency } : {}),
    ...(concurrency === "adaptive" ? { adaptive: true } : {}),
  };
  return Object.keys(limits).length === 0 ? undefined : limits;
}

function millis(text: string): number {
  return Math.round(parseDurationMs(text) ?? 0);
}

/** For `gilliam plan`. */
export function callLimitsText(limits: CallLimits): string {
  const { tryTimeoutMs, hedgeMs, priority, inFlightMax, adaptive } = limits;
  return [
    ...(tryTimeoutMs === undefined ? [] : [`tryTimeout ${formatDuration(tryTimeoutMs)}`]),
    ...(hedgeMs === undefined ? [] : [`hedge ${hedgeMs === 0 ? "p95" : formatDuration(hedgeMs)}`]),
    ...(priority === undefined ? [] : [`priority ${priority}`]),
    ...(inFlightMax === undefined ? [] : [`concurrency ${inFlightMax}`]),
    ...(adaptive === undefined ? [] : ["concurrency adaptive"]),
  ].join(", ");
}

/** The policy of a caller's own cluster. A total time that is named covers everything; an attempt's own is tried again. */
export function policyOfCall(
  requestTimeoutMs: number | undefined,
  retriesMax: number | undefined,
  limits: CallLimits,
): ClusterPolicy {
  const { tryTimeoutMs, hedgeMs, priority, inFlightMax, adaptive } = limits;
  const attemptMs = tryTimeoutMs ?? requestTimeoutMs;
  return ClusterPolicy.parse({
    ...(requestTimeoutMs === undefined ? {} : { requestTimeoutMs, answerTimeoutMs: requestTimeoutMs }),
    ...(attemptMs === undefined ? {} : { responseTimeoutMs: attemptMs }),
    retry: {
      ...(retriesMax === undefined ? {} : { retriesMax }),
      ...(tryTimeoutMs === undefined ? {} : { onTimeout: true }),
    },
    ...(hedgeMs === undefined ? {} : { hedge: hedgeMs === 0 ? {} : { delayMs: hedgeMs } }),
    ...(priority === undefined ? {} : { priority }),
    ...(inFlightMax === undefined ? {} : { inFlightMax }),
    ...(adaptive === undefined ? {} : { adaptive: {} }),
  });
}
