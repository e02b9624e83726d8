import type { Random } from "./random.ts";

export interface BackoffPolicy {
  /** Upper bound of the first delay, in milliseconds. */
  readonly baseMs: number;
  /** No delay is longer, in milliseconds. */
  readonly capMs: number;
}

/** Full jitter: uniform in [0, min(capMs, baseMs * 2^attempt)); attempt counts from 0. */
export function backoffMs(attempt: number, { baseMs, capMs }: BackoffPolicy, random: Random): number {
  return random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 40));
}

/** Half fixed, half jitter: in [d/2, d) for d = min(capMs, baseMs * 2^attempt). For restarts: never at once. */
export function equalJitterMs(attempt: number, { baseMs, capMs }: BackoffPolicy, random: Random): number {
  const delayMs = Math.min(capMs, baseMs * 2 ** Math.min(attempt, 40));
  return delayMs / 2 + (random() * delayMs) / 2;
}
