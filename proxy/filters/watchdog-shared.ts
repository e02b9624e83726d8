/** What the main thread and the watchdog's thread share. */
export interface WatchdogData {
  readonly memory: SharedArrayBuffer;
  readonly tickMs: number;
  /** What the process may grow by while one filter is inside. */
  readonly growthBytesMax: number;
}

/** Places in the shared Int32Array. */
export const SLOT = { state: 0, run: 1, timeoutMs: 2, asleep: 3 } as const;

/** `state`: no filter is inside, one is, or one is being cut off for its time or for memory. */
export const IDLE = 0;
export const INSIDE = 1;
export const CUT = { timeout: 2, memory: 3 } as const;
