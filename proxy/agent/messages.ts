import type { Protocol } from "../../model/mesh.ts";

/**
 * What keeper and worker say to each other over Node's IPC channel. Both are one program of one version, so
 * nothing is validated here; what comes from outside is validated by the worker before it becomes a message.
 */

/** A listening socket the keeper owns and what a worker shall do with connections to it. */
export type ListenerPlan =
  | { readonly kind: "edge"; readonly id: string }
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

export type ToWorker =
  | {
      readonly kind: "start";
      readonly settings: unknown;
      /** How many handles follow. */
      readonly listeners: number;
      /** How long to drain should the keeper die, in milliseconds. */
      readonly orphanDrainMs: number;
    }
  /** Carries a raw handle. */
  | { readonly kind: "listen"; readonly plan: ListenerPlan }
  | { readonly kind: "unlisten"; readonly id: string }
  /** From now on this worker follows the feed and reports. */
  | { readonly kind: "lead" }
  | { readonly kind: "drain"; readonly timeoutMs: number; readonly successor: boolean }
  | { readonly kind: "ping"; readonly number: number; readonly keeper: KeeperFacts }
  /** A draining worker's state, for the leader's report. */
  | ({ readonly kind: "sibling"; readonly pid: number } & SiblingState)
  | { readonly kind: "sibling-gone"; readonly pid: number }
  /** The leader has saved a newer epoch: a draining worker applies it from disk. */
  | { readonly kind: "reload" }
  | { readonly kind: "answer"; readonly request: number; readonly result: Result };

export type FromWorker =
  | { readonly kind: "hello" }
  | { readonly kind: "listening"; readonly id: string; readonly address: SocketAddress }
  | { readonly kind: "listen-failed"; readonly id: string; readonly reason: string; readonly code: string }
  | { readonly kind: "unlistened"; readonly id: string }
  /** Asks for a handle once more, to listen on it with changed particulars. */
  | { readonly kind: "again"; readonly id: string }
  /** Every listener named in `start` has been tried. */
  | { readonly kind: "serving" }
  | { readonly kind: "pong"; readonly number: number }
  | { readonly kind: "handed-over" }
  | ({ readonly kind: "draining" } & SiblingState)
  | { readonly kind: "drained"; readonly cut: number }
  | { readonly kind: "saved"; readonly epoch: number }
  | { readonly kind: "request"; readonly request: number; readonly body: unknown };

export interface SiblingState {
  /** The epoch in force in that worker. */
  readonly epoch: number;
  /** In flight to endpoints that are no longer in the configuration, by endpoint id. */
  readonly busy: Readonly<Record<string, number>>;
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
