import type { PublicRoute } from "../model/mesh.ts";

/** Public routes, ready for look-up: exact hosts first, then one-label wildcards; within a host the longest path. */
export interface RouteTable {
  readonly exact: ReadonlyMap<string, readonly PublicRoute[]>;
  /** By what follows `*.`. */
  readonly wildcard: ReadonlyMap<string, readonly PublicRoute[]>;
}

export function buildRoutes(routes: readonly PublicRoute[]): RouteTable {
  const exact = new Map<string, PublicRoute[]>();
  const wildcard = new Map<string, PublicRoute[]>();
  for (const route of routes) {
    const isWildcard = route.host.startsWith("*.");
    const table = isWildcard ? wildcard : exact;
    const key = isWildcard ? route.host.slice(2) : route.host;
    const list = table.get(key);
    if (list === undefined) table.set(key, [route]);
    else list.push(route);
  }
  for (const list of [...exact.values(), ...wildcard.values()])
    list.sort((a, b) => b.path.length - a.path.length);
  return { exact, wildcard };
}

/** The route for an authority (`Shop.localhost:8080`) and a target (`/api?x`); undefined: answer 404. */
export function matchRoute(table: RouteTable, authority: string, target: string): PublicRoute | undefined {
  const host = hostOf(authority);
  const dot = host.indexOf(".");
  const routes = table.exact.get(host) ?? (dot > 0 ? table.wildcard.get(host.slice(dot + 1)) : undefined);
  if (routes === undefined) return undefined;
  for (const route of routes) if (matchesPath(route.path, target)) return route;
  return undefined;
}

/** Lower case, without the port and a trailing dot. */
export function hostOf(authority: string): string {
  const colon = authority.lastIndexOf(":");
  const host = colon > 0 && !authority.endsWith("]") ? authority.slice(0, colon) : authority;
  const lower = host.toLowerCase();
  return lower.endsWith(".") ? lower.slice(0, -1) : lower;
}

/** A prefix ends at a segment: `/api` is no prefix of `/apiary`. */
export function matchesPath(prefix: string, target: string): boolean {
  if (prefix === "/" || prefix === "") return true;
  if (!target.startsWith(prefix)) return false;
  if (prefix.endsWith("/") || target.length === prefix.length) return true;
  const next = target.charCodeAt(prefix.length);
  return next === 47 || next === 63;
}

/** A dot segment, also percent-encoded, between whatever some server takes for a separator. */
const DOT_SEGMENT = /(?:\/|%2f|%5c)(?:\.|%2e){1,2}(?:\/|%2f|%5c|;|$)/i;

/**
 * True for a path that a server behind us may read as another one: dot segments and backslashes. Whoever routes by
 * path must not pass these on (RFC 3986 6.2.2.3 wants them gone before they are sent).
 */
export function isAmbiguousPath(target: string): boolean {
  const query = target.indexOf("?");
  const path = query < 0 ? target : target.slice(0, query);
  if (path.includes("\\")) return true;
  return (path.includes("/.") || path.includes("%")) && DOT_SEGMENT.test(path);
}
