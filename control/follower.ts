import { deltaBetween } from "../model/mesh-delta.ts";
import type { FeedMessage, MeshConfig, ProxyReport } from "../model/mesh.ts";
import type { ProxyState } from "./world.ts";

export interface FollowerIdentity {
  readonly id: string;
  readonly kind: "edge" | "sidecar";
  readonly hostId: string;
}

type Send = (message: FeedMessage) => void;

/**
 * One proxy as the feed follows it: `acked` is in force there, `sent` is under way, `wanted` is the newest.
 * acked → (wanted differs) → sent → (its report says that epoch) → acked; or refused, and acked stays.
 */
export class Follower {
  identity: FollowerIdentity;
  #lastSeenMs: number;
  #send: Send | undefined;
  #quiet = true;
  #bootId: string | undefined;
  /** The epoch it says is in force, whoever made it. */
  #epoch = 0;
  /** Undefined: what is in force there was not made here, or it has not said. */
  #acked: MeshConfig | undefined;
  #sent: { readonly config: MeshConfig; readonly whole: boolean } | undefined;
  #wanted: MeshConfig | undefined;
  #refused:
    | { readonly config: MeshConfig; readonly whole: boolean; readonly reason: string; readonly atMs: number }
    | undefined;
  #last: Pick<ProxyReport, "busy" | "ejected" | "metricsUrl"> = { busy: {}, ejected: {}, metricsUrl: "" };

  constructor(identity: FollowerIdentity, wallMs: number) {
    this.identity = identity;
    this.#lastSeenMs = wallMs;
  }

  get connected(): boolean {
    return this.#send !== undefined;
  }

  get lastSeenMs(): number {
    return this.#lastSeenMs;
  }

  connect(epoch: number, send: Send, wallMs: number): void {
    this.#send = send;
    this.#lastSeenMs = wallMs;
    // Nothing is under way on a new stream: it either arrived on the old one, as `epoch` says, or never will.
    const sent = this.#sent?.config;
    this.#sent = undefined;
    this.#inForce(epoch, sent);
  }

  /** Only by the stream that is current: a newer one may have taken its place. */
  disconnect(send: Send): void {
    if (this.#send === send) this.#send = undefined;
  }

  report(report: ProxyReport, wallMs: number): void {
    this.#lastSeenMs = Math.max(this.#lastSeenMs, wallMs);
    const restarted = this.#bootId !== undefined && this.#bootId !== report.bootId;
    // Reports may overtake each other; epochs only grow while a proxy runs.
    if (!restarted && report.epoch < this.#epoch) return;
    this.#bootId = report.bootId;
    this.#last = { busy: report.busy, ejected: report.ejected, metricsUrl: report.metricsUrl };
    this.#inForce(report.epoch, this.#sent?.config);
    const { refused } = report;
    if (refused !== undefined && this.#sent?.config.epoch === refused.epoch) {
      this.#refused = { ...this.#sent, reason: refused.reason, atMs: wallMs };
      this.#sent = undefined;
    }
  }

  /** Whether `config` may be sent to it: its epoch must be beyond the one in force, unless it is that very one. */
  accepts(config: MeshConfig): boolean {
    return config === this.#acked || config === this.#sent?.config || config.epoch > this.#epoch;
  }

  /**
   * Whether what it refused is due again, under a new number so that late reports of the refusal are not taken for
   * another: a difference at once, as a whole; a whole when something has changed, and now and then because what it
   * lacked (memory, file descriptors) may be there again.
   */
  get retries(): boolean {
    const refused = this.#refused;
    if (refused === undefined || refused.config !== this.#wanted || this.#sent !== undefined) return false;
    return !refused.whole || this.#lastSeenMs - refused.atMs >= RETRY_MS;
  }

  /** Whether it is to have this content already, be it under a number of its own, and still can. */
  wants({ clusters, edges, routes }: MeshConfig): boolean {
    const wanted = this.#wanted;
    const same = wanted?.clusters === clusters && wanted.edges === edges && wanted.routes === routes;
    return same && this.accepts(wanted);
  }

  want(config: MeshConfig): void {
    this.#wanted = config;
  }

  /** Sends what is due, if anything is and can be. */
  settle(): void {
    const wanted = this.#wanted;
    if (wanted === undefined || this.#send === undefined || this.#sent !== undefined) return;
    if (wanted === this.#acked) return;
    const refused = this.#refused;
    if (refused?.config === wanted) return;
    const base = refused === undefined ? this.#acked : undefined;
    if (base === undefined) {
      this.#transmit({ kind: "config", config: wanted }, wanted, true);
      return;
    }
    const delta = deltaBetween(base, wanted);
    if (delta === undefined) this.#wanted = base;
    else this.#transmit({ kind: "delta", delta }, wanted, false);
  }

  beat(): void {
    if (this.#quiet) this.#send?.({ kind: "alive" });
    this.#quiet = true;
  }

  state(): ProxyState {
    const { id, kind, hostId } = this.identity;
    const refused = this.#refused;
    return {
      id,
      kind,
      hostId,
      lastSeenMs: this.#lastSeenMs,
      connected: this.connected,
      acknowledgedEndpoints: this.#acked === undefined ? undefined : endpointIds(this.#acked),
      wantedEndpoints: this.#wanted === undefined ? NONE : endpointIds(this.#wanted),
      sentEndpoints: this.#sent === undefined ? undefined : endpointIds(this.#sent.config),
      epoch: this.#epoch,
      wantedEpoch: this.#wanted?.epoch ?? this.#epoch,
      refused: refused === undefined ? undefined : { epoch: refused.config.epoch, reason: refused.reason },
      ...this.#last,
    };
  }

  #transmit(message: FeedMessage, config: MeshConfig, whole: boolean): void {
    this.#sent = { config, whole };
    this.#quiet = false;
    this.#send?.(message);
  }

  /** It says that `epoch` is in force: find out which configuration that is. */
  #inForce(epoch: number, sent: MeshConfig | undefined): void {
    this.#epoch = epoch;
    const known = [sent, this.#refused?.config, this.#acked].find((config) => config?.epoch === epoch);
    this.#acked = known;
    if (known !== undefined && known === sent) this.#sent = undefined;
    if (known !== undefined && (known === sent || known === this.#refused?.config)) this.#refused = undefined;
  }
}

const RETRY_MS = 30_000;
const NONE: ReadonlySet<string> = new Set();
const ENDPOINT_IDS = new WeakMap<MeshConfig, ReadonlySet<string>>();

/** Once for each configuration, however many proxies share it. */
function endpointIds(config: MeshConfig): ReadonlySet<string> {
  let ids = ENDPOINT_IDS.get(config);
  if (ids === undefined) {
    ids = new Set(config.clusters.flatMap(({ endpoints }) => endpoints.map((endpoint) => endpoint.id)));
    ENDPOINT_IDS.set(config, ids);
  }
  return ids;
}
