/** How hard it is for this process to go on. */
export interface PressureSample {
  /** Memory in use, as a share of what there is; 1 is all. */
  readonly memoryShare: number;
  /** How late the event loop is, smoothed, in milliseconds. */
  readonly lagMs: number;
}

export interface PressurePolicy {
  /** Percent of memory in use from which on requests of low priority are refused. */
  readonly shedLowPercent: number;
  /** From which on those of normal priority are refused too. */
  readonly shedNormalPercent: number;
  /** The same for the event loop's lag; 0 is no limit. */
  readonly shedLowLagMs: number;
  readonly shedNormalLagMs: number;
}

/** 0: everybody is served; 1: not those of low priority; 2: only those of high priority. */
export type PressureLevel = 0 | 1 | 2;

/** What an engine asks before it takes a request on. */
export interface Pressure {
  readonly level: PressureLevel;
}

/** A level is left only this far below where it began, so that it does not flicker. */
const LEAVE_SHARE = 0.95;

/** The level now; `before` is the one until now. */
export function pressureLevel(
  { memoryShare, lagMs }: PressureSample,
  before: PressureLevel,
  policy: PressurePolicy,
): PressureLevel {
  const reached = (level: PressureLevel, percent: number, lagMax: number): boolean => {
    const factor = before >= level ? LEAVE_SHARE : 1;
    return memoryShare * 100 >= percent * factor || (lagMax !== 0 && lagMs >= lagMax * factor);
  };
  if (reached(2, policy.shedNormalPercent, policy.shedNormalLagMs)) return 2;
  return reached(1, policy.shedLowPercent, policy.shedLowLagMs) ? 1 : 0;
}
