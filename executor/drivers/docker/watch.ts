import { backoffMs } from "../../../base/backoff.ts";
import type { Clock } from "../../../base/clock.ts";
import { messageOf } from "../../../base/errors.ts";
import type { Log } from "../../../base/log.ts";
import type { Random } from "../../../base/random.ts";
import type { ContainerFacts, Engine } from "./engine.ts";

export interface WatchOptions {
  readonly engine: Engine;
  readonly labels: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** How a container ended; undefined when the engine does not know it any more. */
export type Ending = ContainerFacts | undefined;

const RETRY = { baseMs: 100, capMs: 2_000 };
/** Between two looks although no event came: an engine may hang without closing anything, in milliseconds. */
const LOOK_MS = 5_000;
/** How long the kernel's word that it ran out of memory may come after the end, in milliseconds. */
const OUT_OF_MEMORY_MS = 300;
const KILLED = 137;

/**
 * Tells when containers end. The engine's events say when to look; only a look counts. When the stream of events
 * breaks, every watched container is looked at again as soon as the engine is back, so nothing that happened in
 * between is missed.
 */
export class ContainerWatch {
  readonly #options: WatchOptions;
  readonly #waiting = new Map<string, (ending: Ending) => void>();
  readonly #outOfMemory = new Set<string>();
  readonly #abort = new AbortController();
  readonly #looking = new Set<string>();
  #reachable = true;

  constructor(options: WatchOptions) {
    this.#options = options;
    void this.#follow();
    options.clock.every(LOOK_MS, () => this.#lookAtAll());
  }

  /** False since the last call to the engine failed. */
  get isEngineReachable(): boolean {
    return this.#reachable;
  }

  /** Resolves when the container has ended; never when the watch is closed before. */
  ended(containerId: string): Promise<Ending> {
    return new Promise((resolve) => {
      this.#waiting.set(containerId, resolve);
      void this.#look(containerId);
    });
  }

  /** Whether the kernel killed a process of it for memory, as far as an event said so. */
  ranOutOfMemory(containerId: string): boolean {
    return this.#outOfMemory.has(containerId);
  }

  close(): void {
    this.#abort.abort(new Error("the driver was closed"));
    this.#waiting.clear();
  }

  async #follow(): Promise<void> {
    const { engine, labels, clock, random, log } = this.#options;
    const { signal } = this.#abort;
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      try {
        const events = await engine.events(labels, signal);
        if (!this.#reachable) log.info({}, "the Docker Engine is back");
        this.#reachable = true;
        attempt = 0;
        this.#lookAtAll();
        for await (const { containerId, action } of events) {
          if (action === "oom") this.#outOfMemory.add(containerId);
          if (action === "die" || action === "destroy") void this.#look(containerId);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (this.#reachable)
          log.warn({ reason: messageOf(error) }, "the Docker Engine is gone; instances are left alone");
        this.#reachable = false;
      }
      await clock.sleep(50 + backoffMs(attempt, RETRY, random), signal).catch(() => undefined);
    }
  }

  #lookAtAll(): void {
    if (this.#abort.signal.aborted) return;
    for (const id of this.#waiting.keys()) void this.#look(id);
  }

  async #look(containerId: string): Promise<void> {
    if (!this.#waiting.has(containerId) || this.#looking.has(containerId)) return;
    this.#looking.add(containerId);
    try {
      let facts = await this.#options.engine.inspect(containerId);
      if (facts?.state === "ended" && facts.exitCode === KILLED && !facts.outOfMemory) {
        await this.#options.clock.sleep(OUT_OF_MEMORY_MS, this.#abort.signal);
        facts = { ...((await this.#options.engine.inspect(containerId)) ?? facts) };
        if (this.#outOfMemory.has(containerId)) facts = { ...facts, outOfMemory: true };
      }
      if (facts?.state === "ended" || facts === undefined) this.#tell(containerId, facts);
    } catch (error) {
      // The next event or look tells; a container is never thought dead because the engine does not answer.
      if (this.#abort.signal.aborted) return;
      if (this.#reachable) {
        this.#options.log.warn(
          { reason: messageOf(error) },
          "the Docker Engine does not answer; instances are left alone",
        );
      }
      this.#reachable = false;
    } finally {
      this.#looking.delete(containerId);
    }
  }

  #tell(containerId: string, ending: Ending): void {
    const resolve = this.#waiting.get(containerId);
    this.#waiting.delete(containerId);
    this.#outOfMemory.delete(containerId);
    resolve?.(ending);
  }
}
