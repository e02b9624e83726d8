import { type Steps, atOnce } from "../base/slices.ts";
import type { PublicRoute } from "../model/mesh.ts";
import { conditionCount } from "../model/route.ts";
import { type ChainOf, type CompiledActions, compileActions } from "./actions/compile.ts";
import type { ActionStates } from "./actions/states.ts";
import { addPattern, type PatternNode, findPattern, newPatternNode } from "./route-pattern.ts";

/** What of a request decides its route. */
export interface RoutedRequest {
  /** As the client wrote it: `Shop.localhost:8080`. */
  readonly host: string;
  readonly target: string;
  readonly method: string;
  /** Lines ending in CR LF. */
  readonly fields: string;
}

export interface CompiledRoute {
  readonly id: string;
  readonly cluster: string;
  readonly path: string;
  readonly kind: "exact" | "pattern" | "prefix";
  /** Undefined: every request to this host and path. */
  readonly conditions: Conditions | undefined;
  readonly actions: CompiledActions | undefined;
}

interface Conditions {
  readonly count: number;
  readonly methods: ReadonlySet<string> | undefined;
  readonly headers: readonly (readonly [name: string, value: string | true])[];
  readonly query: readonly (readonly [name: string, value: string | true])[];
}

/** The routes of one host. What is looked up is looked up in maps, so that their number does not matter. */
interface HostRoutes {
  /** The only route, when it takes everything: nothing else is looked at. */
  readonly only: CompiledRoute | undefined;
  readonly exact: ReadonlyMap<string, readonly CompiledRoute[]>;
  readonly patterns: PatternNode<CompiledRoute> | undefined;
  readonly prefixes: ReadonlyMap<string, readonly CompiledRoute[]>;
  /** Segments of the longest prefix: a path is never cut deeper. */
  readonly prefixSegmentsMax: number;
}

/** Public routes, ready for look-up: exact hosts first, then one-label wildcards. */
export interface RouteTable {
  readonly exact: ReadonlyMap<string, HostRoutes>;
  /** By what follows `*.`. */
  readonly wildcard: ReadonlyMap<string, HostRoutes>;
}

export function buildRoutes(routes: readonly PublicRoute[], states: ActionStates): RouteTable {
  return atOnce(routeSteps(routes, states));
}

export function* routeSteps(
  routes: readonly PublicRoute[],
  states: ActionStates,
  chainOf?: ChainOf,
): Steps<RouteTable> {
  const exact = new Map<string, CompiledRoute[]>();
  const wildcard = new Map<string, CompiledRoute[]>();
  for (const route of routes) {
    const isWildcard = route.host.startsWith("*.");
    const table = isWildcard ? wildcard : exact;
    addTo(table, isWildcard ? route.host.slice(2) : route.host, compileRoute(route, states, chainOf));
    yield;
  }
  return { exact: yield* hostSteps(exact), wildcard: yield* hostSteps(wildcard) };
}

function* hostSteps(table: ReadonlyMap<string, CompiledRoute[]>): Steps<Map<string, HostRoutes>> {
  const hosts = new Map<string, HostRoutes>();
  for (const [host, list] of table) {
    hosts.set(host, hostRoutes(list));
    yield;
  }
  return hosts;
}

function compileRoute(
  { id, path, match, cluster, actions }: PublicRoute,
  states: ActionStates,
  chainOf: ChainOf | undefined,
): CompiledRoute {
  const kind = match?.kind ?? "prefix";
  const count = conditionCount(match);
  return {
    id,
    cluster,
    path,
    kind,
    conditions:
      count === 0
        ? undefined
        : {
            count,
            methods: match?.methods === undefined ? undefined : new Set(match.methods),
            headers: Object.entries(match?.headers ?? {}),
            query: Object.entries(match?.query ?? {}),
          },
    actions: actions === undefined ? undefined : compileActions(actions, id, states, kind, path, chainOf),
  };
}

/** Most conditions first; where that is equal, by id, so that the order means nothing. */
function hostRoutes(list: CompiledRoute[]): HostRoutes {
  const count = ({ conditions }: CompiledRoute) => conditions?.count ?? 0;
  list.sort((a, b) => count(b) - count(a) || (a.id < b.id ? -1 : 1));
  const exact = new Map<string, CompiledRoute[]>();
  const prefixes = new Map<string, CompiledRoute[]>();
  let patterns: PatternNode<CompiledRoute> | undefined;
  let prefixSegmentsMax = 0;
  for (const route of list) {
    switch (route.kind) {
      case "exact":
        addTo(exact, route.path, route);
        break;
      case "pattern":
        patterns ??= newPatternNode();
        addPattern(patterns, route.path, route);
        break;
      case "prefix":
        addTo(prefixes, route.path, route);
        prefixSegmentsMax = Math.max(prefixSegmentsMax, route.path.split("/").length - 1);
        break;
    }
  }
  const [first] = list;
  const takesAll = first?.kind === "prefix" && first.path === "/" && first.conditions === undefined;
  return {
    only: list.length === 1 && takesAll ? first : undefined,
    exact,
    patterns,
    prefixes,
    prefixSegmentsMax,
  };
}

function addTo<Item>(table: Map<string, Item[]>, key: string, item: Item): void {
  const list = table.get(key);
  if (list === undefined) table.set(key, [item]);
  else list.push(item);
}

/**
 * The route for a request; undefined: answer 404. An exact host before a wildcard, which does not help it out; then an
 * exact path, a pattern (segment by segment: text before a name before a rest), the longest prefix; among routes with
 * the same path the one with most conditions, then the first by id. One whose conditions do not hold is passed over.
 */
export function matchRoute(table: RouteTable, request: RoutedRequest): CompiledRoute | undefined {
  const host = hostOf(request.host);
  const dot = host.indexOf(".");
  const routes = table.exact.get(host) ?? (dot > 0 ? table.wildcard.get(host.slice(dot + 1)) : undefined);
  if (routes === undefined) return undefined;
  if (routes.only !== undefined) return routes.only;
  const path = routingPath(request.target);
  const fits = (list: readonly CompiledRoute[]) => firstThatHolds(list, request);
  const exact = routes.exact.get(path);
  return (
    (exact && fits(exact)) ??
    (routes.patterns && findPattern(routes.patterns, path, fits)) ??
    longestPrefix(routes, path, fits)
  );
}

/** A prefix ends at a segment: `/api` is no prefix of `/apiary`. One that ends in `/` is none of itself without it. */
function longestPrefix(
  { prefixes, prefixSegmentsMax }: HostRoutes,
  path: string,
  fits: (list: readonly CompiledRoute[]) => CompiledRoute | undefined,
): CompiledRoute | undefined {
  let end = 0;
  for (let segment = 0; segment < prefixSegmentsMax && end >= 0; segment += 1)
    end = path.indexOf("/", end + 1);
  let prefix = end < 0 ? path : path.slice(0, end + 1);
  while (prefix !== "") {
    const list = prefixes.get(prefix);
    const found = list && fits(list);
    if (found !== undefined) return found;
    // `/a/b` → `/a/` → `/a` → `/`
    prefix = prefix.endsWith("/") ? prefix.slice(0, -1) : prefix.slice(0, prefix.lastIndexOf("/") + 1);
  }
  return undefined;
}

function firstThatHolds(list: readonly CompiledRoute[], request: RoutedRequest): CompiledRoute | undefined {
  for (const route of list) {
    if (route.conditions === undefined || holds(route.conditions, request)) return route;
  }
  return undefined;
}

function holds({ methods, headers, query }: Conditions, request: RoutedRequest): boolean {
  if (methods !== undefined && !methods.has(request.method)) return false;
  if (!headers.every(([name, value]) => hasField(request.fields, name, value))) return false;
  if (query.length === 0) return true;
  const parameters = parametersOf(request.target);
  return query.every(([name, value]) =>
    parameters.some((parameter) => parameter[0] === name && (value === true || parameter[1] === value)),
  );
}

/** Whether one of the lines is `name` (lower case) with `value`, or with any. */
export function hasField(fields: string, name: string, value: string | true): boolean {
  for (let at = 0; at < fields.length;) {
    const end = fields.indexOf("\r\n", at);
    const next = end < 0 ? fields.length : end;
    const colon = at + name.length;
    if (fields.charCodeAt(colon) === 58 && fields.slice(at, colon).toLowerCase() === name) {
      if (value === true || fields.slice(colon + 1, next).trim() === value) return true;
    }
    at = next + 2;
  }
  return false;
}

/** Names and values of a query, percent-decoded; what cannot be decoded stays as it is. */
export function parametersOf(target: string): [name: string, value: string][] {
  const start = target.indexOf("?");
  if (start < 0) return [];
  return target
    .slice(start + 1)
    .split("&")
    .map((part) => {
      const equals = part.indexOf("=");
      return equals < 0
        ? [decoded(part), ""]
        : [decoded(part.slice(0, equals)), decoded(part.slice(equals + 1))];
    });
}

function decoded(text: string): string {
  if (!text.includes("%") && !text.includes("+")) return text;
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
}

const NEEDLESSLY_ENCODED = /%(?:2[de]|3\d|[46][1-9a-f]|[57][0-9a]|5f|7e)/gi;

/**
 * The path as routes are compared with it: what need not be encoded is decoded (RFC 3986 6.2.2.2) and `//` is `/`, so
 * that nobody walks around a route by spelling its path in another way. What is sent on is what the client wrote.
 */
export function routingPath(target: string): string {
  const query = target.indexOf("?");
  const path = query < 0 ? target : target.slice(0, query);
  if (path === "*") return "/";
  if (!path.includes("%") && !path.includes("//")) return path;
  return path
    .replaceAll(NEEDLESSLY_ENCODED, (text) => String.fromCharCode(Number.parseInt(text.slice(1), 16)))
    .replaceAll(/\/{2,}/g, "/");
}

/** Lower case, without the port and a trailing dot. */
export function hostOf(authority: string): string {
  const colon = authority.lastIndexOf(":");
  const host = colon > 0 && !authority.endsWith("]") ? authority.slice(0, colon) : authority;
  const lower = host.toLowerCase();
  return lower.endsWith(".") ? lower.slice(0, -1) : lower;
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
