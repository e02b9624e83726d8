import type { ClusterPolicy } from "../model/mesh.ts";
import { AdaptiveLimit } from "./adaptive-limit.ts";
import { PRIORITY, type Priority } from "./call-fields.ts";

/** Share of the bound that requests of low priority may use: the rest is for what matters more. */
const LOW_SHARE = 0.8;

/**
 * How many requests of one cluster may wait for their answer at once: a fixed bound, one that follows what the cluster
 * can take, or the lower of both. A request counts from being sent to the head of its response: streams that have begun
 * are no work that piles up.
 */
export class Admission {
  inFlight = 0;
  #max: number;
  #adaptive: AdaptiveLimit | undefined;

  /** Undefined when the policy bounds nothing, which costs requests nothing. */
  static of(policy: ClusterPolicy, before: Admission | undefined): Admission | undefined {
    if (policy.inFlightMax === 0 && policy.adaptive === undefined) return undefined;
    const admission = before ?? new Admission();
    admission.#change(policy);
    return admission;
  }

  private constructor() {
    this.#max = Infinity;
  }

  /** The bound now. */
  get limit(): number {
    return this.#adaptive === undefined ? this.#max : Math.min(this.#max, this.#adaptive.limit);
  }

  admits(priority: Priority): boolean {
    const { limit } = this;
    return this.inFlight < (priority === PRIORITY.low ? Math.max(1, Math.floor(limit * LOW_SHARE)) : limit);
  }

  enter(): void {
    this.inFlight += 1;
  }

  /** `dropped`: refused as overloaded, lost or too late; undefined: given up for reasons of ours, so nothing is learned. */
  leave(nowMs: number, tookMs: number, dropped: boolean | undefined): void {
    if (dropped !== undefined) this.#adaptive?.sample(nowMs, tookMs, this.inFlight, dropped);
    this.inFlight -= 1;
  }

  #change({ inFlightMax, adaptive }: ClusterPolicy): void {
    this.#max = inFlightMax === 0 ? Infinity : inFlightMax;
    if (adaptive === undefined) this.#adaptive = undefined;
    else if (this.#adaptive === undefined) this.#adaptive = new AdaptiveLimit(adaptive);
    else this.#adaptive.change(adaptive);
  }
}
