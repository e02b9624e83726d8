import type { RouteActions } from "../../model/route.ts";
import { fieldValue } from "../headers.ts";

export type RateLimitSpec = NonNullable<RouteActions["rateLimit"]>;

export interface Grant {
  readonly allowed: boolean;
  /** Requests that would be allowed right now. */
  readonly remaining: number;
  /** Until everything is allowed again. */
  readonly resetMs: number;
  /** Until the next one is allowed; 0 when this one was. */
  readonly retryAfterMs: number;
}

/**
 * Counts requests by key with the generic cell rate algorithm (ITU-T I.371, the virtual scheduling form): one number a
 * key, the time at which all that was let through would have arrived evenly. No timer, and a window that slides.
 * The table is bounded: when it is full, the key that was let through longest ago is forgotten and begins anew.
 */
export class RateLimiter {
  readonly #intervalMs: number;
  readonly #burst: number;
  readonly #keysMax: number;
  /** In the order of their last request. */
  readonly #arrivals = new Map<string, number>();

  constructor(
    { requests, windowMs, burst }: Pick<RateLimitSpec, "requests" | "windowMs" | "burst">,
    keysMax: number,
  ) {
    this.#intervalMs = windowMs / requests;
    this.#burst = burst;
    this.#keysMax = keysMax;
  }

  get keyCount(): number {
    return this.#arrivals.size;
  }

  take(key: string, nowMs: number): Grant {
    const known = this.#arrivals.get(key);
    const arrivalMs = Math.max(known ?? nowMs, nowMs) + this.#intervalMs;
    const capacityMs = this.#intervalMs * this.#burst;
    const aheadMs = arrivalMs - nowMs;
    // A thousandth of a millisecond forgives what adding fractions gets wrong.
    if (aheadMs > capacityMs + 0.001) {
      const resetMs = aheadMs - this.#intervalMs;
      return { allowed: false, remaining: 0, resetMs, retryAfterMs: aheadMs - capacityMs };
    }
    if (known !== undefined) this.#arrivals.delete(key);
    else if (this.#arrivals.size >= this.#keysMax) this.#forgetOldest();
    this.#arrivals.set(key, arrivalMs);
    const remaining = Math.floor((capacityMs - aheadMs) / this.#intervalMs + 0.001);
    return { allowed: true, remaining, resetMs: aheadMs, retryAfterMs: 0 };
  }

  #forgetOldest(): void {
    for (const key of this.#arrivals.keys()) {
      this.#arrivals.delete(key);
      return;
    }
  }
}

/** Characters of a field's value that tell keys apart. */
const KEY_LENGTH_MAX = 256;

/** What a request is counted under. A client without the field shares one account with all the others without. */
export function rateLimitKey(
  key: RateLimitSpec["key"],
  request: { readonly fields: string },
  from: string,
  peerAddress: string,
): string {
  if (typeof key === "object") return (fieldValue(request.fields, key.header) ?? "").slice(0, KEY_LENGTH_MAX);
  switch (key) {
    case "route":
      return "";
    case "service":
      return from;
    case "address":
      return addressKey(peerAddress);
  }
}

/** IPv4 whole; of IPv6 the first 64 bits, since a single client has as many addresses as it likes below them. */
export function addressKey(address: string): string {
  if (address.startsWith("::ffff:") && address.includes(".")) return address.slice(7);
  if (!address.includes(":")) return address;
  const [before = "", after] = address.split("%")[0]!.split("::");
  const head = before === "" ? [] : before.split(":");
  const tail = after === undefined || after === "" ? [] : after.split(":");
  const middle = after === undefined ? [] : Array.from({ length: 8 - head.length - tail.length }, () => "0");
  return [...head, ...middle, ...tail].slice(0, 4).join(":");
}

/** Up to whole seconds, and 30.0000001 s are 30. */
export function wholeSeconds(ms: number): number {
  return Math.max(0, Math.ceil((ms - 0.001) / 1000));
}

/** `RateLimit-Policy` and `RateLimit` lines of draft-ietf-httpapi-ratelimit-headers-10, times in whole seconds. */
export function rateLimitFields(
  { requests, windowMs }: RateLimitSpec,
  { remaining, resetMs }: Grant,
): string {
  const windowSeconds = Math.max(1, Math.ceil(windowMs / 1000));
  return (
    `ratelimit-policy: "default";q=${requests};w=${windowSeconds}\r\n` +
    `ratelimit: "default";r=${remaining};t=${wholeSeconds(resetMs)}\r\n`
  );
}
