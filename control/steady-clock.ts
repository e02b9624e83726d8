import type { Clock } from "../base/clock.ts";

/**
 * A clock whose wall time does not jump: where the wall clock was when this process started, plus what the monotonic
 * clock has counted since. Everything a decision compares is on it, so that a clock set forward by a year makes no
 * host look silent for a year.
 */
export function steadyClock(clock: Clock): Clock {
  const startWallMs = clock.wallMs() - clock.nowMs();
  return {
    nowMs: () => clock.nowMs(),
    wallMs: () => Math.round(startWallMs + clock.nowMs()),
    sleep: (delayMs, signal) => clock.sleep(delayMs, signal),
    after: (delayMs, callback) => clock.after(delayMs, callback),
    every: (intervalMs, callback) => clock.every(intervalMs, callback),
  };
}
