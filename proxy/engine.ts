import type { Clock } from "../base/clock.ts";
import { atOnce, inSlices } from "../base/slices.ts";
import type { Log } from "../base/log.ts";
import type { MetricsRegistry } from "../base/metrics.ts";
import type { Random } from "../base/random.ts";
import type { MeshConfig, Protocol, ProxyReport } from "../model/mesh.ts";
import type { ChainOf } from "./actions/compile.ts";
import type { EngineContext } from "./context.ts";
import { DeadlineWheel } from "./deadlines.ts";
import type { FailureCode } from "./failure.ts";
import type { FilterHost } from "./filters/host.ts";
import { usesIn } from "./filters/uses.ts";
import { type Http2Limits, defaultHttp2Limits } from "./http2/limits.ts";
import { createFlushBatch } from "./http2/output.ts";
import { DEFAULT_LIMITS, type EngineLimits } from "./limits.ts";
import { Listener } from "./listener.ts";
import { Mesh, problemSteps } from "./mesh.ts";
import { registerEngineMetrics } from "./metrics.ts";
import type { Pressure } from "./pressure.ts";
import { EngineStats } from "./stats.ts";
import type { HttpsRedirect } from "./tls/redirect.ts";
import type { TlsTerminator } from "./tls/terminator.ts";

export type { FailureCode } from "./failure.ts";
export type { EngineLimits } from "./limits.ts";

/** The proxy engine: a snapshot goes in, bytes go through, events come out. Nothing here knows control or files. */
export interface EngineOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly limits?: Partial<EngineLimits>;
  readonly http2Limits?: Partial<Http2Limits>;
  /** How hard it is for this process to go on; absent: never. See `agent/pressure-monitor.ts`. */
  readonly pressure?: Pressure;
  /** Called once when a request (or a TCP connection) is over, whatever became of it. Must not throw or block. */
  readonly onAccess?: (event: AccessEvent) => void;
  /** Called after each slice of `applySliced`, with the milliseconds for which nothing else ran. */
  readonly onSlice?: (durationMs: number) => void;
  /** Who speaks, in `via` and in refusals: `edge`, `sidecar`. */
  readonly name: string;
}

export type ListenerSpec =
  /** Public: routes by host and path. */
  | {
      readonly kind: "edge";
      readonly id: string;
      /** With it, connections speak TLS: HTTP/2 or HTTP/1.1, as ALPN says. */
      readonly tls?: TlsTerminator;
      /**
       * Every connection begins with a header of the PROXY protocol, version 1 or 2, and comes from one of these networks
       * (`10.0.0.0/8`); others are closed. The client's address is then the one in the header.
       */
      readonly proxyProtocolFrom?: readonly string[];
      /** Without TLS: sends clients there. */
      readonly redirect?: HttpsRedirect;
    }
  /** One declared dependency of one instance. */
  | {
      readonly kind: "local";
      readonly id: string;
      /** The calling service, like `web.shop`. */
      readonly from: string;
      readonly instanceId: string;
      readonly dependency: string;
      readonly cluster: string;
      readonly protocol: Protocol;
    };

/** Where to listen: an address (port 0 chooses one), or a raw TCP handle that is already bound and listening. */
export type ListenSource =
  | { readonly host: string; readonly port: number }
  | {
      readonly handle: unknown;
      /**
       * Asks for another handle of the same socket, for `EngineListener.resume`; perhaps more than once. With it,
       * accepting pauses when `limits.socketsMax` sockets are open; whoever gives it keeps the socket open meanwhile.
       */
      readonly again?: () => void;
    };

export interface EngineListener {
  readonly address: { readonly host: string; readonly port: number };
  /** Stops accepting; open connections finish what they are doing and are then closed. */
  close(): Promise<void>;
  /** Stops accepting; open connections go on as if nothing had happened. Somebody else listens on the socket. */
  leave(): void;
  /** Too many sockets are open: nothing is accepted, and clients wait in the kernel's queue. */
  readonly paused: boolean;
  /** Accepts again after a pause. `handle` is of the same socket. */
  resume(handle: unknown): Promise<void>;
}

/** One request, or one TCP connection, from its first byte to its end. */
export interface AccessEvent {
  readonly listener: string;
  readonly kind: "http" | "upgrade" | "tcp";
  readonly method: string;
  /** As the client wrote it, query included. */
  readonly path: string;
  readonly host: string;
  /** Calling service, or `edge`. */
  readonly from: string;
  /** The client's address, as a PROXY header says it where one is read. */
  readonly client: string;
  /** Empty when none was found. */
  readonly cluster: string;
  /** Instance id of the last endpoint tried, or empty. */
  readonly endpoint: string;
  readonly release: number;
  /** What the client was told; 499 when it left before. 0 for TCP. */
  readonly status: number;
  readonly durationMs: number;
  /** Body bytes, client to upstream. */
  readonly bytesIn: number;
  /** Body bytes, upstream to client. */
  readonly bytesOut: number;
  readonly retries: number;
  /** Empty when nothing went wrong in the proxy's eyes. */
  readonly reason: FailureCode | "";
  readonly requestId: string;
  /** What filters say about it; undefined when they say nothing. */
  readonly notes?: Readonly<Record<string, string>> | undefined;
}

export type Applied = { ok: true } | { ok: false; reason: string };

export interface Engine {
  /** Epoch of the configuration in force; 0 before the first. */
  readonly epoch: number;
  /** What runs the filters of configurations from now on; without it one that has filters is refused. */
  useFilters(filters: FilterHost): void;
  /**
   * Puts `config` in force, whole or not at all. Listeners and connections are not touched. Its filters have to be
   * loaded before: `FilterHost.prepare`.
   */
  apply(config: MeshConfig): Applied;
  /**
   * The same without a long pause: prepared a slice at a time between requests, put in force in one step. One that
   * was begun later waits for it; one that `apply` puts in force meanwhile takes its place.
   */
  applySliced(config: MeshConfig): Promise<Applied>;
  listen(spec: ListenerSpec, source: ListenSource): Promise<EngineListener>;
  report(): Pick<ProxyReport, "busy" | "ejected" | "traffic">;
  /** Called whenever the last request in flight to endpoints outside the configuration has ended. */
  onBusyEmptied(callback: () => void): void;
  registerMetrics(registry: MetricsRegistry): void;
  /** Stops accepting, finishes what is in flight, cuts the rest; how many were cut. */
  drain(timeoutMs: number): Promise<number>;
  /** Cuts everything now. */
  close(): Promise<void>;
}

export function createEngine(options: EngineOptions): Engine {
  return new ProxyEngine(options);
}

class ProxyEngine implements Engine {
  readonly #context: EngineContext;
  readonly #listeners = new Set<Listener>();
  readonly #onSlice: EngineOptions["onSlice"];
  #draining = false;
  /** The last of those being put in force in slices. */
  #slicing: Promise<unknown> = Promise.resolve();
  /** Counts the others, so that a later one is noticed. */
  #appliedAtOnce = 0;
  #chainOf: ChainOf | undefined;

  constructor({ clock, random, log, limits, http2Limits, pressure, onAccess, onSlice, name }: EngineOptions) {
    const stats = new EngineStats();
    const allLimits = { ...DEFAULT_LIMITS, ...limits };
    const onFault = (error: unknown): void => {
      stats.faults += 1;
      log.error({ err: error }, "a fault of the proxy ended a connection");
    };
    const wheel = new DeadlineWheel(clock, onFault);
    this.#onSlice = onSlice;
    this.#context = {
      name,
      clock,
      random,
      log,
      limits: allLimits,
      http2Limits: { ...defaultHttp2Limits(), ...http2Limits },
      scheduleFlush: createFlushBatch(),
      mesh: new Mesh(log, stats, wheel, allLimits),
      stats,
      wheel,
      pressure: pressure ?? { level: 0 },
      onAccess,
      newRequestId: requestIds(random),
      dateField: dateFields(clock),
      onFault,
    };
  }

  useFilters(filters: FilterHost): void {
    this.#chainOf = (uses) => filters.chain(uses);
  }

  get epoch(): number {
    return this.#context.mesh.epoch;
  }

  apply(config: MeshConfig): Applied {
    const reason = atOnce(problemSteps(config)) ?? this.#unfiltered(config);
    if (reason !== undefined) return { ok: false, reason };
    this.#appliedAtOnce += 1;
    this.#context.mesh.apply(config, this.#chainOf);
    return { ok: true };
  }

  applySliced(config: MeshConfig): Promise<Applied> {
    const count = this.#appliedAtOnce;
    const applied = this.#slicing.then(() => this.#applyNext(config, () => count === this.#appliedAtOnce));
    this.#slicing = applied.catch(() => undefined);
    return applied;
  }

  async #applyNext(config: MeshConfig, wanted: () => boolean): Promise<Applied> {
    const { clock, mesh } = this.#context;
    const reason = (await inSlices(problemSteps(config), clock, this.#onSlice)) ?? this.#unfiltered(config);
    if (reason !== undefined) return { ok: false, reason };
    const applied = await inSlices(mesh.steps(config, wanted, this.#chainOf), clock, this.#onSlice);
    return applied ? { ok: true } : { ok: false, reason: "another configuration was put in force meanwhile" };
  }

  #unfiltered(config: MeshConfig): string | undefined {
    const lacking = this.#chainOf === undefined && usesIn(config).length > 0;
    return lacking ? "it has filters, and this proxy runs none" : undefined;
  }

  async listen(spec: ListenerSpec, source: ListenSource): Promise<EngineListener> {
    if (this.#draining) throw new Error(`Cannot open listener "${spec.id}": the engine is draining`);
    const listener = new Listener(spec, this.#context);
    const opened = await listener.open(source);
    this.#listeners.add(listener);
    return {
      address: opened.address,
      get paused() {
        return opened.paused;
      },
      resume: (handle) => opened.resume(handle),
      close: async () => {
        await opened.close();
        this.#listeners.delete(listener);
      },
      leave: () => {
        opened.leave();
        void listener.emptied().then(() => this.#listeners.delete(listener));
      },
    };
  }

  report(): Pick<ProxyReport, "busy" | "ejected" | "traffic"> {
    const { mesh, stats } = this.#context;
    return {
      busy: mesh.busy(),
      ejected: mesh.ejected(),
      traffic: [...stats.edges.values()].map((edge) => edge.traffic()),
    };
  }

  onBusyEmptied(callback: () => void): void {
    this.#context.mesh.onBusyEmptied(callback);
  }

  registerMetrics(registry: MetricsRegistry): void {
    registerEngineMetrics(registry, this.#context);
  }

  async drain(timeoutMs: number): Promise<number> {
    this.#draining = true;
    const done = Promise.all([...this.#listeners].map((listener) => listener.close())).then((): true => true);
    const finished = timeoutMs > 0 && (await this.#within(timeoutMs, done));
    if (finished) return 0;
    const cut = [...this.#listeners].reduce((sum, listener) => sum + listener.cut(), 0);
    await done;
    return cut;
  }

  /** True when `done` came first. */
  async #within(timeoutMs: number, done: Promise<true>): Promise<boolean> {
    const patience = new AbortController();
    const late = this.#context.clock.sleep(timeoutMs, patience.signal).then(
      () => false,
      () => true,
    );
    const finished = await Promise.race([done, late]);
    patience.abort();
    return finished;
  }

  async close(): Promise<void> {
    await this.drain(0);
    const { mesh, wheel } = this.#context;
    for (const cluster of mesh.clusters.values()) {
      for (const endpoint of cluster.endpoints.values()) endpoint.closeIdle();
    }
    wheel.close();
  }
}

/** Identifiers that are unique without asking for chance each time: a random beginning and a counter. */
function requestIds(random: Random): () => string {
  const part = () =>
    Math.floor(random() * 0x1_0000_0000)
      .toString(16)
      .padStart(8, "0");
  const beginning = `${part()}${part()}-`;
  let count = 0;
  return () => {
    count += 1;
    return beginning + count.toString(36);
  };
}

/** `Date` has seconds, so its text is made once a second (RFC 9110 6.6.1). */
function dateFields(clock: Clock): () => string {
  let madeAtMs = -Infinity;
  let text = "";
  return () => {
    const nowMs = clock.nowMs();
    if (nowMs - madeAtMs >= 1000) {
      const wallMs = clock.wallMs();
      madeAtMs = nowMs - (wallMs % 1000);
      text = `date: ${new Date(wallMs).toUTCString()}\r\n`;
    }
    return text;
  };
}
