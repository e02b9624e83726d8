import type { EdgeTraffic, MeshConfig, Protocol } from "../../model/mesh.ts";
import type { MetricCounts } from "./merge-metrics.ts";

/**
 * What keeper and worker say to each other over Node's IPC channel. Both are one program of one version, so
 * nothing is validated here; what comes from outside is validated by the worker before it becomes a message.
 */

/** A listening socket the keeper owns and what a worker shall do with connections to it. */
export type ListenerPlan =
  /** `secure`: over TLS. */
  | { readonly kind: "edge"; readonly id: string; readonly secure?: true }
  | { readonly kind: "admin"; readonly id: string }
  /** The sidecar's local-ports API on its Unix socket. */
  | { readonly kind: "api"; readonly id: string }
  | LocalPlan;

/** One declared dependency of one instance. */
export interface LocalPlan {
  readonly kind: "local";
  readonly id: string;
  readonly instanceId: string;
  /** The calling service's address, like `web.shop`. */
  readonly from: string;
  readonly dependency: string;
  /** Where to send while the feed has not told an edge for this dependency. */
  readonly cluster: string;
  readonly protocol: Protocol;
}

export interface SocketAddress {
  readonly host: string;
  readonly port: number;
}

/** What the keeper knows about itself; it travels with every ping so that the worker can show it. */
export interface KeeperFacts {
  readonly pid: number;
  readonly rssBytes: number;
  /** Workers that died and were replaced since the keeper started. */
  readonly deaths: number;
  /** Workers replaced because they stopped answering. */
  readonly hangs: number;
  /** Replacements somebody asked for. */
  readonly hotRestarts: number;
}

/** What a worker does when its keeper is gone. */
export interface OrphanPolicy {
  /** Where the next keeper looks for it. */
  readonly folder: string;
  /** How long it serves on, in milliseconds; then it drains. */
  readonly waitMs: number;
  readonly drainMs: number;
}

/** Which of a listener's sockets: several share a port, each with a queue of its own (SO_REUSEPORT). */
export interface SocketName {
  readonly id: string;
  readonly socket: number;
}

export type ToWorker =
  | {
      readonly kind: "start";
      readonly settings: unknown;
      readonly orphan: OrphanPolicy;
    }
  /** How many handles follow; "serving" is due when each was tried. */
  | { readonly kind: "sockets"; readonly count: number }
  /** Carries a raw handle. */
  | { readonly kind: "listen"; readonly plan: ListenerPlan; readonly socket: number }
  | { readonly kind: "unlisten"; readonly id: string }
  /** Stop accepting on a socket that was lent; its connections go on. */
  | ({ readonly kind: "leave" } & SocketName)
  /** From now on this worker follows the feed and reports. */
  | { readonly kind: "lead" }
  | { readonly kind: "drain"; readonly timeoutMs: number; readonly successor: boolean }
  | { readonly kind: "ping"; readonly number: number; readonly keeper: KeeperFacts }
  /** Another worker's state, for the leader's report. */
  | { readonly kind: "sibling"; readonly pid: number; readonly state: SiblingState }
  /** It ended; `gone` is what all that ended have counted. */
  | { readonly kind: "sibling-gone"; readonly pid: number; readonly gone: readonly EdgeTraffic[] }
  /** The leader has saved a newer epoch: apply it from disk. */
  | { readonly kind: "reload" }
  /** The leader cannot save: apply this. */
  | { readonly kind: "config"; readonly config: MeshConfig }
  /** Every other worker of which the leader has heard before this message was told of `epoch`. */
  | { readonly kind: "settled"; readonly epoch: number }
  /** Say what you have counted. */
  | { readonly kind: "count"; readonly number: number }
  | { readonly kind: "answer"; readonly request: number; readonly result: Result };

export type FromWorker =
  | { readonly kind: "hello" }
  | { readonly kind: "listening"; readonly id: string; readonly address: SocketAddress }
  | { readonly kind: "listen-failed"; readonly id: string; readonly reason: string; readonly code: string }
  | { readonly kind: "unlistened"; readonly id: string }
  /** Asks for the handles of a listener once more, to listen on them with changed particulars. */
  | { readonly kind: "again"; readonly id: string }
  /** Every socket that was announced has been tried. */
  | { readonly kind: "serving" }
  | { readonly kind: "pong"; readonly number: number }
  | { readonly kind: "handed-over" }
  /** What is in force here and in flight; once before the first socket, then regularly and after each epoch. */
  | { readonly kind: "state"; readonly state: SiblingState }
  | { readonly kind: "drained"; readonly cut: number }
  /** Leader: `epoch` is on disk; or it cannot be saved, then `config` comes along. "settled" follows. */
  | { readonly kind: "saved"; readonly epoch: number; readonly config?: MeshConfig }
  | { readonly kind: "counted"; readonly number: number; readonly metrics: readonly MetricCounts[] }
  /** Somebody scrapes: `own` is what this worker has counted; what the others have is the answer. */
  | { readonly kind: "gather"; readonly request: number; readonly own: readonly MetricCounts[] }
  | { readonly kind: "request"; readonly request: number; readonly body: unknown };

export interface SiblingState {
  /** The epoch in force in that worker. */
  readonly epoch: number;
  /** In flight to endpoints that are no longer in the configuration, by endpoint id. */
  readonly busy: Readonly<Record<string, number>>;
  readonly ejected: Readonly<Record<string, string>>;
  readonly traffic: readonly EdgeTraffic[];
}

/** Answer to "gather": the workers that live, and what those that ended had counted. */
export interface Gathered {
  readonly live: readonly (readonly MetricCounts[])[];
  readonly gone: readonly MetricCounts[];
}

/** The outcome of a worker's request to its keeper; errors keep what a UserError says. */
export type Result =
  | { readonly ok: true; readonly value: unknown }
  | {
      readonly ok: false;
      readonly message: string;
      readonly code: string;
      readonly status: number;
      readonly next?: string | undefined;
    };
