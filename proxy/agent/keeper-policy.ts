import { equalJitterMs } from "../../base/backoff.ts";
import type { Random } from "../../base/random.ts";

/** When a keeper loses patience, and how soon it tries again. Pure, so that it can be tested without processes. */
export interface KeeperPolicy {
  /** Between two pings, in milliseconds. @default 500 */
  readonly pingMs: number;
  /** Pings in a row without an answer that make a worker count as hung. @default 4, so 2 s */
  readonly missedPingsMax: number;
  /** From fork to serving, in milliseconds; longer is a failed start. @default 20_000 */
  readonly startMsMax: number;
  /** A worker that lived this long died for a reason of its own: replaced at once. @default 10_000 */
  readonly steadyMs: number;
  /** Delays between quick deaths. @default 100 ms to 5 s */
  readonly backoff: { readonly baseMs: number; readonly capMs: number };
  /** Draining workers at once; one more and the oldest is cut. @default 2 */
  readonly drainingMax: number;
}

export const defaultKeeperPolicy: KeeperPolicy = {
  pingMs: 500,
  missedPingsMax: 4,
  startMsMax: 20_000,
  steadyMs: 10_000,
  backoff: { baseMs: 100, capMs: 5_000 },
  drainingMax: 2,
};

/**
 * How long to wait before the next worker, and the number of quick deaths so far.
 * The first quick death is forgiven at once: a `kill -9` right after a start is not a crash loop.
 */
export function replacementDelay(
  livedMs: number,
  quickDeathsBefore: number,
  policy: KeeperPolicy,
  random: Random,
): { delayMs: number; quickDeaths: number } {
  if (livedMs >= policy.steadyMs) return { delayMs: 0, quickDeaths: 0 };
  const quickDeaths = quickDeathsBefore + 1;
  if (quickDeaths === 1) return { delayMs: 0, quickDeaths };
  return { delayMs: equalJitterMs(quickDeaths - 2, policy.backoff, random), quickDeaths };
}

export interface Pulse {
  /** Number of the last ping sent. */
  readonly sent: number;
  /** Number of the last ping answered. */
  readonly answered: number;
}

/**
 * A worker is hung when it left `missedPingsMax` pings unanswered. Counted in pings, not in time, so that a
 * keeper that was itself suspended does not blame its worker.
 */
export function isHung({ sent, answered }: Pulse, policy: KeeperPolicy): boolean {
  return sent - answered >= policy.missedPingsMax;
}
