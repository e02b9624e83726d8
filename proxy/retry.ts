import { backoffMs } from "../base/backoff.ts";
import type { Random } from "../base/random.ts";
import type { RetryPolicy } from "../model/mesh.ts";

/** Caps retries at a share of requests, so that retries cannot multiply an outage. Follows Finagle's RetryBudget. */
export class RetryBudget {
  #ratio: number;
  #burst: number;
  #tokens: number;

  constructor(policy: Pick<RetryPolicy, "budgetRatio" | "budgetBurst">) {
    this.#ratio = policy.budgetRatio;
    this.#burst = this.#tokens = policy.budgetBurst;
  }

  /** Takes over a new policy; what was earned stays, up to the new bound. */
  change({ budgetRatio, budgetBurst }: Pick<RetryPolicy, "budgetRatio" | "budgetBurst">): void {
    this.#ratio = budgetRatio;
    if (budgetBurst > this.#burst) this.#tokens += budgetBurst - this.#burst;
    this.#burst = budgetBurst;
    this.#tokens = Math.min(this.#tokens, Math.max(budgetBurst, 1));
  }

  /** Every request earns a part of a retry; at least one whole one can be saved up. */
  deposit(): void {
    this.#tokens = Math.min(Math.max(this.#burst, 1), this.#tokens + this.#ratio);
  }

  /** False when spent: answer with the failure in hand. */
  withdraw(): boolean {
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}

/** How an attempt ended, as far as it matters for another one. */
export interface FailedAttempt {
  /** A byte of the request may have reached the application. */
  readonly sent: boolean;
  readonly idempotent: boolean;
  /** Everything sent so far is still at hand. */
  readonly replayable: boolean;
  /** The attempt used a connection that had been idle, and ended without a byte: the keep-alive race. */
  readonly staleConnection: boolean;
  /** It was given up because no response came within the time of one attempt. */
  readonly timedOut: boolean;
  /** Attempts before this one that were retries already. */
  readonly retries: number;
}

export type RetryVerdict =
  /** Not again: answer with the failure. */
  | "no"
  /** Again on a fresh connection; costs nothing, because no endpoint failed. */
  | "reconnect"
  /** Again, elsewhere if there is elsewhere, if the budget allows. */
  | "retry";

/**
 * May this request be sent again? Never when it may have been executed, unless its method is idempotent or the
 * policy says so (RFC 9110 9.2.2).
 */
export function judgeRetry(attempt: FailedAttempt, policy: RetryPolicy): RetryVerdict {
  if (!attempt.replayable || (attempt.timedOut && !policy.onTimeout)) return "no";
  if (attempt.sent && !attempt.idempotent && !policy.nonIdempotent) return "no";
  if (attempt.staleConnection) return "reconnect";
  return attempt.retries < policy.retriesMax ? "retry" : "no";
}

/**
 * Milliseconds before retry number `retries`, counted from 1. The first goes to another endpoint at once: whoever
 * refused is not asked again. Every other one waits, with full jitter, so that many callers do not come back together.
 */
export function retryDelayMs(
  retries: number,
  elsewhere: boolean,
  policy: RetryPolicy,
  random: Random,
): number {
  if (retries === 1 && elsewhere) return 0;
  return backoffMs(retries - 1, { baseMs: policy.backoffMsBase, capMs: policy.backoffMsMax }, random);
}
