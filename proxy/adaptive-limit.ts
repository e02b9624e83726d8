import type { AdaptivePolicy } from "../model/mesh.ts";

/** Weight of the newest window in the long view of how long answers take: a few hundred windows are remembered. */
const LONG_WEIGHT = 1 / 100;
/** How much of the way to the computed limit one window goes. */
const SMOOTHING = 0.2;
/** What a window with refused or lost requests costs. */
const BACKOFF = 0.9;
const WINDOW_MS = 100;
const WINDOW_SAMPLES_MIN = 10;

/**
 * How many requests a cluster can take at once, learned from how long its answers take: Gradient2 of Netflix's
 * concurrency-limits, with the multiplicative decrease of its AIMD limit for requests that were refused or lost. While
 * answers take as long as usual the limit grows by the square root of itself; when they take longer than `tolerance`
 * times the long view it shrinks in proportion. Pure: time comes with every sample.
 */
export class AdaptiveLimit {
  #limit: number;
  #policy: AdaptivePolicy;
  /** Milliseconds that answers take in the long run; 0 before the first window. */
  #longMs = 0;
  #windowStartMs = -Infinity;
  #sumMs = 0;
  #samples = 0;
  #inFlightMax = 0;
  #drops = 0;

  constructor(policy: AdaptivePolicy) {
    this.#policy = policy;
    this.#limit = policy.limitInitial;
  }

  get limit(): number {
    return Math.floor(this.#limit);
  }

  /** Takes over a new policy; what was learned stays, within the new bounds. */
  change(policy: AdaptivePolicy): void {
    this.#policy = policy;
    this.#limit = this.#clamp(this.#limit);
  }

  /** One answer: after `tookMs`, with `inFlight` of them at work. `dropped`: refused as overloaded, lost or too late. */
  sample(nowMs: number, tookMs: number, inFlight: number, dropped: boolean): void {
    if (this.#samples + this.#drops === 0) this.#windowStartMs = nowMs;
    if (dropped) this.#drops += 1;
    else {
      this.#sumMs += tookMs;
      this.#samples += 1;
    }
    this.#inFlightMax = Math.max(this.#inFlightMax, inFlight);
    const count = this.#samples + this.#drops;
    if (nowMs - this.#windowStartMs >= WINDOW_MS && count >= WINDOW_SAMPLES_MIN) this.#closeWindow();
  }

  #closeWindow(): void {
    if (this.#drops > 0) this.#limit = this.#clamp(this.#limit * BACKOFF);
    else this.#follow(this.#sumMs / this.#samples);
    this.#sumMs = this.#samples = this.#drops = this.#inFlightMax = 0;
  }

  #follow(shortMs: number): void {
    this.#longMs = this.#longMs === 0 ? shortMs : this.#longMs + (shortMs - this.#longMs) * LONG_WEIGHT;
    // After an overload the long view is too slow: let it come down faster than it went up.
    if (this.#longMs > 2 * shortMs) this.#longMs *= 0.95;
    // Not used to the full: nothing can be learned about more.
    if (this.#inFlightMax < this.#limit / 2) return;
    const gradient = Math.max(
      0.5,
      Math.min(1, (this.#policy.tolerance * this.#longMs) / Math.max(shortMs, 0.01)),
    );
    const wanted = this.#limit * gradient + Math.sqrt(this.#limit);
    this.#limit = this.#clamp(this.#limit * (1 - SMOOTHING) + wanted * SMOOTHING);
  }

  #clamp(limit: number): number {
    return Math.min(this.#policy.limitMax, Math.max(this.#policy.limitMin, limit));
  }
}
