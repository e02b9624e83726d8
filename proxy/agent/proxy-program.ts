import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { type MetricsRegistry, createMetrics } from "../../base/metrics.ts";
import type { Random } from "../../base/random.ts";
import type { MeshConfig, ProxyReport } from "../../model/mesh.ts";
import type { Engine, EngineListener } from "../engine.ts";
import { AccessLog } from "./access-log.ts";
import { type AdminPages, AdminServer } from "./admin.ts";
import { configView } from "./config-view.ts";
import { FeedClient } from "./feed-client.ts";
import { createControlClient } from "./feed-http.ts";
import type { KeeperFacts, ListenerPlan, SiblingState, SocketAddress } from "./messages.ts";
import { registerAgentMetrics } from "./agent-metrics.ts";
import { Reporter } from "./reporter.ts";
import { EpochSaver, loadSavedEpoch } from "./saved-epoch.ts";
import { mergeSiblings } from "./siblings.ts";
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
  readonly #listeners = new Map<string, EngineListener>();
  #config: MeshConfig | undefined;
  /** The newest epoch that is in force and on disk: the one control is told. */
  #settledEpoch: number;
  #keeper: KeeperFacts | undefined;

  constructor(options: ProxyProgramOptions) {
    const { clock, createEngine, link, log, random, settings } = options;
    this.#options = options;
    this.#accessLog = new AccessLog({ ...settings.accessLog, clock, log });
    this.engine = createEngine(this.#accessLog.record);
    this.metrics = createMetrics(settings.kind);
    this.engine.registerMetrics(this.metrics);
    this.#config = this.#applySaved();
    this.#settledEpoch = this.engine.epoch;
    this.#saver = new EpochSaver({
      path: settings.epochFile,
      log,
      onSettled: (epoch, saved) => {
        this.#settledEpoch = epoch;
        if (saved) link.saved(epoch);
        this.#reporter.now();
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
    this.engine.onBusyEmptied(() => this.#reporter.now());
    this.#admin = new AdminServer({ metrics: this.metrics, pages: this.#pages(), clock, log });
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

  async listen(plan: ListenerPlan, handle: unknown): Promise<SocketAddress> {
    switch (plan.kind) {
      case "admin":
        return this.#admin.listen(handle);
      case "edge": {
        const listener = await this.engine.listen({ kind: "edge", id: plan.id }, { handle });
        this.#listeners.set(plan.id, listener);
        return listener.address;
      }
      case "local":
      case "api":
        throw new Error(`the ${this.#options.settings.kind} has no ${plan.kind} listeners`);
    }
  }

  unlisten(id: string): Promise<void> {
    const listener = this.#listeners.get(id);
    this.#listeners.delete(id);
    void listener?.close();
    return Promise.resolve();
  }

  lead(): void {
    this.#feed.start();
    this.#reporter.start();
  }

  handOver(): void {
    void this.#feed.stop();
    void this.#reporter.stop();
  }

  reload(): void {
    this.#config = this.#applySaved() ?? this.#config;
  }

  sibling(pid: number, state: SiblingState | undefined): void {
    if (state === undefined) this.#siblings.delete(pid);
    else this.#siblings.set(pid, state);
    this.#reporter.now();
  }

  state(): SiblingState {
    return { epoch: this.engine.epoch, busy: this.engine.report().busy };
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
    await this.#saver.idle();
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
        body: { ...configView(this.#config, this.engine.report()), keeper: this.#keeper ?? null },
      }),
      ...this.#options.pages,
    };
  }

  #put(config: MeshConfig): { ok: true } | { ok: false; reason: string } {
    const outcome = this.engine.apply(config);
    if (!outcome.ok) return outcome;
    this.#config = config;
    this.#saver.save(config);
    this.#options.onConfig?.(config);
    return outcome;
  }

  /** Puts the epoch on disk in force. Undefined when there is none, or none that applies. */
  #applySaved(): MeshConfig | undefined {
    const { log, onConfig, settings } = this.#options;
    const saved = loadSavedEpoch(settings.epochFile, log);
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
    const own = { epoch: this.#settledEpoch, busy: this.engine.report().busy };
    const { ejected, traffic } = this.engine.report();
    return {
      kind: settings.kind,
      hostId: settings.hostId,
      bootId,
      ...mergeSiblings(own, [...this.#siblings.values()]),
      ...(refused === undefined ? {} : { refused }),
      ejected,
      traffic,
      metricsUrl: settings.metricsUrl,
    };
  }
}
