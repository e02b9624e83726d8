import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { MetricsRegistry } from "../base/metrics.ts";
import type { Random } from "../base/random.ts";
import type { MeshConfig, Protocol, ProxyReport } from "../model/mesh.ts";
import type { FailureCode } from "./failure.ts";
import type { EngineLimits } from "./limits.ts";

export type { FailureCode } from "./failure.ts";
export type { EngineLimits } from "./limits.ts";

/** The proxy engine: a snapshot goes in, bytes go through, events come out. Nothing here knows control or files. */
export interface EngineOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly limits?: Partial<EngineLimits>;
  /** Called once when a request (or a TCP connection) is over, whatever became of it. Must not throw or block. */
  readonly onAccess?: (event: AccessEvent) => void;
  /** Who speaks, in `via` and in refusals: `edge`, `sidecar`. */
  readonly name: string;
}

export type ListenerSpec =
  /** Public: routes by host and path. */
  | { readonly kind: "edge"; readonly id: string }
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
export type ListenSource = { readonly host: string; readonly port: number } | { readonly handle: unknown };

export interface EngineListener {
  readonly address: { readonly host: string; readonly port: number };
  /** Stops accepting; open connections finish what they are doing and are then closed. */
  close(): Promise<void>;
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
}

export interface Engine {
  /** Epoch of the configuration in force; 0 before the first. */
  readonly epoch: number;
  /** Puts `config` in force, whole or not at all. Listeners and connections are not touched. */
  apply(config: MeshConfig): { ok: true } | { ok: false; reason: string };
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
