import type { RouteActions } from "../../model/route.ts";
import { type CompiledEdits, compileEdits } from "./header-edits.ts";
import { type Template, compileTemplate } from "./template.ts";

/** What a route does, made ready when a configuration is applied. Each part is undefined where there is none. */
export interface CompiledActions {
  readonly kind: "exact" | "pattern" | "prefix";
  /** The route's own path, to cut off or to find names in. */
  readonly path: string;
  readonly rewrite: Template | undefined;
  readonly redirect: { readonly to: Template; readonly status: number } | undefined;
  readonly respond: { readonly status: number; readonly type: string; readonly body: Buffer } | undefined;
  readonly requestHeaders: CompiledEdits | undefined;
  readonly responseHeaders: CompiledEdits | undefined;
}

export function compileActions(
  { rewrite, redirect, respond, requestHeaders, responseHeaders }: RouteActions,
  kind: CompiledActions["kind"],
  path: string,
): CompiledActions {
  return {
    kind,
    path,
    rewrite: rewrite === undefined ? undefined : compileTemplate(rewrite),
    redirect: redirect && { to: compileTemplate(redirect.to), status: redirect.status },
    respond: respond && { status: respond.status, type: respond.type, body: Buffer.from(respond.body) },
    requestHeaders: requestHeaders && compileEdits(requestHeaders),
    responseHeaders: responseHeaders && compileEdits(responseHeaders),
  };
}
