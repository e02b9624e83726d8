import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { catalogOf } from "./catalog.ts";
import type { Controller } from "./controller.ts";
import type { FeedHub } from "./feed-hub.ts";
import type { HostReports } from "./host-reports.ts";
import type { ConsulCatalog } from "./registry/consul-catalog.ts";
import type { Store } from "./store.ts";
import { metricsTargets } from "./views.ts";

export interface CatalogKeeperParts {
  readonly catalog: ConsulCatalog;
  readonly store: Store;
  readonly controller: Controller;
  readonly reports: HostReports;
  readonly hub: FeedHub;
  readonly metricsService: string;
  readonly ownUrl: () => string;
  readonly clock: Clock;
  readonly log: Log;
}

/** How often differences are written, and how often the whole is compared with what Consul really has. */
const SYNC_MS = 2_000;
const COMPARE_EVERY = 15;

/** Shows hosts and instances in Consul's catalog for as long as it is not disposed. */
export class CatalogKeeper {
  readonly #parts: CatalogKeeperParts;
  readonly #timer: Disposable;
  #running = false;
  #rounds = 0;
  #trouble: string | undefined;

  constructor(parts: CatalogKeeperParts) {
    this.#parts = parts;
    this.#timer = parts.clock.every(SYNC_MS, () => void this.sync());
  }

  /** For people, while it cannot be kept. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  async sync(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    const { catalog, store, controller, hub, metricsService, ownUrl, log } = this.#parts;
    try {
      if (this.#rounds++ % COMPARE_EVERY === 0) catalog.forget();
      const wanted = catalogOf({
        world: controller.world(),
        hosts: store.hosts.values,
        metrics: metricsTargets(store, hub.proxies(), ownUrl()),
        metricsService,
      });
      await catalog.sync(wanted, (hostId, id) => this.#mayGo(hostId, id));
      this.#trouble = undefined;
    } catch (error) {
      const text = `Consul's catalog is not up to date: ${messageOf(error)}`;
      if (this.#trouble !== text) log.warn(text);
      this.#trouble = text;
    } finally {
      this.#running = false;
    }
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }

  /**
   * A ghost is what its own host does not run. A host that has not spoken since this control started is given the time
   * after which its instances would be replaced.
   */
  #mayGo(hostId: string, serviceId: string): boolean {
    const { reports, controller } = this.#parts;
    const report = reports.get(hostId);
    if (report !== undefined) {
      return report.instances.every(
        ({ instanceId, phase }) => instanceId !== serviceId || phase === "stopped" || phase === "failed",
      );
    }
    const { nowMs, startedAtMs, settings } = controller.world();
    return nowMs - startedAtMs > settings.replaceMs;
  }
}
