import type { Clock } from "./clock.ts";

interface Waiter {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

/** A clock that stands still until `advance` is called; for tests and simulations. */
export class ManualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  #waiters: Waiter[] = [];
  readonly #wallStartMs: number;

  constructor(wallStartMs = Date.UTC(2026, 0, 1)) {
    this.#wallStartMs = wallStartMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#wallStartMs + this.#nowMs;
  }

  /** How many timers wait; zero is what a test for leaks expects. */
  get pendingCount(): number {
    return this.#waiters.length;
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const timer = this.after(delayMs, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      const onAbort = () => {
        timer[Symbol.dispose]();
        reject(signal?.reason as Error);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  after(delayMs: number, callback: () => void): Disposable {
    const waiter: Waiter = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, run: callback };
    this.#waiters.push(waiter);
    return { [Symbol.dispose]: () => this.#remove(waiter) };
  }

  every(intervalMs: number, callback: () => void): Disposable {
    let current: Disposable;
    const again = () => {
      current = this.after(intervalMs, () => {
        again();
        callback();
      });
    };
    again();
    return { [Symbol.dispose]: () => current[Symbol.dispose]() };
  }

  /** Moves time forward, running every due timer in order and letting promises settle between them. */
  async advance(byMs: number): Promise<void> {
    const untilMs = this.#nowMs + byMs;
    await settle();
    for (let next = this.#nextDue(untilMs); next !== undefined; next = this.#nextDue(untilMs)) {
      this.#remove(next);
      this.#nowMs = next.atMs;
      next.run();
      await settle();
    }
    this.#nowMs = untilMs;
  }

  #nextDue(untilMs: number): Waiter | undefined {
    return this.#waiters
      .filter((waiter) => waiter.atMs <= untilMs)
      .sort((a, b) => a.atMs - b.atMs || a.order - b.order)[0];
  }

  #remove(waiter: Waiter): void {
    this.#waiters = this.#waiters.filter((other) => other !== waiter);
  }
}

/** Lets pending promise callbacks run; twice through the macrotask queue covers chains of awaits. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
}
