import type { Random } from "../base/random.ts";
import type { EndpointState } from "./cluster.ts";

/** The less busy of two drawn at random ("the power of two choices"); `avoid` only when it is the only one. */
export function pickLeastRequest<E extends { readonly inFlight: number }>(
  candidates: readonly E[],
  random: Random,
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
  return b.inFlight < a.inFlight ? b : a;
}

/** The next in turn behind `cursor`; `avoid` only when it is the only one. */
export function pickRoundRobin<E>(
  candidates: readonly E[],
  cursor: number,
  avoid: E | undefined,
): E | undefined {
  const picked = candidates[cursor % Math.max(1, candidates.length)];
  return picked === avoid ? candidates[(cursor + 1) % Math.max(1, candidates.length)] : picked;
}

/**
 * Counts one request on an endpoint until disposed, however the exchange ends. Each exchange owns one and uses it
 * again and again; an endpoint that left the configuration learns of its last request here.
 */
export class Lease implements Disposable {
  endpoint: EndpointState | undefined;

  take(endpoint: EndpointState): void {
    this[Symbol.dispose]();
    endpoint.inFlight += 1;
    this.endpoint = endpoint;
  }

  [Symbol.dispose](): void {
    const endpoint = this.endpoint;
    if (endpoint === undefined) return;
    this.endpoint = undefined;
    endpoint.inFlight -= 1;
    if (endpoint.inFlight === 0 && endpoint.removed) endpoint.cluster.onEmptied(endpoint);
  }
}
