import { parseDurationMs } from "../base/units.ts";
import type { BalancingKeys, DependencyMapping, ProcessSpec } from "./manifest.ts";
import { type EdgeMapping, parseEdge, withoutLastSlash } from "./manifest-route.ts";
import { type FilterResolution, resolveFilters } from "./manifest-filter.ts";
import type { BalancingChoice, EdgeRoute } from "./release.ts";
import type { HeaderEdits, RouteActions, RouteMatch } from "./route.ts";

type EdgeEntry = NonNullable<ProcessSpec["edge"]>[number];

/** What an entry of `edge:` means; without `filters` its filters are left out. */
export function edgeRouteOf(entry: EdgeEntry, filters?: FilterResolution): EdgeRoute {
  if (typeof entry === "string") return parseEdge(entry);
  const { kind, path } = pathOf(entry.path);
  const match = present<RouteMatch>({
    kind,
    methods: entry.methods,
    headers: entry.headers && conditionsOf(entry.headers, (name) => name.toLowerCase()),
    query: entry.query && conditionsOf(entry.query, (name) => name),
  });
  const { redirect, respond } = entry;
  const actions = present<RouteActions>({
    rewrite: entry.rewrite,
    redirect:
      redirect === undefined
        ? undefined
        : { status: 308, ...(typeof redirect === "string" ? { to: redirect } : defined(redirect)) },
    respond: respond && { status: 200, type: "text/plain; charset=utf-8", body: "", ...defined(respond) },
    maintenance: maintenanceOf(entry.maintenance),
    compress: compressOf(entry.compress),
    ...callActionsOf(entry, "address", filters),
  });
  return {
    host: entry.host,
    path,
    ...(match === undefined ? {} : { match }),
    ...(actions === undefined ? {} : { actions }),
  };
}

/** What happens to the calls of a dependency. */
export function dependencyActionsOf(
  mapping: DependencyMapping,
  filters: FilterResolution,
): RouteActions | undefined {
  return present<RouteActions>(callActionsOf(mapping, "service", filters));
}

function callActionsOf(
  { rateLimit, fault, hold, ...entry }: EdgeMapping | DependencyMapping,
  account: "address" | "service",
  filters: FilterResolution | undefined,
): RouteActions {
  return (
    present<RouteActions>({
      rateLimit: rateLimit && {
        requests: rateLimit.requests,
        windowMs: milliseconds(rateLimit.per),
        burst: rateLimit.burst ?? rateLimit.requests,
        key:
          typeof rateLimit.key === "object"
            ? { header: rateLimit.key.header.toLowerCase() }
            : (rateLimit.key ?? account),
      },
      fault: fault && {
        percent: fault.percent ?? 100,
        ...defined({
          delayMs: fault.delay === undefined ? undefined : milliseconds(fault.delay),
          abort: fault.abort,
          header: fault.header?.toLowerCase(),
        }),
      },
      holdMs: hold === undefined ? undefined : milliseconds(hold),
      requestHeaders: entry.requestHeaders && editsOf(entry.requestHeaders),
      responseHeaders: entry.responseHeaders && editsOf(entry.responseHeaders),
      filters: filters && resolveFilters(entry.filters, filters),
    }) ?? {}
  );
}

function pathOf(path: EdgeMapping["path"]): { kind: RouteMatch["kind"]; path: string } {
  if (typeof path === "object") {
    if (path.exact !== undefined) return { kind: "exact", path: path.exact };
    if (path.pattern !== undefined) return { kind: "pattern", path: path.pattern };
  }
  return { kind: undefined, path: withoutLastSlash((typeof path === "object" ? path.prefix : path) ?? "/") };
}

/** How requests are spread, as `balancing:` and `slowStart:` say; undefined when they say nothing. */
export function balancingOf({ balancing, slowStart }: BalancingKeys): BalancingChoice | undefined {
  const slowStartMs = slowStart === undefined ? undefined : Math.round(parseDurationMs(slowStart) ?? 0);
  if (typeof balancing !== "object") return present<BalancingChoice>({ balancing, slowStartMs });
  return present<BalancingChoice>({ balancing: "maglev", hash: hashOf(balancing.hash), slowStartMs });
}

type HashKey = Extract<NonNullable<BalancingKeys["balancing"]>, object>["hash"];

function hashOf(key: HashKey): BalancingChoice["hash"] {
  if (key === "address") return { by: "address", name: "" };
  const { header, cookie, query } = key;
  if (header !== undefined) return { by: "header", name: header.toLowerCase() };
  return cookie === undefined ? { by: "query", name: query ?? "" } : { by: "cookie", name: cookie };
}

/** At least one: nothing is not a duration that could be waited for. */
function milliseconds(text: string): number {
  return Math.max(1, Math.round(parseDurationMs(text) ?? 0));
}

function maintenanceOf(maintenance: EdgeMapping["maintenance"]): RouteActions["maintenance"] {
  if (maintenance === undefined || maintenance === false) return undefined;
  const { status, retryAfter, body, type } = maintenance === true ? {} : maintenance;
  return {
    status: status ?? 503,
    retryAfterSeconds: Math.ceil((parseDurationMs(retryAfter ?? "1m") ?? 0) / 1000),
    type: type ?? "text/plain; charset=utf-8",
    body: body ?? "Closed for maintenance. Please come back in a while.\n",
  };
}

/** Below this a packet is not saved. */
const COMPRESS_BYTES_MIN = 1024;

function compressOf(compress: EdgeMapping["compress"]): RouteActions["compress"] {
  if (compress === undefined || compress === false) return undefined;
  return { codings: compress === true ? ["zstd", "br", "gzip"] : compress, bytesMin: COMPRESS_BYTES_MIN };
}

type Conditions = NonNullable<EdgeMapping["headers"]>;

function conditionsOf(
  conditions: Conditions,
  nameOf: (name: string) => string,
): Record<string, string | true> {
  const entries = Object.entries(conditions).map(([name, value]): [string, string | true] => [
    nameOf(name),
    value === true ? true : String(value),
  ]);
  return Object.fromEntries(entries);
}

function editsOf({ set, add, remove }: NonNullable<EdgeMapping["requestHeaders"]>): HeaderEdits {
  const lines = (fields: Record<string, string | number>) =>
    Object.fromEntries(Object.entries(fields).map(([name, value]) => [name.toLowerCase(), String(value)]));
  return (
    present<HeaderEdits>({
      set: set && lines(set),
      add: add && lines(add),
      remove: remove?.map((name) => name.toLowerCase()),
    }) ?? {}
  );
}

/** What is there and defined; undefined when nothing is. */
function present<T extends object>(parts: { [Key in keyof T]?: T[Key] | undefined }): T | undefined {
  const kept = defined(parts);
  return Object.keys(kept).length === 0 ? undefined : kept;
}

function defined<T extends object>(parts: T): { [Key in keyof T]: Exclude<T[Key], undefined> } {
  const entries = Object.entries(parts).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [Key in keyof T]: Exclude<T[Key], undefined> };
}
