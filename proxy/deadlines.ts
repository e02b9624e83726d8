import type { Clock } from "../base/clock.ts";

/** Something that wants to be asked when its time has come. One object may wait in one wheel once. */
export interface Timed {
  /** Links of the wheel's lists; nobody else touches them. */
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  /** Tick at which the wheel looks at it; -1 when it does not wait. */
  wheelTick: number;
  /**
   * Called when the tick has come, and perhaps too early: a deadline that moved later is not moved in the wheel.
   * Returns when to ask again, in milliseconds of the clock; Infinity: not before the next `watch`.
   */
  onTick(nowMs: number): number;
}

const SLOTS = 512;

/** A timer for what is too rare or too short for the wheel; what throws in it is one fault, not the process's end. */
export function guardedTimer(
  clock: Clock,
  delayMs: number,
  onFault: (error: unknown) => void,
  run: () => void,
): Disposable {
  return clock.after(delayMs, () => {
    try {
      run();
    } catch (error) {
      onFault(error);
    }
  });
}

/**
 * Deadlines for many connections with one timer: a coarse wheel (Varghese and Lauck, 1987) whose entries are lazy.
 * `watch` costs nothing when the deadline only moves later, which is what nearly every request does.
 * Deadlines fire within two ticks after their time, never before. The timer runs only while somebody waits.
 */
export class DeadlineWheel {
  readonly #clock: Clock;
  readonly #onFault: (error: unknown) => void;
  readonly #tickMs: number;
  readonly #slots: (Timed | undefined)[] = Array.from({ length: SLOTS }, () => undefined);
  #count = 0;
  /** The last tick that was handled. */
  #tick: number;
  #timer: Disposable | undefined;

  /** `onFault` hears what is thrown by those that are asked; the others are asked all the same. */
  constructor(clock: Clock, onFault: (error: unknown) => void, tickMs = 50) {
    this.#clock = clock;
    this.#onFault = onFault;
    this.#tickMs = tickMs;
    this.#tick = Math.floor(clock.nowMs() / tickMs);
  }

  /** How many wait; zero is what a test for leaks expects. */
  get count(): number {
    return this.#count;
  }

  /** Asks `timed` at or soon after `dueMs`; Infinity keeps what was arranged. */
  watch(timed: Timed, dueMs: number): void {
    if (dueMs === Infinity) return;
    const tick = Math.floor(dueMs / this.#tickMs) + 1;
    if (timed.wheelTick >= 0) {
      if (timed.wheelTick <= tick) return;
      this.forget(timed);
    }
    this.#insert(timed, tick);
    if (this.#timer === undefined) {
      this.#tick = Math.floor(this.#clock.nowMs() / this.#tickMs);
      this.#arm();
    }
  }

  forget(timed: Timed): void {
    if (timed.wheelTick < 0) return;
    const { wheelNext: next, wheelPrevious: previous } = timed;
    if (previous === undefined) this.#slots[timed.wheelTick % SLOTS] = next;
    else previous.wheelNext = next;
    if (next !== undefined) next.wheelPrevious = previous;
    timed.wheelNext = undefined;
    timed.wheelPrevious = undefined;
    timed.wheelTick = -1;
    this.#count -= 1;
  }

  /** The time of the last tick: good enough for deadlines of whoever waits in this wheel, and cheap. */
  coarseNowMs(): number {
    return this.#timer === undefined ? this.#clock.nowMs() : this.#tick * this.#tickMs;
  }

  close(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
  }

  #insert(timed: Timed, tick: number): void {
    const slot = tick % SLOTS;
    const first = this.#slots[slot];
    timed.wheelTick = tick;
    timed.wheelNext = first;
    timed.wheelPrevious = undefined;
    if (first !== undefined) first.wheelPrevious = timed;
    this.#slots[slot] = timed;
    this.#count += 1;
  }

  #arm(): void {
    this.#timer = this.#clock.after(this.#tickMs, () => this.#turn());
  }

  /** Handles every tick since the last turn; after a long pause of the process each slot once. */
  #turn(): void {
    const nowMs = this.#clock.nowMs();
    const nowTick = Math.floor(nowMs / this.#tickMs);
    const from = Math.max(this.#tick + 1, nowTick - SLOTS + 1);
    for (let tick = from; tick <= nowTick; tick += 1) this.#askSlot(tick % SLOTS, nowTick, nowMs);
    this.#tick = nowTick;
    this.#timer = undefined;
    if (this.#count > 0) this.#arm();
  }

  #askSlot(slot: number, nowTick: number, nowMs: number): void {
    // The list is taken off first: what is asked may close others in it, which then unlink themselves.
    const due: Timed[] = [];
    for (let timed = this.#slots[slot]; timed !== undefined; timed = timed.wheelNext) {
      if (timed.wheelTick <= nowTick) due.push(timed);
    }
    for (const timed of due) {
      if (timed.wheelTick < 0 || timed.wheelTick > nowTick) continue;
      this.forget(timed);
      try {
        this.watch(timed, timed.onTick(nowMs));
      } catch (error) {
        this.#onFault(error);
      }
    }
  }
}
