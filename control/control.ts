import type { AddressInfo } from "node:net";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { FastifyInstance } from "fastify";
import type { Clock } from "../base/clock.ts";
import { UserError, errnoOf, messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { portHolder } from "../base/port-holder.ts";
import type { Random } from "../base/random.ts";
import type { Settings } from "../base/settings.ts";
import type { Tokens } from "./api/auth.ts";
import type { ApiParts } from "./api/parts.ts";
import { createApi } from "./api/server.ts";
import { Streams } from "./api/stream.ts";
import { AssignmentsHub } from "./assignments.ts";
import { BlobStore } from "./blobs.ts";
import { CatalogKeeper } from "./catalog-keeper.ts";
import { Controller } from "./controller.ts";
import { EventLog } from "./events.ts";
import { Executors } from "./executors.ts";
import { FeedHub } from "./feed-hub.ts";
import { Formations } from "./formations.ts";
import { readGears } from "./gears.ts";
import { HostReports } from "./host-reports.ts";
import { createControlMetrics } from "./metrics.ts";
import type { ConsulCatalog } from "./registry/consul-catalog.ts";
import { filtersOf } from "../model/release.ts";
import type { Registry } from "./registry/registry.ts";
import type { controlSettings } from "./settings.ts";
import { steadyClock } from "./steady-clock.ts";
import { ReservedCounter, Store } from "./store.ts";

export interface ControlOptions {
  readonly settings: Settings<typeof controlSettings>;
  readonly tokens: Tokens;
  readonly registry: Registry;
  /** Where hosts and instances are shown to others; absent: nowhere. */
  readonly catalog?: ConsulCatalog;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly version: string;
  /** Tests only: see ApiLimits and ControllerParts. */
  readonly checkAnswers?: boolean;
  readonly failpoint?: (step: string) => void;
}

export interface Control {
  readonly api: FastifyInstance;
  /** What the routes work with; tests stand in for executors and proxies there. */
  readonly parts: ApiParts;
  /** `http://127.0.0.1:7000`, once `listen` has resolved. */
  readonly url: string;
  /** Starts the loop and answers requests. @throws UserError "port_taken" */
  listen(): Promise<void>;
  /** Ends streams, lets requests in flight finish for a while, stops the loop, closes the registry. */
  close(): Promise<void>;
}

/** How often quiet streams are told that control is alive, and how often unused archives are removed. */
const BEAT_MS = 5_000;
const COLLECT_MS = 3_600_000;
const BLOB_IDLE_MS = 24 * 3_600_000;

/** Puts the parts together over an open registry; nothing runs or listens yet. */
export async function createControl(options: ControlOptions): Promise<Control> {
  const { settings, registry, random, log, tokens, version } = options;
  const clock = steadyClock(options.clock);
  const store = new Store(registry);
  await store.load();
  const events = new EventLog(options.clock);
  await events.load(registry);
  const epochs = new ReservedCounter(registry, "epoch");
  const hub = new FeedHub({ clock, epoch: await epochs.open() });
  for (const { id, value } of await registry.registrations("proxy")) {
    hub.expect({ id, ...(value as { kind: "edge" | "sidecar"; hostId: string }) });
  }
  const reports = new HostReports();
  const assignments = new AssignmentsHub(store);
  const metrics = createControlMetrics();
  const controller = new Controller({
    store,
    hub,
    assignments,
    reports,
    events,
    epochs,
    clock,
    random,
    log,
    settings: {
      drainMsMax: settings.drainMax,
      silentMs: settings.silent,
      replaceMs: settings.replace,
      proxyGoneMs: settings.proxyGone,
      readyMsMax: settings.readyMax,
    },
    onTick: metrics.onTick,
    ...(options.failpoint === undefined ? {} : { failpoint: options.failpoint }),
  });
  const folder = join(settings.state, "control");
  mkdirSync(folder, { recursive: true });
  const blobs = new BlobStore(join(folder, "blobs"), settings.blobMax);
  const formations = new Formations({
    store,
    events,
    blobs,
    gears: readGears(settings.gears),
    clock,
    releasesKeptMax: settings.releasesKept,
    onChange: () => void controller.poke(),
  });
  const executors = new Executors({
    urlOf: (hostId) => store.hosts.get(hostId)?.executorUrl,
    hostToken: tokens.host,
    clock,
    timeoutMs: settings.executorTime,
  });
  const streams = new Streams(settings.streamsMax);
  metrics.watch({
    store,
    world: () => controller.world(),
    epoch: () => hub.epoch,
    streams: () => streams.count,
  });
  let url = "";
  let keeper: CatalogKeeper | undefined;
  const parts: ApiParts = {
    store,
    controller,
    formations,
    hub,
    assignments,
    reports,
    events,
    blobs,
    executors,
    streams,
    metrics: metrics.registry,
    onRequest: metrics.onRequest,
    clock,
    log,
    tokens,
    version,
    ownUrl: () => url,
    catalogTrouble: () => keeper?.trouble,
    limits: {
      bodyBytesMax: settings.bodyMax,
      requestMsMax: settings.requestTime,
      connectionsMax: settings.connectionsMax,
      registrationMs: settings.proxyGone,
      publicPort: settings.publicPort,
      checkAnswers: options.checkAnswers ?? false,
    },
  };
  const api = await createApi(parts);

  const stopping = new AbortController();
  let running: Promise<unknown> = Promise.resolve();
  const timers: Disposable[] = [];
  const collect = () => {
    const sources = store.releases.values.flatMap(({ services }) =>
      Object.values(services).flatMap(({ spec: { image } }) =>
        image.kind === "source" ? [image.source] : [],
      ),
    );
    const filters = store.releases.values.flatMap(filtersOf).map(({ digest }) => digest);
    blobs.collect(new Set([...sources, ...filters]), options.clock.wallMs(), BLOB_IDLE_MS);
  };
  return {
    api,
    parts,
    get url() {
      return url;
    },
    listen: async () => {
      await listenOn(api, settings.host, settings.port);
      const { port } = api.server.address() as AddressInfo;
      url = `http://${settings.host.includes(":") ? `[${settings.host}]` : settings.host}:${port}`;
      collect();
      timers.push(
        clock.every(BEAT_MS, () => {
          hub.beat();
          assignments.beat();
        }),
        clock.every(COLLECT_MS, collect),
      );
      const follow = store
        .follow(() => void controller.poke(), stopping.signal)
        .catch((error: unknown) => {
          if (!stopping.signal.aborted)
            log.error({ error: messageOf(error) }, "following the registry failed");
        });
      const { catalog } = options;
      if (catalog !== undefined) {
        const metricsService = `${settings.consulPrefix}-metrics`;
        const shown = { catalog, store, controller, reports, hub, metricsService, clock, log };
        keeper = new CatalogKeeper({ ...shown, ownUrl: () => url });
        timers.push(keeper);
      }
      running = Promise.all([controller.run(stopping.signal), follow]);
    },
    close: async () => {
      stopping.abort(new Error("control is stopping"));
      for (const timer of timers) timer[Symbol.dispose]();
      streams.closeAll();
      const late = clock.after(settings.shutdown, () => api.server.closeAllConnections());
      await api.close();
      late[Symbol.dispose]();
      await running;
      await registry.close();
    },
  };
}

async function listenOn(api: FastifyInstance, host: string, port: number): Promise<void> {
  try {
    await api.listen({ host, port });
  } catch (error) {
    const code = errnoOf(error);
    if (code === "EADDRINUSE") {
      const holder = portHolder(port);
      throw new UserError(
        `Port ${port} on ${host} is taken${holder === undefined ? "" : ` by ${holder}`}; control cannot listen there`,
        {
          code: "port_taken",
          next: `Stop what holds it (\`ss -ltnp 'sport = :${port}'\` shows it), or set GILLIAM_CONTROL_PORT to another port.`,
          cause: error,
        },
      );
    }
    if (code === "EACCES" || code === "EADDRNOTAVAIL") {
      throw new UserError(`Control cannot listen on ${host}:${port}: ${messageOf(error)}`, {
        code: "cannot_listen",
        next: "Set GILLIAM_CONTROL_HOST to an address of this machine and GILLIAM_CONTROL_PORT above 1023.",
        cause: error,
      });
    }
    throw error;
  }
}
