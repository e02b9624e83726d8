import type { RouteActions } from "../../model/route.ts";
import type { FilterUse } from "../../model/filter.ts";
import type { FilterChain } from "../filters/chain.ts";
import type { Answer } from "./answer.ts";
import type { CompressSpec } from "./compression.ts";
import type { FaultSpec } from "./fault.ts";
import { type CompiledEdits, compileEdits } from "./header-edits.ts";
import type { RateLimiter, RateLimitSpec } from "./rate-limit.ts";
import type { ActionStates } from "./states.ts";
import { type Template, compileTemplate } from "./template.ts";

/** What a route does, made ready when a configuration is applied. Each part is undefined where there is none. */
export interface CompiledActions {
  readonly kind: "exact" | "pattern" | "prefix";
  /** The route's own path, to cut off or to find names in. */
  readonly path: string;
  readonly rewrite: Template | undefined;
  readonly redirect: { readonly to: Template; readonly status: number } | undefined;
  readonly respond: { readonly status: number; readonly type: string; readonly body: Buffer } | undefined;
  readonly rateLimit: { readonly spec: RateLimitSpec; readonly limiter: RateLimiter } | undefined;
  readonly fault: FaultSpec | undefined;
  readonly maintenance: Answer | undefined;
  /** Instead of the engine's `pendingTimeoutMs`. */
  readonly holdMs: number | undefined;
  readonly compress: CompressSpec | undefined;
  readonly requestHeaders: CompiledEdits | undefined;
  readonly responseHeaders: CompiledEdits | undefined;
  readonly filters: FilterChain | undefined;
}

/** Makes filters ready that were loaded before. */
export type ChainOf = (uses: readonly FilterUse[]) => FilterChain;

/** `owner` is the id of the route or edge: what is counted is counted under it. */
export function compileActions(
  actions: RouteActions,
  owner: string,
  states: ActionStates,
  kind: CompiledActions["kind"],
  path: string,
  chainOf?: ChainOf,
): CompiledActions {
  const { rewrite, redirect, respond, rateLimit, fault, maintenance, holdMs } = actions;
  const { requestHeaders, responseHeaders, filters = [] } = actions;
  return {
    kind,
    path,
    rewrite: rewrite === undefined ? undefined : compileTemplate(rewrite),
    redirect: redirect && { to: compileTemplate(redirect.to), status: redirect.status },
    respond: respond && { status: respond.status, type: respond.type, body: Buffer.from(respond.body) },
    rateLimit: rateLimit && { spec: rateLimit, limiter: states.limiter(owner, rateLimit) },
    fault,
    maintenance: maintenance && {
      status: maintenance.status,
      fields: `content-type: ${maintenance.type}\r\nretry-after: ${maintenance.retryAfterSeconds}\r\nx-gilliam-reason: maintenance\r\n`,
      body: Buffer.from(maintenance.body),
      reason: "maintenance",
    },
    holdMs,
    compress: actions.compress,
    requestHeaders: requestHeaders && compileEdits(requestHeaders),
    responseHeaders: responseHeaders && compileEdits(responseHeaders),
    filters: filters.length === 0 ? undefined : chainOf?.(filters),
  };
}
