import type { Log } from "../base/log.ts";
import type { Cluster, MeshConfig, ProxyReport, PublicRoute } from "../model/mesh.ts";
import { routeKey, sameRequests } from "../model/route.ts";
import { type CompiledActions, compileActions } from "./actions/compile.ts";
import { problemOfActions } from "./actions/problems.ts";
import type { Binding } from "./binding.ts";
import { ClusterState, type ClusterEvents, type EndpointState } from "./cluster.ts";
import type { DeadlineWheel, Timed } from "./deadlines.ts";
import { type RouteTable, buildRoutes } from "./routing.ts";
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
export function problemOf(config: MeshConfig): string | undefined {
  const clusters = new Set<string>();
  for (const cluster of config.clusters) {
    if (clusters.has(cluster.name)) return `cluster "${cluster.name}" is there twice`;
    clusters.add(cluster.name);
    if (sound.has(cluster)) continue;
    const ids = new Set(cluster.endpoints.map(({ id }) => id));
    if (ids.size !== cluster.endpoints.length) return `cluster "${cluster.name}" has an endpoint id twice`;
    const releases = new Set(cluster.split.map(({ release }) => release));
    if (releases.size !== cluster.split.length)
      return `the split of cluster "${cluster.name}" names a release twice`;
    sound.add(cluster);
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

/** The configuration in force and what lives on across configurations: endpoints with work, ejections, who waits. */
export class Mesh implements ClusterEvents {
  epoch = 0;
  clusters: ReadonlyMap<string, ClusterState> = new Map();
  routes: RouteTable = buildRoutes([]);
  /** By the id of a declared edge; the few that have any. */
  #edgeActions: ReadonlyMap<string, CompiledActions> = new Map();
  /** What each cluster was made of: the same object again changes nothing. */
  readonly #madeOf = new WeakMap<ClusterState, Cluster>();
  readonly #log: Log;
  readonly #stats: EngineStats;
  readonly #wheel: DeadlineWheel;
  /** Out of the configuration, still serving. */
  readonly #leaving = new Set<EndpointState>();
  readonly #busyEmptied: (() => void)[] = [];
  readonly #waiting = new Map<string, Waiter[]>();

  constructor(log: Log, stats: EngineStats, wheel: DeadlineWheel) {
    this.#log = log;
    this.#stats = stats;
    this.#wheel = wheel;
  }

  /** Swaps the configuration; it was found to have no problem. No connection is touched but idle ones to who left. */
  apply(config: MeshConfig): void {
    const clusters = new Map<string, ClusterState>();
    const removed: EndpointState[] = [];
    for (const cluster of config.clusters) {
      const known = this.clusters.get(cluster.name);
      const state = known ?? new ClusterState(cluster, this);
      if (known !== undefined && this.#madeOf.get(known) !== cluster) removed.push(...known.change(cluster));
      this.#madeOf.set(state, cluster);
      clusters.set(cluster.name, state);
    }
    for (const [name, known] of this.clusters) {
      if (!clusters.has(name)) removed.push(...known.removeAll());
    }
    this.epoch = config.epoch;
    this.clusters = clusters;
    this.routes = buildRoutes(config.routes);
    this.#edgeActions = new Map(
      config.edges.flatMap(({ id, actions }) =>
        actions === undefined ? [] : [[id, compileActions(actions, "prefix", "/")]],
      ),
    );
    for (const endpoint of removed) {
      endpoint.closeIdle();
      if (endpoint.inFlight > 0) this.#leaving.add(endpoint);
    }
    for (const name of Array.from(this.#waiting.keys())) this.wake(name);
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

  get waitingCount(): number {
    let count = 0;
    for (const queue of this.#waiting.values()) count += queue.length;
    return count;
  }

  someoneWaits(cluster: string): boolean {
    return this.#waiting.size > 0 && this.#waiting.has(cluster);
  }
}
