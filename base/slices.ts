import type { Clock } from "./clock.ts";

/** Long work in small steps: at each `yield` something else may run. */
export type Steps<Result> = Generator<undefined, Result, undefined>;

/** How long other work waits for a slice, in milliseconds; a step that is under way is not cut. */
const SLICE_MS = 1.5;

/** All of it now. */
export function atOnce<Result>(steps: Steps<Result>): Result {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/**
 * A slice at a time: between two of them the event loop turns once, so that what came in meanwhile is served.
 * `onSlice` hears how many milliseconds each took.
 */
export async function inSlices<Result>(
  steps: Steps<Result>,
  clock: Clock,
  onSlice?: (durationMs: number) => void,
): Promise<Result> {
  for (;;) {
    const startedMs = clock.nowMs();
    let step = steps.next();
    while (step.done !== true && clock.nowMs() - startedMs < SLICE_MS) step = steps.next();
    onSlice?.(clock.nowMs() - startedMs);
    if (step.done === true) return step.value;
    await new Promise(setImmediate);
  }
}
