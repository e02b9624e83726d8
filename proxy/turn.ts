/**
 * Work that has to wait for the end of the read that is being handled: when it runs, nothing of that read is left on the
 * stack, so that it may be ended at any point (filters/watchdog.ts) without leaving a connection half-way.
 */
export const readEnd: {
  /** A wire is handling a read. */
  reading: boolean;
  /** What to do at its end; undefined, as nearly always: nothing. */
  work: (() => void) | undefined;
} = { reading: false, work: undefined };

/** Called by a wire as the last thing a read does, when there is work. */
export function endRead(): void {
  const { work } = readEnd;
  readEnd.work = undefined;
  readEnd.reading = false;
  work?.();
}
