import type { RouteView } from "../model/api.ts";
import type { PublicRoute } from "../model/mesh.ts";
import { serviceAddress } from "../model/names.ts";
import { actionTexts, matchText, routeId, routeKey, sameRequests } from "../model/route.ts";
import { wantedOf } from "./facts.ts";
import type { Mesh } from "./mesh.ts";
import type { World } from "./world.ts";

export interface PublicRoutes {
  /** No two of them fit the same requests. */
  readonly routes: readonly PublicRoute[];
  /** Plain words: a service that asked for a host and path another one has. */
  readonly conflicts: readonly string[];
}

/**
 * The public routes: what the stable release of every service asks for, in formations that are down too (their answer
 * is 503 with a reason, not 404). Two services may not share a host and path: the first by address has it.
 */
export function publicRoutes(world: World): PublicRoutes {
  const routes: PublicRoute[] = [];
  const byKey = new Map<string, PublicRoute[]>();
  const conflicts: string[] = [];
  for (const formation of world.formations.toSorted((a, b) => compare(a.name, b.name))) {
    for (const name of Object.keys(formation.services).toSorted()) {
      const wanted = wantedOf(world, formation, name);
      if (wanted.kind !== "known") continue;
      const cluster = serviceAddress(name, formation.name);
      for (const route of wanted.stable.service.edge) {
        const id = routeId(route);
        const key = routeKey(route);
        const rivals = byKey.get(key) ?? [];
        const taken = rivals.find((other) => sameRequests(other, route));
        if (taken === undefined) {
          const added = { id, ...route, cluster };
          routes.push(added);
          byKey.set(key, [...rivals, added]);
        } else if (taken.cluster !== cluster) {
          conflicts.push(
            `${cluster} asks for ${id}, which ${taken.cluster} has: change \`edge:\` of one of them`,
          );
        }
      }
    }
  }
  return { routes, conflicts };
}

/** Every public route with the releases behind it, their shares of the requests and their endpoints. */
export function routeViews(mesh: Mesh): RouteView[] {
  return mesh.routes
    .map(({ host, path, match, actions, cluster: name }) => {
      const cluster = mesh.clusters.get(name);
      const endpoints = cluster?.endpoints ?? [];
      const releases = new Set([
        ...endpoints.map((endpoint) => endpoint.release),
        ...(cluster?.split ?? []).map((share) => share.release),
      ]);
      const split = [...releases]
        .toSorted((a, b) => a - b)
        .map((release) => ({
          release,
          weight: 0,
          endpoints: endpoints.filter((endpoint) => endpoint.release === release).length,
        }));
      return {
        host,
        path,
        ...(match === undefined ? {} : { match: matchText(match) }),
        service: name,
        ...(actions === undefined ? {} : { actions: actionTexts(actions) }),
        split: withShares(split, cluster?.split ?? []),
      };
    })
    .toSorted((a, b) => compare(a.host + a.path + (a.match ?? ""), b.host + b.path + (b.match ?? "")));
}

type Share = RouteView["split"][number];

/** Weights as whole per cents that add up to 100; without a split every endpoint counts alike. */
function withShares(
  shares: readonly Share[],
  split: readonly { release: number; weight: number }[],
): Share[] {
  const weights = shares.map(({ release, endpoints }) => {
    if (split.length === 0) return endpoints;
    return endpoints === 0 ? 0 : (split.find((share) => share.release === release)?.weight ?? 0);
  });
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (total === 0) return [...shares];
  const floors = weights.map((weight) => Math.floor((100 * weight) / total));
  // The largest remainder gets what rounding down left over (Hamilton's method).
  let left = 100 - floors.reduce((sum, floor) => sum + floor, 0);
  const byRemainder = weights
    .map((weight, index) => ({ index, remainder: (100 * weight) % total }))
    .toSorted((a, b) => b.remainder - a.remainder);
  for (const { index } of byRemainder) {
    if (left === 0) break;
    floors[index]! += 1;
    left -= 1;
  }
  return shares.map((share, index) => ({ ...share, weight: floors[index] ?? 0 }));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
