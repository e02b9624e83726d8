import type { OutlierPolicy } from "../model/mesh.ts";

/** What is remembered of one endpoint's failures. Terms and rules follow Envoy's outlier detection. */
export interface OutlierState {
  failuresInRow: number;
  /** Since the interval began. */
  requests: number;
  failures: number;
  /** Milliseconds of the clock. */
  intervalEndMs: number;
  /** Ejections so far; forgotten after a quiet time. */
  ejections: number;
  /** Milliseconds of the clock; 0 when it is not ejected. */
  ejectedUntilMs: number;
  /** When the last ejection ended. */
  reinstatedMs: number;
  /** Plain words; empty when it is not ejected. */
  reason: string;
  /** It was ejected because nothing could be connected to. */
  unreachable: boolean;
}

export function freshOutlierState(): OutlierState {
  return {
    failuresInRow: 0,
    requests: 0,
    failures: 0,
    intervalEndMs: 0,
    ejections: 0,
    ejectedUntilMs: 0,
    reinstatedMs: 0,
    reason: "",
    unreachable: false,
  };
}

/** How many endpoints of `total` may be ejected together: the share rounded down, but one of two or more. */
export function ejectableCount(total: number, { ejectedPercentMax }: OutlierPolicy): number {
  if (ejectedPercentMax === 0 || total < 2) return ejectedPercentMax === 100 ? total : 0;
  return Math.max(1, Math.floor((total * ejectedPercentMax) / 100));
}

/** Milliseconds of the next ejection after `ejections` earlier ones: doubles, up to the policy's cap. */
export function ejectionMs(ejections: number, { ejectionMsBase, ejectionMsMax }: OutlierPolicy): number {
  return Math.min(ejectionMsMax, ejectionMsBase * 2 ** Math.min(ejections, 30));
}

/** Counts one failure. True when that many in a row call for ejection. */
export function noteFailure(state: OutlierState, policy: OutlierPolicy): boolean {
  state.failuresInRow += 1;
  return state.failuresInRow >= policy.consecutiveFailuresMax && state.ejectedUntilMs === 0;
}

/**
 * Counts one failure among the requests of an interval, as Envoy's failure percentage does. True when its share calls
 * for ejection. It finds those that fail often, but never enough times in a row. An interval begins with a failure, so
 * that endpoints without any pay nothing.
 */
export function noteFailureShare(state: OutlierState, policy: OutlierPolicy, nowMs: number): boolean {
  if (nowMs >= state.intervalEndMs) {
    state.intervalEndMs = nowMs + policy.failureIntervalMs;
    state.requests = 0;
    state.failures = 0;
  }
  state.requests += 1;
  state.failures += 1;
  return (
    state.requests >= policy.failureRequestsMin &&
    state.failures * 100 > state.requests * policy.failurePercentMax &&
    state.ejectedUntilMs === 0
  );
}

/** Ends an ejection. */
export function reinstate(state: OutlierState, nowMs: number): void {
  state.ejectedUntilMs = 0;
  state.failuresInRow = 0;
  state.intervalEndMs = 0;
  state.reinstatedMs = nowMs;
  state.reason = "";
  state.unreachable = false;
}

/** Counts one success beside failures: the row is broken, and after a quiet time as long as the longest ejection all is forgiven. */
export function noteSuccess(state: OutlierState, policy: OutlierPolicy, nowMs: number): void {
  state.failuresInRow = 0;
  if (state.ejections > 0 && nowMs - state.reinstatedMs > policy.ejectionMsMax) state.ejections = 0;
}
