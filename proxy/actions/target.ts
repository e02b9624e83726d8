import type { RequestHead } from "../http1/request-head.ts";
import { captures } from "../route-pattern.ts";
import { hostOf, isAmbiguousPath, routingPath } from "../routing.ts";
import type { CompiledActions } from "./compile.ts";
import { fillIn, type Template } from "./template.ts";

const NOTHING: Readonly<Record<string, string>> = {};

/**
 * The target a request is sent on with; undefined when what the client wrote would make one that this proxy refuses
 * itself: dot segments, an empty first segment, characters that no target has, too long.
 */
export function rewrittenTarget(
  { kind, path: own }: CompiledActions,
  rewrite: Template,
  { target }: RequestHead,
  bytesMax: number,
): string | undefined {
  const path = routingPath(target);
  const query = target.indexOf("?");
  let made = fillIn(rewrite, kind === "pattern" ? captures(own, path) : NOTHING);
  if (kind === "prefix") made = joined(made, own === "/" ? path : path.slice(own.length));
  const rewritten = query < 0 ? made : made + target.slice(query);
  const sound =
    /^\/(?!\/)[\x21-\x22\x24-\x7e]*$/.test(rewritten) &&
    rewritten.length <= bytesMax &&
    !isAmbiguousPath(rewritten);
  return sound ? rewritten : undefined;
}

/** `/v2` and `/x` are `/v2/x`; `/` and `/x` are `/x`; `/v2` and nothing is `/v2`. */
function joined(prefix: string, rest: string): string {
  if (rest === "") return prefix;
  const before = prefix.endsWith("/") ? prefix.slice(0, -1) : prefix;
  return before + (rest.startsWith("/") ? rest : `/${rest}`);
}

/** Where a client is sent; undefined when what it wrote would make no URL, or one of another host than was meant. */
export function redirectLocation(
  { kind, path: own }: CompiledActions,
  to: Template,
  { target, host }: RequestHead,
): string | undefined {
  const path = routingPath(target);
  const query = target.indexOf("?");
  const location = fillIn(to, {
    ...(kind === "pattern" ? captures(own, path) : NOTHING),
    host: hostOf(host),
    path,
    query: query < 0 ? "" : target.slice(query),
  });
  // A browser takes `//` and `/\` for the beginning of another host.
  return /^(?:https?:\/\/[^/\\?@]|\/(?![/\\])|\?|$)[\x21-\x7e]*$/.test(location) && location !== ""
    ? location
    : undefined;
}
