/** A release's share of a cluster's requests. */
export interface Share {
  readonly release: number;
  readonly weight: number;
  /** False while none of its endpoints may be used: the others take its part. */
  usable: boolean;
}

/**
 * Deals requests to releases by smooth weighted round robin (Igor Sysoev's, from nginx): exact over every window as
 * long as the sum of the weights divided by their greatest common divisor, and spread evenly within it.
 * One per listener and cluster; it keeps its place when the configuration changes and the weights do not.
 */
export class SmoothSplit {
  #shares: readonly Share[] = [];
  #credits: number[] = [];

  /** The release the next request goes to; undefined when no share has a weight. */
  next(shares: readonly Share[]): number | undefined {
    if (shares !== this.#shares) this.#adopt(shares);
    const credits = this.#credits;
    const anyUsable = shares.some(({ usable, weight }) => usable && weight > 0);
    let total = 0;
    let best = -1;
    for (let index = 0; index < shares.length; index += 1) {
      const share = shares[index]!;
      if (share.weight === 0 || (anyUsable && !share.usable)) continue;
      total += share.weight;
      credits[index]! += share.weight;
      if (best < 0 || credits[index]! > credits[best]!) best = index;
    }
    if (best < 0) return undefined;
    credits[best]! -= total;
    return shares[best]!.release;
  }

  #adopt(shares: readonly Share[]): void {
    const same =
      shares.length === this.#shares.length &&
      shares.every(({ release, weight }, index) => {
        const old = this.#shares[index];
        return old?.release === release && old.weight === weight;
      });
    if (!same) this.#credits = shares.map(() => 0);
    this.#shares = shares;
  }
}

/**
 * The share that the text `key` always falls into. Higher releases come first on the scale, so while a canary's
 * weight grows nobody who was sent to it goes back (FNV-1a).
 */
export function shareOfKey(shares: readonly Share[], key: string): Share | undefined {
  const weighted = shares.filter(({ weight }) => weight > 0);
  const usable = weighted.filter(({ usable }) => usable);
  const ordered = (usable.length > 0 ? usable : weighted).sort((a, b) => b.release - a.release);
  const total = ordered.reduce((sum, { weight }) => sum + weight, 0);
  let hash = 0x811c9dc5;
  for (let at = 0; at < key.length; at += 1) hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193);
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  let place = ((hash >>> 0) / 0x1_0000_0000) * total;
  for (const share of ordered) {
    if (place < share.weight) return share;
    place -= share.weight;
  }
  return ordered.at(-1);
}
