import { Worker } from "node:worker_threads";
import { CUT, IDLE, INSIDE, SLOT, type WatchdogData } from "./watchdog-shared.ts";

const TICK_MS = 10;
const GROWTH_BYTES_MAX = 134_217_728;

/**
 * Guards code that runs in the main thread and may not return. `enter` and `leave` around it cost about 0.15 µs; when it
 * takes too long its execution is ended: nothing behind it on the stack runs, no `catch` and no `finally`, so it has to
 * be called where that does no harm (see turn.ts). `onCut` is called on a fresh stack afterwards.
 *
 * It is processor time that counts, looked at every 10 ms, so that a busy machine does not make a filter a slow one; one
 * that blocks is ended after 20 times as long.
 */
export class Watchdog {
  readonly #memory = new SharedArrayBuffer(64);
  readonly #shared = new Int32Array(this.#memory);
  readonly #worker: Worker;
  readonly #ready = Promise.withResolvers<void>();

  constructor(onCut: () => void, onFault: (error: unknown) => void) {
    const workerData: WatchdogData = {
      memory: this.#memory,
      tickMs: TICK_MS,
      growthBytesMax: GROWTH_BYTES_MAX,
    };
    this.#worker = new Worker(new URL("./watchdog-thread.ts", import.meta.url), {
      workerData,
      env: {},
      resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4 },
    });
    this.#worker.on("message", (message: string) => {
      if (message === "ready") this.#ready.resolve();
      else onCut();
    });
    this.#worker.on("error", (error) => {
      this.#ready.reject(error);
      onFault(error);
    });
    this.#worker.unref();
  }

  /** Resolves when it watches. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  enter(timeoutMs: number): void {
    const shared = this.#shared;
    shared[SLOT.timeoutMs] = timeoutMs;
    shared[SLOT.run]! += 1;
    Atomics.store(shared, SLOT.state, INSIDE);
    if (shared[SLOT.asleep] !== 0) this.#wake();
  }

  /** Returns, or waits for the end of its own execution: the watchdog was faster. */
  leave(): void {
    if (Atomics.compareExchange(this.#shared, SLOT.state, INSIDE, IDLE) === INSIDE) return;
    for (;;); // The end comes from the other thread, within microseconds.
  }

  /** Why the last run was ended; ready for the next one afterwards. */
  takeCut(): "timeout" | "memory" {
    const kind = Atomics.exchange(this.#shared, SLOT.state, IDLE);
    return kind === CUT.memory ? "memory" : "timeout";
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  #wake(): void {
    Atomics.store(this.#shared, SLOT.asleep, 0);
    this.#worker.postMessage("wake");
  }
}
