import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Log } from "../../base/log.ts";
import type { ProxyReport } from "../../model/mesh.ts";

export interface ReporterOptions {
  readonly send: (report: ProxyReport, signal: AbortSignal) => Promise<void>;
  readonly make: () => ProxyReport;
  readonly clock: Clock;
  readonly log: Log;
  /** Between two reports when nothing happens, in milliseconds. @default 2_000 */
  readonly everyMs?: number;
  /** A report that takes longer is given up, in milliseconds. @default 5_000 */
  readonly timeoutMs?: number;
}

/**
 * Tells control what this proxy does: regularly, and at once when asked. One report at a time; a report asked
 * for meanwhile follows with what is true then. A report that fails is skipped: the next one says it all again.
 */
export class Reporter {
  readonly #options: ReporterOptions;
  #timer: Disposable | undefined;
  #again = false;
  #sending: Promise<void> | undefined;
  #failing = false;
  #stopped = false;
  #giveUp: AbortController | undefined;

  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer ??= this.#options.clock.every(this.#options.everyMs ?? 2_000, () => this.now());
    this.now();
  }

  now(): void {
    if (this.#stopped || this.#timer === undefined) return;
    this.#again = true;
    this.#sending ??= this.#sendAll();
  }

  /** Nothing is sent after this resolved. A report on its way has a second to arrive. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.[Symbol.dispose]();
    using _limit = this.#options.clock.after(1_000, () => this.#giveUp?.abort(new Error("stopping")));
    await this.#sending;
  }

  async #sendAll(): Promise<void> {
    const { log } = this.#options;
    while (this.#again && !this.#stopped) {
      this.#again = false;
      try {
        await this.#sendOne();
        if (this.#failing) log.info({}, "control takes reports again");
        this.#failing = false;
      } catch (error) {
        if (!this.#failing) log.warn({ reason: messageOf(error) }, "control does not take reports; going on");
        this.#failing = true;
      }
    }
    this.#sending = undefined;
  }

  async #sendOne(): Promise<void> {
    const { clock, make, send, timeoutMs = 5_000 } = this.#options;
    const limit = new AbortController();
    this.#giveUp = limit;
    using _timer = clock.after(timeoutMs, () => {
      limit.abort(new Error(`no answer within ${timeoutMs / 1000} s`));
    });
    await send(make(), limit.signal);
  }
}
