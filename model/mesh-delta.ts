import { isDeepStrictEqual } from "node:util";
import type { MeshConfig, MeshDelta } from "./mesh.ts";

/** Both sides of the feed use these two, so that `applyDelta(a, deltaBetween(a, b))` equals `b`. */

/** What turns `from` into `to`. Undefined when only the epoch differs: there is nothing to send. */
export function deltaBetween(from: MeshConfig, to: MeshConfig): MeshDelta | undefined {
  const clusters = changes(from.clusters, to.clusters, (cluster) => cluster.name);
  const edges = changes(from.edges, to.edges, (edge) => edge.id);
  const routes = changes(from.routes, to.routes, (route) => route.id);
  const parts = [clusters, edges, routes];
  if (parts.every(({ set, remove }) => set.length === 0 && remove.length === 0)) return undefined;
  return {
    epoch: to.epoch,
    base: from.epoch,
    set: { clusters: clusters.set, edges: edges.set, routes: routes.set },
    remove: { clusters: clusters.remove, edges: edges.remove, routes: routes.remove },
  };
}

/**
 * The configuration after `delta`. Undefined when `delta` was made for another base: ask for a whole one.
 * Items keep their place, new ones come last; order means nothing.
 */
export function applyDelta(config: MeshConfig, delta: MeshDelta): MeshConfig | undefined {
  if (delta.base !== config.epoch) return undefined;
  return {
    epoch: delta.epoch,
    clusters: changed(config.clusters, delta.set.clusters, delta.remove.clusters, (cluster) => cluster.name),
    edges: changed(config.edges, delta.set.edges, delta.remove.edges, (edge) => edge.id),
    routes: changed(config.routes, delta.set.routes, delta.remove.routes, (route) => route.id),
  };
}

/** The same objects are equal at once, which keeps a delta of a large mesh cheap. */
function changes<Item extends object>(
  from: readonly Item[],
  to: readonly Item[],
  key: (item: Item) => string,
) {
  const before = new Map(from.map((item) => [key(item), item]));
  const set: Item[] = [];
  for (const item of to) {
    const old = before.get(key(item));
    before.delete(key(item));
    if (old !== item && !isDeepStrictEqual(old, item)) set.push(item);
  }
  return { set, remove: [...before.keys()] };
}

function changed<Item>(
  items: readonly Item[],
  set: readonly Item[],
  remove: readonly string[],
  key: (item: Item) => string,
): Item[] {
  const next = new Map(items.map((item) => [key(item), item]));
  for (const gone of remove) next.delete(gone);
  for (const item of set) next.set(key(item), item);
  return [...next.values()];
}
