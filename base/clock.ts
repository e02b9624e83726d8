/** Time as a dependency: logic asks a `Clock`, so tests wind it by hand (see manual-clock.ts). */
export interface Clock {
  /** Milliseconds from an arbitrary start; never goes back, whatever happens to the wall clock. */
  nowMs(): number;
  /** Milliseconds since 1970 in UTC; may jump. For records that people read, never for durations. */
  wallMs(): number;
  /** Resolves after `delayMs`; rejects with the signal's reason when aborted first. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
  /** Calls `callback` once after `delayMs` unless disposed first. Does not keep the process alive. */
  after(delayMs: number, callback: () => void): Disposable;
  /** Calls `callback` every `intervalMs` until disposed. Does not keep the process alive. */
  every(intervalMs: number, callback: () => void): Disposable;
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
  sleep: (delayMs, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const onAbort = () => {
        clearTimeout(timer);
        reject(signal?.reason as Error);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      }, delayMs);
      signal?.addEventListener("abort", onAbort, { once: true });
    }),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs).unref();
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  },
  every: (intervalMs, callback) => {
    const timer = setInterval(callback, intervalMs).unref();
    return { [Symbol.dispose]: () => clearInterval(timer) };
  },
};
