import { z } from "zod";
import { formatDuration } from "../base/units.ts";
import { FilterUse } from "./filter.ts";

/**
 * What hangs on a public route or a declared edge beyond its cluster, as control tells a proxy. Every part is optional;
 * a route without any costs what it did before there were any. `manifest-route.ts` is what people write.
 */

/** Which requests, beyond host and path. */
export const RouteMatch = z.strictObject({
  /** How `path` is read; absent: a prefix that ends at a segment. A pattern has `:name` segments and perhaps a last `*name`. */
  kind: z.enum(["exact", "pattern"]).optional(),
  /** Any of these, upper case. */
  methods: z.array(z.string()).optional(),
  /** All of these: name in lower case, value of one of its lines; `true`: present. */
  headers: z.record(z.string(), z.union([z.string(), z.literal(true)])).optional(),
  /** All of these, percent-decoded; `true`: present. */
  query: z.record(z.string(), z.union([z.string(), z.literal(true)])).optional(),
});
export type RouteMatch = z.infer<typeof RouteMatch>;

/** Removed first, then set (whatever was there is gone), then added. Names in lower case. */
export const HeaderEdits = z.strictObject({
  set: z.record(z.string(), z.string()).optional(),
  add: z.record(z.string(), z.string()).optional(),
  remove: z.array(z.string()).optional(),
});
export type HeaderEdits = z.infer<typeof HeaderEdits>;

export const RouteActions = z.strictObject({
  /** Instead of the matched part of the path; `{name}` is what a pattern's segment held. The query stays. */
  rewrite: z.string().optional(),
  /** Where to, with `{host}`, `{path}`, `{query}` (with its `?`, or empty) and `{name}`. */
  redirect: z.strictObject({ to: z.string(), status: z.int().min(301).max(308) }).optional(),
  /** An answer without asking anybody. */
  respond: z
    .strictObject({ status: z.int().min(200).max(599), type: z.string(), body: z.string() })
    .optional(),
  /** How many requests each account may make; beyond, 429. Each worker of a proxy counts for itself. */
  rateLimit: z
    .strictObject({
      requests: z.int().min(1),
      windowMs: z.int().min(1),
      /** At once, after a rest. */
      burst: z.int().min(1),
      /** Whose account: one for all, the client's address, the calling service, or the value of a header. */
      key: z.union([z.enum(["route", "address", "service"]), z.strictObject({ header: z.string().min(1) })]),
    })
    .optional(),
  /** Makes trouble on purpose: a delay, then perhaps an answer of its own. */
  fault: z
    .strictObject({
      delayMs: z.int().min(1).optional(),
      abort: z.int().min(400).max(599).optional(),
      percent: z.number().min(0).max(100),
      /** Only requests with this field. */
      header: z.string().min(1).optional(),
    })
    .optional(),
  /** Nobody is asked; everybody is told to come back. */
  maintenance: z
    .strictObject({
      status: z.int().min(400).max(599),
      retryAfterSeconds: z.int().min(0),
      type: z.string(),
      body: z.string(),
    })
    .optional(),
  /** How long a request waits while there is no ready instance, instead of `pendingTimeoutMs`. */
  holdMs: z.int().min(1).optional(),
  /** Responses of text are compressed for clients that accept it. */
  compress: z
    .strictObject({
      /** The first is preferred where a client likes several alike. */
      codings: z.array(z.enum(["zstd", "br", "gzip"])).min(1),
      /** Known to be shorter: left alone. */
      bytesMin: z.int().min(0),
    })
    .optional(),
  requestHeaders: HeaderEdits.optional(),
  responseHeaders: HeaderEdits.optional(),
  /** In the order in which they see a request; they come before everything else here, and last on the way back. */
  filters: z.array(FilterUse).optional(),
});
export type RouteActions = z.infer<typeof RouteActions>;

/** What decides which requests a route is for. */
export interface RouteShape {
  readonly host: string;
  readonly path: string;
  readonly match?: RouteMatch | undefined;
}

/** `/users/:id/*rest` as `:` and `*` with every name left out, so that two that match the same are the same text. */
function patternShape(path: string): string {
  return path.replaceAll(/\/([:*])[^/]*/g, "/$1");
}

/** What two routes for the same requests have in common: everything but their methods. */
export function routeKey({ host, path, match }: RouteShape): string {
  const kind = match?.kind ?? "prefix";
  const where = kind === "pattern" ? patternShape(path) : path;
  return [host, kind, where, ...conditionTexts(match, false)].join(" ");
}

/** Whether some request fits both and neither is the more special: they cannot stand side by side. */
export function sameRequests(a: RouteShape, b: RouteShape): boolean {
  if (routeKey(a) !== routeKey(b)) return false;
  const [own, others] = [a.match?.methods, b.match?.methods];
  if (own === undefined || others === undefined) return own === others;
  return own.some((method) => others.includes(method));
}

/** How many conditions a route has besides host and path. */
export function conditionCount(match: RouteMatch | undefined): number {
  if (match === undefined) return 0;
  const { methods, headers = {}, query = {} } = match;
  return (methods === undefined ? 0 : 1) + Object.keys(headers).length + Object.keys(query).length;
}

/** Conditions in words, in a fixed order: `GET,HEAD`, `x-beta=1`, `?v`. */
function conditionTexts(match: RouteMatch | undefined, withMethods = true): string[] {
  const { methods, headers = {}, query = {} } = match ?? {};
  const pair = ([name, value]: [string, string | true]) => (value === true ? name : `${name}=${value}`);
  return [
    ...(methods === undefined || !withMethods ? [] : [methods.toSorted().join(",")]),
    ...Object.entries(headers).map(pair).toSorted(),
    ...Object.entries(query)
      .map((entry) => `?${pair(entry)}`)
      .toSorted(),
  ];
}

/** What a route asks of requests besides host and path, in words: `exact, GET, x-beta=1`; empty for a plain one. */
export function matchText(match: RouteMatch | undefined): string {
  return [...(match?.kind === undefined ? [] : [match.kind]), ...conditionTexts(match)].join(", ");
}

/** `shop.localhost/api (GET, x-beta=1)`: unique among routes that can stand side by side, and for people. */
export function routeId(route: RouteShape): string {
  const more = matchText(route.match);
  return `${route.host}${route.path}${more === "" ? "" : ` (${more})`}`;
}

/** What a route does, a line each, for people. */
export function actionTexts(actions: RouteActions | undefined): string[] {
  if (actions === undefined) return [];
  const { rewrite, redirect, respond, requestHeaders, responseHeaders, filters = [] } = actions;
  const { rateLimit, fault, maintenance, holdMs, compress } = actions;
  return [
    ...filters.map(
      ({ file, onFailure }) => `filter ${file}${onFailure === undefined ? "" : ` (${onFailure} on failure)`}`,
    ),
    ...(maintenance === undefined ? [] : [`maintenance, ${maintenance.status}`]),
    ...(rateLimit === undefined ? [] : [rateLimitText(rateLimit)]),
    ...(fault === undefined ? [] : [faultText(fault)]),
    ...(holdMs === undefined ? [] : [`hold up to ${formatDuration(holdMs)}`]),
    ...(rewrite === undefined ? [] : [`rewrite to ${rewrite}`]),
    ...(redirect === undefined ? [] : [`redirect ${redirect.status} to ${redirect.to}`]),
    ...(respond === undefined ? [] : [`respond ${respond.status}`]),
    ...(compress === undefined ? [] : [`compress with ${compress.codings.join(", ")}`]),
    ...editTexts("request", requestHeaders),
    ...editTexts("response", responseHeaders),
  ];
}

function rateLimitText({ requests, windowMs, burst, key }: NonNullable<RouteActions["rateLimit"]>): string {
  const whose =
    typeof key === "object" ? ` for each ${key.header}` : key === "route" ? "" : ` for each ${key}`;
  const more = burst === requests ? "" : `, ${burst} at once`;
  return `at most ${requests} in ${formatDuration(windowMs)}${whose}${more}`;
}

function faultText({ delayMs, abort, percent, header }: NonNullable<RouteActions["fault"]>): string {
  const what = [
    ...(delayMs === undefined ? [] : [`delay ${formatDuration(delayMs)}`]),
    ...(abort === undefined ? [] : [`abort ${abort}`]),
  ];
  return `fault for ${percent} %${header === undefined ? "" : ` with ${header}`}: ${what.join(", ")}`;
}

function editTexts(side: string, edits: HeaderEdits | undefined): string[] {
  const { set = {}, add = {}, remove = [] } = edits ?? {};
  return [
    ...remove.map((name) => `${side} header ${name} removed`),
    ...Object.entries(set).map(([name, value]) => `${side} header ${name}: ${value}`),
    ...Object.entries(add).map(([name, value]) => `${side} header ${name} added: ${value}`),
  ];
}
