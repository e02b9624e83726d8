import type { BuildStatus, Capacity } from "../model/host.ts";
import type { InstanceStatus } from "../model/instance.ts";
import type { ProxyReport } from "../model/mesh.ts";
import type { FormationRecord, Release } from "../model/release.ts";
import type { RunSpec } from "../model/run-spec.ts";

/**
 * Everything a decision may look at, as plain values. Decisions are pure functions of this:
 * `reconcile(world, random) → Action[]` (reconcile.ts), `placeInstance` (scheduler.ts), `buildMesh(world)` (mesh.ts).
 * The loop in controller.ts reads the registry and the reports into a World, decides, and carries the actions out.
 */
export interface World {
  /** Wall clock, milliseconds since 1970. */
  readonly nowMs: number;
  /**
   * When this control process started, same clock. What was heard before is hearsay: limits that end in a stop
   * count from here at the earliest, and proxies and hosts get their time to come back.
   */
  readonly startedAtMs: number;
  readonly formations: readonly FormationRecord[];
  /** By `formation/number`. */
  readonly releases: ReadonlyMap<string, Release>;
  readonly instances: readonly InstanceRecord[];
  readonly hosts: readonly HostState[];
  /** By image digest, then by host id. */
  readonly builds: ReadonlyMap<string, ReadonlyMap<string, BuildStatus>>;
  /** Take it from the feed hub after `hub.update(world)`, so that it knows of every endpoint of this world. */
  readonly proxies: readonly ProxyState[];
  /** Host of each named volume, as written when an instance with it was first placed (registry `volumes/{name}`). */
  readonly volumes: ReadonlyMap<string, string>;
  readonly settings: DecisionSettings;
}

export interface DecisionSettings {
  /** How long requests in flight may keep a draining instance; then it is stopped all the same. @default 30_000 */
  readonly drainMsMax: number;
  /** A host or proxy not heard of for this long is silent. @default 5_000 */
  readonly silentMs: number;
  /** A silent host's instances are replaced after this long. @default 30_000 */
  readonly replaceMs: number;
  /** A proxy not heard of for this long is gone and no longer waited for. @default 15_000 */
  readonly proxyGoneMs: number;
  /** A new instance not ready after this long counts as failing (its release does not proceed). @default 120_000 */
  readonly readyMsMax: number;
}

/** Registry key `instances/{id}`: what control decided about one instance. Status comes from reports, not from here. */
export interface InstanceRecord {
  readonly id: string;
  readonly formation: string;
  readonly service: string;
  readonly release: number;
  readonly hostId: string;
  readonly spec: RunSpec;
  /** run → drain (leave every proxy) → stop (signal, grace, kill) → the record is deleted. */
  readonly want: "run" | "drain" | "stop";
  readonly createdAtMs: number;
  /** When `want` became drain. */
  readonly drainSinceMs?: number;
  /** Why it drains, in plain words. */
  readonly drainReason?: string;
  /** Runs from the executor's boot manifest. */
  readonly boot: boolean;
  /** Where it was reached when it was last ready; bridges a restart of control until its host reports. */
  readonly address?: { readonly host: string; readonly port: number };
  /** The executor's last word; absent until it has spoken. */
  readonly status?: InstanceStatus;
}

export interface HostState {
  readonly id: string;
  readonly lastSeenMs: number;
  readonly draining: boolean;
  readonly driver: "process" | "docker";
  readonly network: "namespace" | "shared";
  readonly capacity: Capacity;
  readonly labels: Readonly<Record<string, string>>;
}

/** A proxy as the feed knows it. */
export interface ProxyState {
  readonly id: string;
  readonly kind: "edge" | "sidecar";
  readonly hostId: string;
  readonly lastSeenMs: number;
  readonly connected: boolean;
  /** Ids of the endpoints in the configuration it last acknowledged; undefined: it has not reported since control started. */
  readonly acknowledgedEndpoints: ReadonlySet<string> | undefined;
  /** Endpoint ids in the newest configuration made for it, acknowledged or not. */
  readonly wantedEndpoints: ReadonlySet<string>;
  /** Endpoint ids in a configuration that was sent and not answered yet: it may be in force at any moment. */
  readonly sentEndpoints: ReadonlySet<string> | undefined;
  /** The epoch it says is in force; 0 before its first word. */
  readonly epoch: number;
  /** The epoch of the newest configuration made for it. */
  readonly wantedEpoch: number;
  /** The last epoch it could not apply, until it applies a later one. */
  readonly refused: { readonly epoch: number; readonly reason: string } | undefined;
  /** Empty before its first report. */
  readonly metricsUrl: string;
  readonly ejected: ProxyReport["ejected"];
  readonly busy: ProxyReport["busy"];
}

export type Action =
  /** Write the record; with a `spec.volume` also `volumes/{name}`, in the same write. */
  | { readonly kind: "place"; readonly record: InstanceRecord }
  /** Write `address` into the record: the instance is ready there. */
  | {
      readonly kind: "remember";
      readonly instanceId: string;
      readonly address: { readonly host: string; readonly port: number };
    }
  | { readonly kind: "drain"; readonly instanceId: string; readonly reason: string }
  /** Every proxy let go (`receipt` says who and when), or the drain timeout passed. */
  | { readonly kind: "stop"; readonly instanceId: string; readonly receipt: string }
  | { readonly kind: "forget"; readonly instanceId: string };
