import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { type MetricsRegistry, createMetrics, metricsText } from "../../base/metrics.ts";
import type { Random } from "../../base/random.ts";
import type { EdgeTraffic, MeshConfig, ProxyReport } from "../../model/mesh.ts";
import type { Engine, EngineListener } from "../engine.ts";
import { AccessLog } from "./access-log.ts";
import type { AgentFilters } from "./agent-filters.ts";
import { type AdminPages, AdminServer } from "./admin.ts";
import { configView } from "./config-view.ts";
import { FeedClient, type Put } from "./feed-client.ts";
import { createControlClient } from "./feed-http.ts";
import { type MetricCounts, mergeMetrics } from "./merge-metrics.ts";
import type { KeeperFacts, ListenerPlan, SiblingState, SocketAddress, SocketName } from "./messages.ts";
import { registerAgentMetrics } from "./agent-metrics.ts";
import { Reporter } from "./reporter.ts";
import { EpochSaver, loadSavedEpoch } from "./saved-epoch.ts";
import type { EdgeTls } from "./edge-tls.ts";
import { mergeSiblings, sumTraffic, trafficSince } from "./siblings.ts";
import type { KeeperLink, WorkerProgram } from "./worker.ts";
import type { WorkerSettings } from "./worker-settings.ts";

export interface ProxyProgramOptions {
  readonly settings: WorkerSettings;
  readonly link: KeeperLink;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** New at every start. */
  readonly bootId: string;
  readonly createEngine: (onAccess: AccessLog["record"]) => Engine;
  /** Of an edge that terminates TLS. */
  readonly tls?: EdgeTls;
  /** Runs the filters of configurations. */
  readonly filters: AgentFilters;
  /** The saved epoch, with its filters loaded. */
  readonly saved: MeshConfig | undefined;
  /** Admin pages besides the common ones. */
  readonly pages?: AdminPages;
  /** Called with each configuration that is in force. */
  readonly onConfig?: (config: MeshConfig) => void;
}

/**
 * What the workers of edge and sidecar have in common: an engine that is kept at control's latest epoch, or at
 * the last one saved, and that can be looked at.
 */
export class ProxyProgram implements WorkerProgram {
  readonly engine: Engine;
  readonly metrics: MetricsRegistry;
  readonly #options: ProxyProgramOptions;
  readonly #accessLog: AccessLog;
  readonly #admin: AdminServer;
  readonly #saver: EpochSaver;
  readonly #feed: FeedClient;
  readonly #reporter: Reporter;
  readonly #siblings = new Map<number, SiblingState>();
  /** By listener, then by socket. */
  readonly #listeners = new Map<string, Map<number, EngineListener>>();
  /** What workers that ended have counted. */
  #gone: readonly EdgeTraffic[] = [];
  /** What others had counted when this worker began to lead: an earlier leader has reported it, under its own name. */
  #reportedBefore: readonly EdgeTraffic[] = [];
  #config: MeshConfig | undefined;
  /** The newest epoch that is in force and on disk, and known to the other workers: the one control is told. */
  #settledEpoch: number;
  #keeper: KeeperFacts | undefined;
  #reloading: Promise<void> | undefined;

  constructor(options: ProxyProgramOptions) {
    const { clock, createEngine, link, log, random, settings } = options;
    this.#options = options;
    this.#accessLog = new AccessLog({ ...settings.accessLog, clock, log });
    this.engine = createEngine(this.#accessLog.record);
    this.metrics = createMetrics(settings.kind);
    this.engine.registerMetrics(this.metrics);
    options.tls?.registerMetrics(this.metrics);
    options.filters.attach(this.engine, this.metrics);
    this.#config = this.#applySaved(options.saved);
    this.#settledEpoch = this.engine.epoch;
    this.#saver = new EpochSaver({
      path: settings.epochFile,
      log,
      onSettled: (config, saved) => {
        if (saved) link.saved(config.epoch);
        else link.saved(config.epoch, config);
      },
    });
    const control = createControlClient({
      url: settings.controlUrl,
      token: settings.hostToken,
      proxyId: settings.proxyId,
      kind: settings.kind,
      hostId: settings.hostId,
      lineBytesMax: settings.feedLineBytesMax,
    });
    this.#reporter = new Reporter({
      send: (report, signal) => control.report(report, signal),
      make: () => this.#report(),
      clock,
      log,
      everyMs: settings.reportEveryMs,
    });
    this.#feed = new FeedClient(
      {
        transport: control,
        apply: (config) => this.#put(config),
        onEpoch: () => this.#reporter.now(),
        clock,
        random,
        log,
        silentMs: settings.feedSilentMs,
      },
      this.#config,
    );
    this.engine.onBusyEmptied(() => {
      link.tell();
      this.#reporter.now();
    });
    this.#admin = new AdminServer({ metrics: () => this.#scrape(), pages: this.#pages(), clock, log });
    registerAgentMetrics(this.metrics, {
      epoch: () => this.engine.epoch,
      settledEpoch: () => this.#settledEpoch,
      feed: () => this.#feed.state,
      nowMs: () => clock.nowMs(),
      accessDropped: () => this.#accessLog.dropped,
      saveFailed: () => this.#saver.failed,
      keeper: () => this.#keeper,
    });
  }

  /** The configuration in force; undefined before the first. */
  get config(): MeshConfig | undefined {
    return this.#config;
  }

  async listen(plan: ListenerPlan, socket: number, handle: unknown): Promise<SocketAddress> {
    switch (plan.kind) {
      case "admin":
        return this.#admin.listen(handle);
      case "edge": {
        const { tls, link } = this.#options;
        const before = this.#listeners.get(plan.id)?.get(socket);
        if (before?.paused === true) {
          await before.resume(handle);
          return before.address;
        }
        const { proxyProtocolFrom } = this.#options.settings;
        const spec = {
          kind: "edge",
          id: plan.id,
          ...tls?.listenerOptions(plan.secure === true),
          ...(proxyProtocolFrom === undefined ? {} : { proxyProtocolFrom }),
        } as const;
        const listener = await this.engine.listen(spec, { handle, again: () => link.again(plan.id) });
        before?.leave();
        const sockets = this.#listeners.get(plan.id) ?? new Map<number, EngineListener>();
        this.#listeners.set(plan.id, sockets.set(socket, listener));
        return listener.address;
      }
      case "local":
      case "api":
        throw new Error(`the ${this.#options.settings.kind} has no ${plan.kind} listeners`);
    }
  }

  unlisten(id: string): Promise<void> {
    for (const listener of this.#listeners.get(id)?.values() ?? []) void listener.close();
    this.#listeners.delete(id);
    return Promise.resolve();
  }

  leave({ id, socket }: SocketName): void {
    const sockets = this.#listeners.get(id);
    sockets?.get(socket)?.leave();
    sockets?.delete(socket);
  }

  lead(): void {
    const siblings = [...this.#siblings.values()].map(({ traffic }) => traffic);
    this.#reportedBefore = sumTraffic([this.#gone, ...siblings]);
    this.#feed.start();
    this.#reporter.start();
  }

  orphaned(): void {
    this.#options.log.warn({}, "the keeper is gone; serving on until the next one is there");
    void this.#admin.close();
  }

  handOver(): void {
    void this.#feed.stop();
    void this.#reporter.stop();
  }

  /** In turn: loading the filters of one may take longer than those of the wanted. */
  reload(config?: MeshConfig): void {
    const { filters, log, settings } = this.#options;
    const wanted = config ?? loadSavedEpoch(settings.epochFile, log);
    const put = () => this.#reload(wanted, config === undefined);
    if (this.#reloading === undefined && (wanted === undefined || filters.needsNothing(wanted))) return put();
    const before = this.#reloading ?? Promise.resolve();
    const reloading = before.then(async () => {
      if (wanted !== undefined) await filters.prepare(wanted);
      put();
      if (this.#reloading === reloading) this.#reloading = undefined;
    });
    this.#reloading = reloading;
  }

  #reload(config: MeshConfig | undefined, saved: boolean): void {
    if (saved) this.#config = this.#applySaved(config) ?? this.#config;
    else if (config !== undefined && this.engine.apply(config).ok) {
      this.#config = config;
      this.#options.onConfig?.(config);
    }
    if (this.#config !== undefined) this.#options.filters.retain(this.#config);
    this.#settledEpoch = this.engine.epoch;
  }

  sibling(pid: number, state: SiblingState): void {
    const before = this.#siblings.get(pid);
    this.#siblings.set(pid, state);
    // It started with what is on disk, and what is in force could not be written there.
    if (state.epoch < this.engine.epoch && this.#saver.failed && this.#config !== undefined) {
      this.#options.link.saved(this.#config.epoch, this.#config);
    }
    const matters = before?.epoch !== state.epoch || !isDeepStrictEqual(before.busy, state.busy);
    if (matters) this.#reporter.now();
  }

  siblingGone(pid: number, gone: readonly EdgeTraffic[]): void {
    this.#siblings.delete(pid);
    this.#gone = gone;
    this.#reporter.now();
  }

  settled(epoch: number): void {
    this.#settledEpoch = epoch;
    this.#reporter.now();
  }

  state(): SiblingState {
    return { epoch: this.engine.epoch, ...this.engine.report() };
  }

  async counts(): Promise<readonly MetricCounts[]> {
    return (await this.metrics.getMetricsAsJSON()) as unknown as MetricCounts[];
  }

  keeper(facts: KeeperFacts): void {
    this.#keeper = facts;
  }

  /** Requests in flight may still need the newest epoch told, so feed and reports go last. */
  async drain(timeoutMs: number): Promise<number> {
    this.#options.log.info({ timeoutMs }, "draining");
    const admin = this.#admin.close();
    const cut = await this.engine.drain(timeoutMs);
    await Promise.all([admin, this.#feed.stop(), this.#reporter.stop()]);
    await Promise.all([this.#saver.idle(), this.#options.filters.close()]);
    this.#options.log.info({ cut }, "drained");
    await this.#accessLog.close();
    return cut;
  }

  /** Healthy: it can do its work, having a configuration, or control at hand to say that there is none. */
  health(): { status: number; body: object } {
    const { connected, refused } = this.#feed.state;
    const healthy = this.#config !== undefined || connected;
    const body = {
      status: healthy ? "ok" : "waiting for the first configuration: control cannot be reached",
      epoch: this.engine.epoch,
      savedEpoch: this.#settledEpoch,
      control: connected ? "connected" : "away",
      refused: refused ?? null,
    };
    return { status: healthy ? 200 : 503, body };
  }

  #pages(): AdminPages {
    return {
      "/healthz": () => this.health(),
      "/config": () => ({
        status: 200,
        body: {
          ...configView(this.#config, this.engine.report()),
          filters: this.#options.filters.view(),
          keeper: this.#keeper ?? null,
        },
      }),
      ...this.#options.pages,
    };
  }

  /** One scrape shows the sum of all workers, those that ended included. */
  async #scrape(): Promise<string> {
    const own = await this.counts();
    const { live, gone } = await this.#options.link.gather(own);
    return metricsText(mergeMetrics([own, ...live, gone]));
  }

  async #put(config: MeshConfig): Promise<Put> {
    const { filters } = this.#options;
    const problems = filters.needsNothing(config) ? [] : await filters.prepare(config);
    if (problems.length > 0) return { ok: false, reason: problems.join("; "), again: true };
    const outcome = await this.engine.applySliced(config);
    if (!outcome.ok) return outcome;
    this.#config = config;
    this.#saver.save(config);
    this.#options.filters.retain(config);
    this.#options.filters.clear(config);
    this.#options.onConfig?.(config);
    return outcome;
  }

  /** Puts the epoch on disk in force. Undefined when there is none, or none that applies. */
  #applySaved(saved: MeshConfig | undefined): MeshConfig | undefined {
    const { log, onConfig } = this.#options;
    if (saved === undefined) return undefined;
    const outcome = this.engine.apply(saved);
    if (!outcome.ok) {
      log.error({ epoch: saved.epoch, reason: outcome.reason }, "the saved epoch does not apply");
      return undefined;
    }
    log.info({ epoch: saved.epoch, clusters: saved.clusters.length }, "serving the saved epoch");
    onConfig?.(saved);
    return saved;
  }

  #report(): ProxyReport {
    const { bootId, settings } = this.#options;
    const { refused } = this.#feed.state;
    const own = { epoch: this.#settledEpoch, ...this.engine.report() };
    const { traffic, ...merged } = mergeSiblings(own, [...this.#siblings.values()]);
    return {
      kind: settings.kind,
      hostId: settings.hostId,
      bootId,
      ...merged,
      ...(refused === undefined ? {} : { refused }),
      traffic: [...trafficSince(sumTraffic([traffic, this.#gone]), this.#reportedBefore)],
      metricsUrl: settings.metricsUrl,
    };
  }
}
