import { dirname, join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { MetricsRegistry } from "../../base/metrics.ts";
import type { Random } from "../../base/random.ts";
import type { MeshConfig } from "../../model/mesh.ts";
import type { Engine } from "../engine.ts";
import type { FilterHost } from "../filters/host.ts";
import { usesIn } from "../filters/uses.ts";
import { createControlClient } from "./feed-http.ts";
import { FilterStore } from "./filter-store.ts";
import { loadSavedEpoch } from "./saved-epoch.ts";
import type { WorkerSettings } from "./worker-settings.ts";

export interface AgentFiltersOptions {
  readonly settings: WorkerSettings;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/**
 * The filters of a proxy's worker: has them at hand before a configuration that uses them is put in force. What runs
 * them is loaded with the first configuration that has any: a proxy without filters pays neither time nor memory.
 */
export class AgentFilters {
  readonly #options: AgentFiltersOptions;
  readonly #store: FilterStore;
  #host: FilterHost | undefined;
  #engine: Engine | undefined;
  #metrics: MetricsRegistry | undefined;

  constructor(options: AgentFiltersOptions) {
    const { log, settings } = options;
    this.#options = options;
    const control = createControlClient({
      url: settings.controlUrl,
      token: settings.hostToken,
      proxyId: settings.proxyId,
      kind: settings.kind,
      hostId: settings.hostId,
      lineBytesMax: settings.feedLineBytesMax,
    });
    this.#store = new FilterStore({
      folder: join(dirname(settings.epochFile), "filters"),
      fetch: (digest) => control.blob(digest),
      log,
    });
  }

  /** The saved epoch, with what it needs loaded. What cannot be had is answered by its policy; the rest is served. */
  async prepareSaved(): Promise<MeshConfig | undefined> {
    const { log, settings } = this.#options;
    const saved = loadSavedEpoch(settings.epochFile, log);
    if (saved === undefined) return undefined;
    for (const problem of await this.prepare(saved)) log.error(problem);
    return saved;
  }

  /** To be called once, before a configuration is applied. */
  attach(engine: Engine, metrics: MetricsRegistry): void {
    this.#engine = engine;
    this.#metrics = metrics;
    this.#join();
  }

  /** True when there is nothing to prepare for this configuration. */
  needsNothing(config: MeshConfig): boolean {
    return this.#host === undefined && usesIn(config).length === 0;
  }

  /** Loads what the configuration needs; returns a line for each filter that cannot be had. */
  async prepare(config: MeshConfig): Promise<string[]> {
    const uses = usesIn(config);
    if (uses.length === 0) return [];
    if (this.#host === undefined) {
      const { clock, log, random } = this.#options;
      const { FilterHost } = await import("../filters/host.ts");
      this.#host ??= new FilterHost({ clock, random, log, load: (digest) => this.#store.load(digest) });
      this.#join();
    }
    return this.#host.prepare(uses);
  }

  /** The configuration is in force: filters that it does not use may go. */
  retain(config: MeshConfig): void {
    this.#host?.retain(usesIn(config));
  }

  /** Clears away bundles that neither this configuration nor the one before uses; for the worker that leads. */
  clear(config: MeshConfig): void {
    if (this.#host !== undefined) this.#store.keep(new Set(usesIn(config).map(({ digest }) => digest)));
  }

  view(): unknown {
    return this.#host?.view() ?? null;
  }

  async close(): Promise<void> {
    await this.#host?.close();
  }

  #join(): void {
    if (this.#host === undefined || this.#engine === undefined) return;
    this.#engine.useFilters(this.#host);
    if (this.#metrics !== undefined) this.#host.registerMetrics(this.#metrics);
  }
}
