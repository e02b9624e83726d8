import type { RequestHead } from "../http1/request-head.ts";
import type { Answer } from "./answer.ts";
import type { CompiledActions } from "./compile.ts";
import { editFields } from "./header-edits.ts";
import { redirectLocation, rewrittenTarget } from "./target.ts";

const NO_BYTES = Buffer.alloc(0);

/** `go`: send it on. `bad`: what the client wrote makes no target. */
export type Verdict =
  | { readonly kind: "go" }
  | { readonly kind: "bad"; readonly what: string }
  | { readonly kind: "answer"; readonly answer: Answer };

const GO: Verdict = { kind: "go" };

/** What becomes of a request on a route with actions, before anybody is asked. Changes `request` into what is sent on. */
export function actOnRequest(
  actions: CompiledActions,
  request: RequestHead,
  targetBytesMax: number,
): Verdict {
  const { redirect, respond, rewrite, requestHeaders } = actions;
  if (redirect !== undefined) {
    const location = redirectLocation(actions, redirect.to, request);
    if (location === undefined) return { kind: "bad", what: "the path makes no URL to be sent to" };
    const fields = `location: ${location}\r\n`;
    return { kind: "answer", answer: { status: redirect.status, fields, body: NO_BYTES, reason: "" } };
  }
  if (respond !== undefined) {
    const fields = respond.body.length === 0 ? "" : `content-type: ${respond.type}\r\n`;
    return { kind: "answer", answer: { status: respond.status, fields, body: respond.body, reason: "" } };
  }
  if (rewrite !== undefined) {
    const target = rewrittenTarget(actions, rewrite, request, targetBytesMax);
    if (target === undefined) return { kind: "bad", what: "the path makes no target that could be sent on" };
    request.target = target;
  }
  if (requestHeaders !== undefined) request.fields = editFields(request.fields, requestHeaders);
  return GO;
}
