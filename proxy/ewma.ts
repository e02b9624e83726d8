import type { Random } from "../base/random.ts";

/** How fast what was measured is forgotten: after this, 1/e of it is left. */
const DECAY_MS = 10_000;
/** What an endpoint without a measurement costs while it has requests in flight: it is tried, not flooded. */
const UNKNOWN_MS = 1_000;

/**
 * Peak-sensitive moving average of response times, as in Finagle's and Linkerd's peak EWMA: what is slower than the
 * average counts at once and whole, what is faster only as time goes by.
 */
export class PeakEwma {
  #costMs = 0;
  #atMs = 0;

  observe(elapsedMs: number, nowMs: number): void {
    const weight = Math.exp(-Math.max(0, nowMs - this.#atMs) / DECAY_MS);
    this.#costMs = elapsedMs > this.#costMs ? elapsedMs : this.#costMs * weight + elapsedMs * (1 - weight);
    this.#atMs = nowMs;
  }

  /** Given up unanswered after so long: counts where that is more than was expected. */
  observeAtLeast(elapsedMs: number, nowMs: number): void {
    if (elapsedMs > this.#costMs) this.observe(elapsedMs, nowMs);
  }

  /** What one more request would cost: the average, fading while nobody measures, times those in flight and itself. */
  load(inFlight: number, nowMs: number): number {
    const faded = this.#costMs * Math.exp(-Math.max(0, nowMs - this.#atMs) / DECAY_MS);
    if (this.#atMs === 0) return inFlight === 0 ? 0 : UNKNOWN_MS * (inFlight + 1);
    return faded * (inFlight + 1);
  }
}

/** The cheaper of two drawn at random; `avoid` only when it is the only one. */
export function pickLowestLoad<E extends { readonly inFlight: number; readonly ewma: PeakEwma }>(
  candidates: readonly E[],
  random: Random,
  nowMs: number,
  avoid: E | undefined,
): E | undefined {
  const count = candidates.length;
  if (count <= 1) return candidates[0];
  const first = Math.floor(random() * count);
  const second = (first + 1 + Math.floor(random() * (count - 1))) % count;
  const a = candidates[first]!;
  const b = candidates[second]!;
  if (a === avoid) return b;
  if (b === avoid) return a;
  return b.ewma.load(b.inFlight, nowMs) < a.ewma.load(a.inFlight, nowMs) ? b : a;
}
