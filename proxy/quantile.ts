/** How far one sample moves the estimate: a hundred samples follow a change of the double. */
const STEP = 0.05;

/**
 * A quantile of a stream in one number, after "Frugal Streaming for Estimating Quantiles" (Ma, Muthukrishnan,
 * Sandler, 2013), with steps in proportion to the value. Follows changes; rough, and good enough to choose a delay.
 */
export class QuantileEstimate {
  valueMs: number;
  readonly #quantile: number;

  constructor(quantile: number, startMs: number) {
    this.#quantile = quantile;
    this.valueMs = startMs;
  }

  add(sampleMs: number): void {
    if (sampleMs > this.valueMs) this.valueMs *= 1 + STEP * this.#quantile;
    else this.valueMs = Math.max(1, this.valueMs * (1 - STEP * (1 - this.#quantile)));
  }
}
