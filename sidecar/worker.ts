import { randomUUID } from "node:crypto";
import { systemClock } from "../base/clock.ts";
import { createLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import type { ListenerPlan, SocketAddress } from "../proxy/agent/messages.ts";
import { ProxyProgram, type ProxyProgramOptions } from "../proxy/agent/proxy-program.ts";
import { AgentFilters } from "../proxy/agent/agent-filters.ts";
import { writeCompileCacheSoon } from "../proxy/agent/compile-cache.ts";
import { engineSurroundings } from "../proxy/agent/engine-surroundings.ts";
import { parentChannel, runWorker } from "../proxy/agent/worker.ts";
import type { WorkerSettings } from "../proxy/agent/worker-settings.ts";
import { createEngine } from "../proxy/engine.ts";
import { LocalPortsApi } from "./api.ts";
import { LocalListeners } from "./local-listeners.ts";

/** The sidecar's worker: the proxy with local listeners, and the local-ports API. main.ts is its keeper. */
class SidecarProgram extends ProxyProgram {
  readonly #local: LocalListeners;
  readonly #api: LocalPortsApi;

  constructor(options: Omit<ProxyProgramOptions, "onConfig" | "pages">) {
    // The first configuration is applied while `super` runs, before there are listeners it could concern.
    let local: LocalListeners | undefined;
    super({
      ...options,
      onConfig: (config) => local?.follow(config),
      pages: { "/instances": () => ({ status: 200, body: { listeners: local?.view() ?? [] } }) },
    });
    local = new LocalListeners(this.engine, (id) => options.link.again(id));
    if (this.config !== undefined) local.follow(this.config);
    this.#local = local;
    const { clock, link, log } = options;
    this.#api = new LocalPortsApi({ ask: (request) => link.request(request), clock, log });
  }

  override async listen(plan: ListenerPlan, socket: number, handle: unknown): Promise<SocketAddress> {
    if (plan.kind === "local") return this.#local.listen(plan, handle);
    if (plan.kind !== "api") return super.listen(plan, socket, handle);
    this.#api.listen(handle);
    return { host: "unix", port: 0 };
  }

  override async unlisten(id: string): Promise<void> {
    if (!this.#local.unlisten(id)) await super.unlisten(id);
  }

  override orphaned(): void {
    super.orphaned();
    void this.#api.close();
  }

  override async drain(timeoutMs: number): Promise<number> {
    const [cut] = await Promise.all([super.drain(timeoutMs), this.#api.close()]);
    return cut;
  }
}

runWorker({
  channel: parentChannel(),
  clock: systemClock,
  start: async (given, link) => {
    const settings = given as WorkerSettings;
    const log = createLog({ part: "sidecar", level: settings.logLevel });
    const filters = new AgentFilters({ settings, clock: systemClock, random: systemRandom, log });
    const saved = await filters.prepareSaved();
    const program = new SidecarProgram({
      filters,
      saved,
      settings,
      link,
      clock: systemClock,
      random: systemRandom,
      log,
      bootId: randomUUID(),
      createEngine: (onAccess) =>
        createEngine({
          name: "sidecar",
          clock: systemClock,
          random: systemRandom,
          log,
          onAccess,
          ...engineSurroundings(settings, systemClock, log),
        }),
    });
    writeCompileCacheSoon(systemClock, () => log.info("compile cache written"));
    return program;
  },
});
