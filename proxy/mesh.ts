import type { Log } from "../base/log.ts";
import { type Steps, atOnce } from "../base/slices.ts";
import type { Cluster, MeshConfig, ProxyReport, PublicRoute } from "../model/mesh.ts";
import { routeKey, sameRequests } from "../model/route.ts";
import { type ChainOf, type CompiledActions, compileActions } from "./actions/compile.ts";
import { problemOfActions } from "./actions/problems.ts";
import { ActionStates } from "./actions/states.ts";
import type { Binding } from "./binding.ts";
import { type ClusterChange, ClusterState, type ClusterEvents, type EndpointState } from "./cluster.ts";
import type { DeadlineWheel, Timed } from "./deadlines.ts";
import type { EngineLimits } from "./limits.ts";
import { type RouteTable, buildRoutes, routeSteps } from "./routing.ts";
import type { EngineStats } from "./stats.ts";

/** A request that waits for its cluster, for an endpoint or for a free connection. */
export interface Waiter {
  /** Something changed: try again. Returns false when it has to go on waiting. */
  retryNow(): boolean;
}

/** Clusters without a problem of their own. A delta leaves most objects as they were: they need no second look. */
const sound = new WeakSet<Cluster>();
/** Routes without one, and what two routes for the same requests would have in common. */
const keys = new WeakMap<PublicRoute, string>();

/** Why a configuration cannot be put in force; undefined when it can. Shapes were checked by its schema. */
export function* problemSteps(config: MeshConfig): Steps<string | undefined> {
  const clusters = new Set<string>();
  for (const cluster of config.clusters) {
    if (clusters.has(cluster.name)) return `cluster "${cluster.name}" is there twice`;
    clusters.add(cluster.name);
    if (sound.has(cluster)) continue;
    const ids = new Set(cluster.endpoints.map(({ id }) => id));
    if (ids.size !== cluster.endpoints.length) return `cluster "${cluster.name}" has an endpoint id twice`;
    const told = cluster.endpoints.some(({ proxyProtocol }) => proxyProtocol !== undefined);
    if (told && (cluster.protocol === "http2" || cluster.protocol === "grpc"))
      return `cluster "${cluster.name}" speaks ${cluster.protocol}, whose connections are shared by many clients: no PROXY header can name one`;
    const releases = new Set(cluster.split.map(({ release }) => release));
    if (releases.size !== cluster.split.length)
      return `the split of cluster "${cluster.name}" names a release twice`;
    sound.add(cluster);
    yield;
  }
  const routes = new Map<string, PublicRoute[]>();
  for (const route of config.routes) {
    const { id, host, path, cluster } = route;
    if (!clusters.has(cluster)) return `route "${id}" leads to cluster "${cluster}", which is not there`;
    const problem = keys.has(route) ? undefined : problemOfRoute(route);
    if (problem !== undefined) return `route "${id}"${problem}`;
    const key = keys.get(route) ?? routeKey(route);
    keys.set(route, key);
    const rivals = routes.get(key);
    if (rivals === undefined) routes.set(key, [route]);
    else {
      if (rivals.some((other) => sameRequests(other, route)))
        return `two routes serve ${host}${path}, the second is "${id}"`;
      rivals.push(route);
    }
    yield;
  }
  for (const { id, cluster, actions } of config.edges) {
    if (!clusters.has(cluster)) return `edge "${id}" leads to cluster "${cluster}", which is not there`;
    const problem = actions && problemOfActions(actions);
    if (problem !== undefined) return `edge "${id}": ${problem}`;
  }
  return undefined;
}

/** What follows `route "id"` in words. */
function problemOfRoute({ host, actions }: PublicRoute): string | undefined {
  if (!/^(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$|^\[[0-9a-f:.]+\]$/.test(host)) {
    return ` has the host "${host}"; allowed are lower-case names, *.name and addresses`;
  }
  const problem = actions && problemOfActions(actions);
  return problem === undefined ? undefined : `: ${problem}`;
}

/** A configuration beside the one in force, made of it and not yet touching it. */
interface Prepared {
  readonly epoch: number;
  readonly clusters: ReadonlyMap<string, ClusterState>;
  readonly changes: readonly (readonly [ClusterState, ClusterChange])[];
  readonly gone: readonly ClusterState[];
  readonly routes: RouteTable;
  readonly edgeActions: ReadonlyMap<string, CompiledActions>;
  readonly states: ActionStates;
}

/** The configuration in force and what lives on across configurations: endpoints with work, ejections, who waits. */
export class Mesh implements ClusterEvents {
  epoch = 0;
  clusters: ReadonlyMap<string, ClusterState> = new Map();
  routes: RouteTable;
  /** By the id of a declared edge; the few that have any. */
  #edgeActions: ReadonlyMap<string, CompiledActions> = new Map();
  #actionStates: ActionStates;
  readonly #log: Log;
  readonly #stats: EngineStats;
  readonly #wheel: DeadlineWheel;
  /** Out of the configuration, still serving. */
  readonly #leaving = new Set<EndpointState>();
  readonly #busyEmptied: (() => void)[] = [];
  readonly #waiting = new Map<string, Waiter[]>();

  readonly #socketsMax: number;

  constructor(log: Log, stats: EngineStats, wheel: DeadlineWheel, limits: EngineLimits) {
    this.#socketsMax = limits.socketsMax;
    this.#actionStates = new ActionStates(limits.rateLimitKeysMax);
    this.routes = buildRoutes([], this.#actionStates);
    this.#log = log;
    this.#stats = stats;
    this.#wheel = wheel;
  }

  /** Swaps the configuration; it was found to have no problem. No connection is touched but idle ones to who left. */
  apply(config: MeshConfig, chainOf?: ChainOf): void {
    atOnce(this.steps(config, () => true, chainOf));
  }

  /**
   * The same in steps, the swap itself being one. False when it is not `wanted` any more by then, which it must not be
   * once another configuration was put in force.
   */
  *steps(config: MeshConfig, wanted: () => boolean, chainOf?: ChainOf): Steps<boolean> {
    const prepared = yield* this.#prepare(config, chainOf);
    if (!wanted()) return false;
    const removed = this.#swap(prepared);
    yield;
    for (const endpoint of removed) {
      endpoint.closeIdle();
      yield;
    }
    return true;
  }

  *#prepare(config: MeshConfig, chainOf?: ChainOf): Steps<Prepared> {
    const before = this.clusters;
    const states = this.#actionStates.next();
    const clusters = new Map<string, ClusterState>();
    const changes: [ClusterState, ClusterChange][] = [];
    for (const cluster of config.clusters) {
      const known = before.get(cluster.name);
      if (known !== undefined && known.madeOf !== cluster) changes.push([known, known.prepare(cluster)]);
      clusters.set(cluster.name, known ?? new ClusterState(cluster, this));
      yield;
    }
    const gone = Array.from(before.values()).filter(({ name }) => !clusters.has(name));
    yield;
    const routes = yield* routeSteps(config.routes, states, chainOf);
    const edgeActions = new Map<string, CompiledActions>();
    for (const { id, actions } of config.edges) {
      if (actions !== undefined) {
        edgeActions.set(id, compileActions(actions, id, states, "prefix", "/", chainOf));
      }
      yield;
    }
    return { epoch: config.epoch, clusters, changes, gone, routes, edgeActions, states };
  }

  /** Returns the endpoints that are no longer there. */
  #swap({ epoch, clusters, changes, gone, routes, edgeActions, states }: Prepared): EndpointState[] {
    const removed: EndpointState[] = [];
    for (const [state, change] of changes) for (const endpoint of state.take(change)) removed.push(endpoint);
    for (const state of gone) for (const endpoint of state.removeAll()) removed.push(endpoint);
    this.epoch = epoch;
    this.clusters = clusters;
    this.routes = routes;
    this.#edgeActions = edgeActions;
    this.#actionStates = states;
    states.settle();
    for (const endpoint of removed) if (endpoint.inFlight > 0) this.#leaving.add(endpoint);
    this.wakeAll();
    return removed;
  }

  /** What happens to the requests of a declared edge on their way. */
  actionsOf(binding: Binding): CompiledActions | undefined {
    return this.#edgeActions.size === 0 ? undefined : this.#edgeActions.get(binding.edgeId);
  }

  busy(): ProxyReport["busy"] {
    const busy: Record<string, number> = {};
    for (const { id, inFlight, cluster } of this.#leaving) {
      const back = this.clusters.get(cluster.name)?.endpoints.has(id) ?? false;
      if (!back && inFlight > 0) busy[id] = (busy[id] ?? 0) + inFlight;
    }
    return busy;
  }

  ejected(): ProxyReport["ejected"] {
    const ejected: Record<string, string> = {};
    for (const cluster of this.clusters.values()) {
      for (const { id, outlier } of cluster.endpoints.values()) {
        if (outlier.ejectedUntilMs === 0) continue;
        ejected[id] = cluster.panicking
          ? `${outlier.reason}; used all the same, because every endpoint of "${cluster.name}" is ejected`
          : outlier.reason;
      }
    }
    return ejected;
  }

  onBusyEmptied(callback: () => void): void {
    this.#busyEmptied.push(callback);
  }

  onEmptied(endpoint: EndpointState): void {
    if (!this.#leaving.delete(endpoint)) return;
    if (Object.keys(this.busy()).length === 0) for (const callback of this.#busyEmptied) callback();
  }

  onEjected(endpoint: EndpointState): void {
    this.#stats.ejected(endpoint.cluster.name);
    this.#log.warn(
      { cluster: endpoint.cluster.name, endpoint: endpoint.id, release: endpoint.release },
      `ejected: ${endpoint.outlier.reason}`,
    );
  }

  onPanic(cluster: ClusterState, panicking: boolean): void {
    if (panicking)
      this.#log.error({ cluster: cluster.name }, "every endpoint is ejected; all are used again");
    else this.#log.info({ cluster: cluster.name }, "endpoints that are not ejected are back");
  }

  get socketsLeft(): boolean {
    return this.#socketsMax === 0 || this.#stats.sockets < this.#socketsMax;
  }

  nowMs(): number {
    return this.#wheel.coarseNowMs();
  }

  watch(timed: Timed, dueMs: number): void {
    this.#wheel.watch(timed, dueMs);
  }

  /** Queues `waiter` for changes of a cluster, before all others when `first`. False when `max` wait already. */
  wait(cluster: string, waiter: Waiter, max: number, first = false): boolean {
    const queue = this.#waiting.get(cluster);
    if (queue === undefined) {
      if (max > 0) this.#waiting.set(cluster, [waiter]);
      return max > 0;
    }
    if (queue.length >= max) return false;
    if (first) queue.unshift(waiter);
    else queue.push(waiter);
    return true;
  }

  stopWaiting(cluster: string, waiter: Waiter): void {
    const queue = this.#waiting.get(cluster);
    const index = queue?.indexOf(waiter) ?? -1;
    if (queue === undefined || index < 0) return;
    queue.splice(index, 1);
    if (queue.length === 0) this.#waiting.delete(cluster);
  }

  /** Lets those who wait for `cluster` try again, the oldest first, until one has to go on waiting. */
  wake(cluster: string): void {
    const queue = this.#waiting.get(cluster);
    if (queue === undefined) return;
    for (let waiter = queue[0]; waiter !== undefined; waiter = queue[0]) {
      if (!waiter.retryNow()) return;
      if (queue[0] === waiter) queue.shift();
    }
    if (this.#waiting.get(cluster) === queue) this.#waiting.delete(cluster);
  }

  wakeAll(): void {
    for (const name of Array.from(this.#waiting.keys())) this.wake(name);
  }

  get waitingCount(): number {
    let count = 0;
    for (const queue of this.#waiting.values()) count += queue.length;
    return count;
  }

  someoneWaits(cluster: string): boolean {
    return this.#waiting.size > 0 && this.#waiting.has(cluster);
  }
}
