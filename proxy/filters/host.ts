import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Log } from "../../base/log.ts";
import type { MetricsRegistry } from "../../base/metrics.ts";
import type { Random } from "../../base/random.ts";
import type { FilterUse } from "../../model/filter.ts";
import { FilterChain, type ChainLink } from "./chain.ts";
import type { FilterRequest, FilterResponse, HeadFilter } from "./filter.ts";
import type { FilterContext } from "./filter.ts";
import { Lane } from "./lane.ts";
import { type FilterShape, evaluateFilter } from "./module.ts";
import { FilterStats, registerFilterMetrics } from "./stats.ts";
import { TurnQueue } from "./turn-queue.ts";
import { Watchdog } from "./watchdog.ts";

export interface FilterHostOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The bundle with this digest, checked; rejects when it cannot be had. */
  readonly load: (digest: string) => Promise<string>;
  /** No filter runs inside the proxy, whatever it says of itself. @default false */
  readonly isolateAll?: boolean;
}

type Hook<Head> = (head: Head, context: FilterContext) => unknown;

/** Functions that run inside the proxy. */
export interface InlineHooks {
  readonly onRequest: Hook<FilterRequest> | undefined;
  readonly onResponse: Hook<FilterResponse> | undefined;
}

/** One version of a filter's module, ready to run. */
export interface LoadedFilter {
  readonly digest: string;
  readonly shape: FilterShape;
  readonly lane: Lane;
  /** Undefined: only in its own process. Goes when it was cut off once. */
  inline: InlineHooks | undefined;
  /** Requests that it will still see. */
  inUse: number;
  /** No configuration has it any more. */
  leaving: boolean;
}

/**
 * Every filter of one proxy. Modules are loaded before a configuration that uses them is put in force, and let go when
 * none does and the last request that began with them is over.
 */
export class FilterHost {
  readonly clock: Clock;
  readonly log: Log;
  readonly turns: TurnQueue;
  readonly watchdog: Watchdog;
  readonly #options: FilterHostOptions;
  readonly #loaded = new Map<string, LoadedFilter>();
  /** Digests that could not be loaded, and why. */
  readonly #broken = new Map<string, string>();
  readonly #stats = new Map<string, FilterStats>();
  readonly #chains = new Map<string, FilterChain>();

  constructor(options: FilterHostOptions) {
    this.#options = options;
    this.clock = options.clock;
    this.log = options.log;
    const onFault = (error: unknown) => options.log.error({ err: error }, "a fault around a filter");
    this.turns = new TurnQueue(onFault);
    this.watchdog = new Watchdog(this.turns.run, onFault);
  }

  /**
   * Loads what is not loaded yet. Returns a line for each filter that cannot be had now; rejects never. A filter whose
   * module is wrong is no such problem: its routes answer by policy, and everything else goes on.
   */
  async prepare(uses: readonly FilterUse[]): Promise<string[]> {
    await this.watchdog.ready;
    const wanted = new Map(uses.map((use) => [use.digest, use]));
    for (const digest of this.#broken.keys()) if (!wanted.has(digest)) this.#broken.delete(digest);
    const problems = await Promise.all(
      [...wanted.values()]
        .filter(({ digest }) => !this.#loaded.has(digest) && !this.#broken.has(digest))
        .map((use) => this.#load(use)),
    );
    return problems.filter((problem) => problem !== undefined);
  }

  /** Lets go of every filter that is not among `uses`. */
  retain(uses: readonly FilterUse[]): void {
    const wanted = new Set(uses.map(({ digest }) => digest));
    this.#chains.clear();
    for (const filter of this.#loaded.values()) {
      filter.leaving = !wanted.has(filter.digest);
      this.release(filter, 0);
    }
  }

  /** The chain for a route's or an edge's filters. */
  chain(uses: readonly FilterUse[]): FilterChain {
    const key = JSON.stringify(uses);
    let chain = this.#chains.get(key);
    if (chain === undefined) {
      chain = new FilterChain(
        uses.map((use) => this.#link(use)),
        this,
      );
      this.#chains.set(key, chain);
    }
    return chain;
  }

  release(filter: LoadedFilter, requests: number): void {
    filter.inUse -= requests;
    if (!filter.leaving || filter.inUse > 0) return;
    this.#loaded.delete(filter.digest);
    filter.lane.close();
  }

  /** It was cut off inside the proxy: from now on it runs in its own process. */
  demote(filter: LoadedFilter, why: string): void {
    if (filter.inline === undefined) return;
    filter.inline = undefined;
    this.log.error({ filter: filter.shape.name, reason: why }, "this filter no longer runs inside the proxy");
  }

  registerMetrics(registry: MetricsRegistry): void {
    registerFilterMetrics(
      registry,
      () => [...this.#stats.values()],
      () =>
        [...this.#loaded.values()].map(({ shape, digest, lane }) => ({
          labels: { filter: shape.name, digest: digest.slice(0, 19) },
          value: lane.restarts,
        })),
    );
  }

  /** For `/config`: what is loaded, how it runs, and what cannot be loaded. */
  view() {
    return {
      loaded: [...this.#loaded.values()].map(({ digest, shape, inline, lane, inUse }) => ({
        digest,
        name: shape.name,
        runs: inline === undefined ? "in a process of its own" : "inside the proxy",
        restarts: lane.restarts,
        /** Requests that it will still see. */
        inUse,
      })),
      broken: Object.fromEntries(this.#broken),
    };
  }

  async close(): Promise<void> {
    for (const { lane } of this.#loaded.values()) lane.close();
    this.#loaded.clear();
    this.turns.close();
    await this.watchdog.close();
  }

  async #load({ digest, file, owner }: FilterUse): Promise<string | undefined> {
    const { clock, load, log, random } = this.#options;
    let source: string;
    try {
      source = await load(digest);
    } catch (error) {
      return `filter ${file} of ${owner} (${digest.slice(0, 19)}…) cannot be had: ${messageOf(error)}`;
    }
    const lane = new Lane({ source, file, clock, random, log });
    try {
      const shape = await lane.load();
      const inline = shape.inline ? this.#inlineOf(source, file) : undefined;
      if (inline !== undefined) lane.sleep();
      this.#loaded.set(digest, { digest, shape, lane, inline, inUse: 0, leaving: false });
    } catch (error) {
      this.#broken.set(digest, messageOf(error));
      log.error({ filter: file, service: owner, digest, reason: messageOf(error) }, "a filter does not load");
    }
    return undefined;
  }

  /** Its top level has run in a process of its own already, and returned. */
  #inlineOf(source: string, file: string): InlineHooks | undefined {
    if (this.#options.isolateAll === true) return undefined;
    try {
      const filter = evaluateFilter(source, file, false) as HeadFilter<unknown>;
      return {
        onRequest: filter.onRequest?.bind(filter) as InlineHooks["onRequest"],
        onResponse: filter.onResponse?.bind(filter) as InlineHooks["onResponse"],
      };
    } catch (error) {
      this.log.info({ filter: file, reason: messageOf(error) }, "this filter runs in a process of its own");
      return undefined;
    }
  }

  #link(use: FilterUse): ChainLink {
    const key = `${use.owner} ${use.file}`;
    let stats = this.#stats.get(key);
    if (stats === undefined) {
      stats = new FilterStats(use.owner, use.file);
      this.#stats.set(key, stats);
    }
    const filter = this.#loaded.get(use.digest);
    const problem = this.#broken.get(use.digest) ?? "it is not loaded";
    return {
      use,
      stats,
      filter,
      problem,
      open: (use.onFailure ?? filter?.shape.onError ?? "closed") === "open",
      timeoutMs: use.timeoutMs ?? filter?.shape.timeoutMs,
    };
  }
}
