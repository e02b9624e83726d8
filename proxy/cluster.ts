import net from "node:net";
import type { Random } from "../base/random.ts";
import type { Cluster, ClusterPolicy, Endpoint, Protocol, ProxyProtocol } from "../model/mesh.ts";
import { type Answer, maintenanceAnswer } from "./actions/answer.ts";
import { Admission } from "./admission.ts";
import { pickLeastRequest, pickRoundRobin } from "./balancer.ts";
import type { Timed } from "./deadlines.ts";
import { PeakEwma, pickLowestLoad } from "./ewma.ts";
import { MaglevTable } from "./maglev.ts";
import {
  type OutlierState,
  ejectableCount,
  ejectionMs,
  freshOutlierState,
  noteFailure,
  noteFailureShare,
  noteSuccess,
  reinstate,
} from "./outlier.ts";
import { QuantileEstimate } from "./quantile.ts";
import { RetryBudget } from "./retry.ts";
import { takesRequest } from "./slow-start.ts";
import { type Share, type SmoothSplit } from "./split.ts";

/** An upstream connection that waits for its next request. */
export interface IdleConnection {
  destroy(): void;
}

/** An upstream connection that carries many requests at once: HTTP/2. */
export interface SharedConnection {
  /** Takes one more request now. */
  readonly hasRoom: boolean;
  /** Takes no more requests; closes when the last is done. */
  retire(): void;
}

/** One instance as this engine sees it. Lives from the configuration that brings it to its last request. */
export class EndpointState {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  readonly release: number;
  readonly cluster: ClusterState;
  /** It expects a PROXY header at the beginning of every connection. */
  readonly proxyProtocol: ProxyProtocol | undefined;
  /** What declared egress needs as Host; empty for instances, which get the client's. */
  readonly hostField: string;
  /** Requests and TCP connections being served: only a lease changes it. */
  inFlight = 0;
  /** Open upstream connections, those being opened included. */
  connections = 0;
  /** The last one given back is taken first, so that spare ones grow old and are closed. */
  readonly idle: IdleConnection[] = [];
  /** Those that carry requests, or may. */
  readonly shared: SharedConnection[] = [];
  /** Requests that one of them may carry at once; learned from the last one opened. */
  streamsPerConnection = 100;
  /** No longer in the configuration: gets nothing new. */
  removed = false;
  readonly outlier: OutlierState = freshOutlierState();
  /** Response times; only kept up where the policy asks for them. */
  readonly ewma = new PeakEwma();
  /** When it joined others that were there already; -Infinity: it was there from the beginning. */
  bornMs = -Infinity;

  constructor(endpoint: Endpoint, cluster: ClusterState) {
    this.id = endpoint.id;
    this.host = endpoint.host;
    this.port = endpoint.port;
    this.release = endpoint.release;
    this.proxyProtocol = endpoint.proxyProtocol;
    this.cluster = cluster;
    const named = net.isIP(endpoint.host) === 0 && endpoint.host !== "localhost";
    this.hostField = !named ? "" : endpoint.port === 80 ? endpoint.host : `${endpoint.host}:${endpoint.port}`;
  }

  closeIdle(): void {
    for (let connection = this.idle.pop(); connection !== undefined; connection = this.idle.pop()) {
      connection.destroy();
    }
    for (const connection of this.shared.slice()) connection.retire(); // Each leaves the list.
  }

  get hasRoom(): boolean {
    const { inFlightPerEndpointMax } = this.cluster.policy;
    if (inFlightPerEndpointMax !== 0 && this.inFlight >= inFlightPerEndpointMax) return false;
    if (this.idle.length > 0) return true;
    if (this.connections < this.cluster.policy.connectionsPerEndpointMax && this.cluster.socketsLeft)
      return true;
    return this.shared.some((connection) => connection.hasRoom);
  }
}

/** Endpoints to choose among: of the whole cluster, or of one release. */
interface Group {
  all: EndpointState[];
  /** Those that are not ejected. */
  usable: EndpointState[];
  cursor: number;
  /** Made when the first request asks for it. */
  maglev: MaglevTable | undefined;
}

/** What a configuration makes of a cluster: ready, not yet in force. */
export interface ClusterChange {
  readonly cluster: Cluster;
  readonly endpoints: Map<string, EndpointState>;
  readonly all: EndpointState[];
  /** No longer in it. */
  readonly removed: readonly EndpointState[];
}

/** What an operator asked for, as long as it lasts. */
export type Pause =
  | { readonly kind: "maintenance"; readonly answer: Answer }
  | { readonly kind: "hold"; readonly untilMs: number };

/** Choices of a consistent hash before any endpoint will do. */
const HASH_ATTEMPTS_MAX = 8;

/** What a cluster tells the engine. */
export interface ClusterEvents {
  onEjected(endpoint: EndpointState): void;
  /** Every endpoint is ejected, so ejections are ignored; or no longer. */
  onPanic(cluster: ClusterState, panicking: boolean): void;
  /** An endpoint outside the configuration has served its last request. */
  onEmptied(endpoint: EndpointState): void;
  /** This process may open another connection. */
  readonly socketsLeft: boolean;
  watch(timed: Timed, dueMs: number): void;
  nowMs(): number;
  /** Those who wait for this cluster may try again. */
  wake(cluster: string): void;
}

/** One service's endpoints, which of them may be used, and the budget for retries. Kept across configurations. */
export class ClusterState implements Timed {
  readonly name: string;
  protocol: Protocol;
  /** Its instances speak HTTP/2 with prior knowledge. */
  speaksHttp2 = false;
  policy: ClusterPolicy;
  sticky: Cluster["sticky"];
  endpoints: ReadonlyMap<string, EndpointState> = new Map();
  /** What it was made of: the same object again changes nothing. */
  madeOf: Cluster | undefined;
  /** Empty when there is no split. Replaced whole on change. */
  shares: readonly Share[] = [];
  readonly budget: RetryBudget;
  /** Bounds the requests at once; undefined when nothing does. */
  admission: Admission | undefined;
  /** How long answers take, for hedging; learns only where that is on. */
  readonly latency = new QuantileEstimate(0.95, 1_000);
  panicking = false;
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  readonly #events: ClusterEvents;
  /** The last hold that was begun. */
  #holdId = "";
  /** While an operator wants nobody to be asked. */
  pause: Pause | undefined;
  #whole: Group = { all: [], usable: [], cursor: 0, maglev: undefined };
  /** Until then some endpoint is new; 0 when none is. */
  #coldUntilMs = 0;
  #byRelease = new Map<number, Group>();

  constructor(cluster: Cluster, events: ClusterEvents) {
    this.name = cluster.name;
    this.policy = cluster.policy;
    this.protocol = cluster.protocol;
    this.budget = new RetryBudget(cluster.policy.retry);
    this.#events = events;
    this.change(cluster);
  }

  /** Takes over what the configuration says now. Returns the endpoints that are no longer in it. */
  change(cluster: Cluster): readonly EndpointState[] {
    return this.take(this.prepare(cluster));
  }

  /** What `cluster` will make of this one. Changes nothing yet. */
  prepare(cluster: Cluster): ClusterChange {
    const before = this.endpoints;
    const endpoints = new Map<string, EndpointState>();
    for (const endpoint of cluster.endpoints) {
      const old = before.get(endpoint.id);
      const same =
        old !== undefined &&
        old.host === endpoint.host &&
        old.port === endpoint.port &&
        old.release === endpoint.release &&
        old.proxyProtocol === endpoint.proxyProtocol;
      endpoints.set(endpoint.id, same ? old : new EndpointState(endpoint, this));
    }
    const removed = Array.from(before.values()).filter((old) => endpoints.get(old.id) !== old);
    return { cluster, endpoints, all: Array.from(endpoints.values()), removed };
  }

  /** Puts in force what was prepared since the last time. Returns the endpoints that are no longer there. */
  take({ cluster, endpoints, all, removed }: ClusterChange): readonly EndpointState[] {
    this.madeOf = cluster;
    this.policy = cluster.policy;
    this.protocol = cluster.protocol;
    this.speaksHttp2 = cluster.protocol === "http2" || cluster.protocol === "grpc";
    this.sticky = cluster.sticky;
    this.budget.change(cluster.policy.retry);
    this.admission = Admission.of(cluster.policy, this.admission);
    const before = this.endpoints;
    this.endpoints = endpoints;
    this.#noteBirths(before);
    this.#changePause(cluster.pause);
    for (const endpoint of removed) endpoint.removed = true;
    const sameShares =
      cluster.split.length === this.shares.length &&
      cluster.split.every(
        ({ release, weight }, index) =>
          this.shares[index]?.release === release && this.shares[index].weight === weight,
      );
    if (!sameShares) this.shares = cluster.split.map((split) => ({ ...split, usable: false }));
    this.#regroup(all);
    return removed;
  }

  /** The configuration no longer has this cluster. */
  removeAll(): EndpointState[] {
    const removed = [...this.endpoints.values()];
    for (const endpoint of removed) endpoint.removed = true;
    this.endpoints = new Map();
    this.#regroup([]);
    return removed;
  }

  /**
   * The endpoint for the next request: of `release` when that is said (sticky), else of the release whose turn it is,
   * else of all. `avoid` is where the last attempt failed. Undefined when there is none, or none with room for
   * another connection. Ejected ones are used only when no other is left.
   */
  choose(
    split: SmoothSplit,
    release: number | undefined,
    avoid: EndpointState | undefined,
    random: Random,
    hashKey?: string,
  ): EndpointState | undefined {
    let group = this.#whole;
    if (this.shares.length > 0) {
      const turn = release ?? split.next(this.shares);
      group = (turn === undefined ? undefined : this.#byRelease.get(turn)) ?? this.#whole;
    }
    const candidates = this.#candidates(group, avoid);
    let picked = this.#pick(group, candidates, avoid, random, hashKey);
    if (this.#coldUntilMs !== 0 && picked !== undefined)
      picked = this.#warmer(picked, candidates, avoid, random);
    if (picked === undefined || picked.hasRoom) return picked;
    return candidates.find((endpoint) => endpoint.hasRoom);
  }

  #pick(
    group: Group,
    candidates: EndpointState[],
    avoid: EndpointState | undefined,
    random: Random,
    hashKey: string | undefined,
  ): EndpointState | undefined {
    switch (this.policy.balancing) {
      case "round-robin":
        return pickRoundRobin(candidates, group.cursor++, avoid);
      case "ewma":
        return pickLowestLoad(candidates, random, this.#events.nowMs(), avoid);
      case "maglev":
        return (
          (hashKey === undefined ? undefined : this.#pickByHash(group, hashKey, avoid)) ??
          pickLeastRequest(candidates, random, avoid)
        );
      case "least-request":
        return pickLeastRequest(candidates, random, avoid);
    }
  }

  /** The endpoint that a key belongs to; while that one is out or was just tried, always the same other one. */
  #pickByHash(group: Group, key: string, avoid: EndpointState | undefined): EndpointState | undefined {
    group.maglev ??= new MaglevTable(group.all.map(({ id }) => id));
    for (let attempt = 0; attempt < HASH_ATTEMPTS_MAX; attempt += 1) {
      const endpoint = group.all[group.maglev.lookup(key, attempt)];
      const fit = endpoint !== avoid && endpoint?.outlier.ejectedUntilMs === 0 && endpoint.hasRoom;
      if (fit) return endpoint;
    }
    return undefined;
  }

  /** A new endpoint leaves a part of its requests to those that have been there longer. */
  #warmer(
    picked: EndpointState,
    candidates: readonly EndpointState[],
    avoid: EndpointState | undefined,
    random: Random,
  ): EndpointState {
    const nowMs = this.#events.nowMs();
    const windowMs = this.policy.slowStartMs;
    if (nowMs >= this.#coldUntilMs) this.#coldUntilMs = 0;
    if (this.policy.balancing === "maglev" || takesRequest(nowMs - picked.bornMs, windowMs, random))
      return picked;
    const warm = candidates.filter((other) => other !== avoid && nowMs - other.bornMs >= windowMs);
    return pickLeastRequest(warm, random, avoid) ?? picked;
  }

  #noteBirths(before: ReadonlyMap<string, EndpointState>): void {
    const windowMs = this.policy.slowStartMs;
    if (windowMs === 0 || before.size === 0) {
      this.#coldUntilMs = 0;
      return;
    }
    const nowMs = this.#events.nowMs();
    for (const endpoint of this.endpoints.values()) {
      if (before.get(endpoint.id) === endpoint) continue;
      endpoint.bornMs = nowMs;
      this.#coldUntilMs = nowMs + windowMs;
    }
  }

  #changePause(pause: Cluster["pause"]): void {
    const before = this.pause;
    if (pause === undefined) this.pause = undefined;
    else if (pause.kind === "maintenance") {
      this.pause = { kind: "maintenance", answer: maintenanceAnswer(this.name, pause.retryAfterSeconds) };
    } else if (pause.id !== this.#holdId) {
      this.#holdId = pause.id;
      const untilMs = this.#events.nowMs() + pause.forMs;
      this.pause = { kind: "hold", untilMs };
      this.#events.watch(this, untilMs);
    } else if (before?.kind !== "hold") this.pause = undefined; // Its time was over already.
  }

  /** The narrowest circle that holds somebody else than `avoid`: an ejected endpoint may answer, one just tried did not. */
  #candidates(group: Group, avoid: EndpointState | undefined): EndpointState[] {
    if (holdsOther(group.usable, avoid)) return group.usable;
    if (holdsOther(this.#whole.usable, avoid)) return this.#whole.usable;
    return holdsOther(group.all, avoid) ? group.all : this.#whole.all;
  }

  hasOther(than: EndpointState): boolean {
    return holdsOther(this.#whole.usable, than);
  }

  noteSuccess(endpoint: EndpointState, nowMs: number): void {
    const { outlier } = endpoint;
    outlier.requests += 1;
    if (outlier.failuresInRow !== 0 || outlier.ejections !== 0)
      noteSuccess(outlier, this.policy.outlier, nowMs);
  }

  /**
   * Counts a failure; ejects the endpoint when that is due and allowed. `unreachable`: nothing could be connected to;
   * when no more may be ejected it takes the place of one that did answer, if only with errors.
   */
  noteFailure(endpoint: EndpointState, reason: string, nowMs: number, unreachable = false): void {
    const policy = this.policy.outlier;
    const { outlier } = endpoint;
    const inRow = noteFailure(outlier, policy);
    const often = noteFailureShare(outlier, policy, nowMs);
    if ((!inRow && !often) || endpoint.removed) return;
    const ejected = this.#whole.all.filter((other) => other.outlier.ejectedUntilMs !== 0);
    if (ejected.length >= ejectableCount(this.#whole.all.length, policy)) {
      const answering = unreachable ? ejected.find((other) => !other.outlier.unreachable) : undefined;
      if (answering === undefined) return;
      reinstate(answering.outlier, nowMs);
    }
    outlier.unreachable = unreachable;
    const durationMs = ejectionMs(outlier.ejections, policy);
    outlier.ejections += 1;
    outlier.ejectedUntilMs = nowMs + durationMs;
    outlier.reason =
      (inRow
        ? `${outlier.failuresInRow} failures in a row`
        : `${outlier.failures} of ${outlier.requests} requests failed`) +
      `, the last: ${reason}; ` +
      `ejected for ${durationMs} ms (time ${outlier.ejections})`;
    this.#regroup(this.#whole.all);
    this.#events.watch(this, outlier.ejectedUntilMs);
    this.#events.onEjected(endpoint);
  }

  get socketsLeft(): boolean {
    return this.#events.socketsLeft;
  }

  onEmptied(endpoint: EndpointState): void {
    this.#events.onEmptied(endpoint);
  }

  /** Lets endpoints back in whose ejection is over. */
  onTick(nowMs: number): number {
    let nextMs = this.#endHold(nowMs);
    let changed = false;
    for (const { outlier } of this.endpoints.values()) {
      if (outlier.ejectedUntilMs === 0) continue;
      if (outlier.ejectedUntilMs > nowMs) {
        nextMs = Math.min(nextMs, outlier.ejectedUntilMs);
        continue;
      }
      reinstate(outlier, nowMs);
      changed = true;
    }
    if (changed) this.#regroup(this.#whole.all);
    return nextMs;
  }

  /** When to look again; Infinity when nothing is held. */
  #endHold(nowMs: number): number {
    if (this.pause?.kind !== "hold") return Infinity;
    if (nowMs < this.pause.untilMs) return this.pause.untilMs;
    this.pause = undefined;
    this.#events.wake(this.name);
    return Infinity;
  }

  #regroup(all: EndpointState[]): void {
    this.#whole = groupOf(all, this.#whole);
    const byRelease = new Map<number, Group>();
    for (const share of this.shares) {
      const members = this.#whole.all.filter(({ release }) => release === share.release);
      const group = groupOf(members, this.#byRelease.get(share.release));
      byRelease.set(share.release, group);
      share.usable = group.usable.length > 0;
    }
    this.#byRelease = byRelease;
    const panicking = this.#whole.all.length > 0 && this.#whole.usable.length === 0;
    if (panicking !== this.panicking) {
      this.panicking = panicking;
      this.#events.onPanic(this, panicking);
    }
  }
}

function holdsOther(members: readonly EndpointState[], avoid: EndpointState | undefined): boolean {
  return members.length > 1 || (members.length === 1 && members[0] !== avoid);
}

/** `before` is what it was: its place in turn stays, and its table while the members do. */
function groupOf(all: EndpointState[], before: Group | undefined): Group {
  const whole = all.every(({ outlier }) => outlier.ejectedUntilMs === 0);
  return {
    all,
    usable: whole ? all : all.filter(({ outlier }) => outlier.ejectedUntilMs === 0),
    cursor: before?.cursor ?? 0,
    maglev: before?.maglev !== undefined && sameMembers(before.all, all) ? before.maglev : undefined,
  };
}

function sameMembers(a: readonly EndpointState[], b: readonly EndpointState[]): boolean {
  return a === b || (a.length === b.length && a.every((member, index) => b[index] === member));
}
