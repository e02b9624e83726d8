import type { DependencyMapping, ProcessSpec } from "./manifest.ts";
import { type EdgeMapping, parseEdge, withoutLastSlash } from "./manifest-route.ts";
import type { EdgeRoute } from "./release.ts";
import type { HeaderEdits, RouteActions, RouteMatch } from "./route.ts";

type EdgeEntry = NonNullable<ProcessSpec["edge"]>[number];

/** What an entry of `edge:` means. */
export function edgeRouteOf(entry: EdgeEntry): EdgeRoute {
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
    ...callActionsOf(entry),
  });
  return {
    host: entry.host,
    path,
    ...(match === undefined ? {} : { match }),
    ...(actions === undefined ? {} : { actions }),
  };
}

/** What happens to the calls of a dependency. */
export function dependencyActionsOf(mapping: DependencyMapping): RouteActions | undefined {
  return present<RouteActions>(callActionsOf(mapping));
}

function callActionsOf(entry: EdgeMapping | DependencyMapping): RouteActions {
  return (
    present<RouteActions>({
      requestHeaders: entry.requestHeaders && editsOf(entry.requestHeaders),
      responseHeaders: entry.responseHeaders && editsOf(entry.responseHeaders),
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
