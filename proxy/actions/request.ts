import type { Random } from "../../base/random.ts";
import type { RequestHead } from "../http1/request-head.ts";
import type { Answer } from "./answer.ts";
import type { CompiledActions } from "./compile.ts";
import { isHit } from "./fault.ts";
import { editFields } from "./header-edits.ts";
import { rateLimitFields, rateLimitKey, wholeSeconds } from "./rate-limit.ts";
import { redirectLocation, rewrittenTarget } from "./target.ts";

const NO_BYTES = Buffer.alloc(0);

/** A request on a route with actions, and who sent it. */
export interface Asked {
  /** Changed into what is sent on. */
  readonly request: RequestHead;
  /** The calling service, or `edge`. */
  readonly from: string;
  readonly peerAddress: string;
  readonly nowMs: number;
  readonly random: Random;
  readonly targetBytesMax: number;
}

/** `fields` are lines for the response, whatever it is. */
export type Verdict =
  | { readonly kind: "go"; readonly fields: string }
  /** What the client wrote makes no target. */
  | { readonly kind: "bad"; readonly what: string }
  | { readonly kind: "answer"; readonly answer: Answer }
  /** Wait, then say `answer`, or go on without one. */
  | {
      readonly kind: "delay";
      readonly delayMs: number;
      readonly answer: Answer | undefined;
      readonly fields: string;
    };

const GO: Verdict = { kind: "go", fields: "" };

/** What becomes of a request before anybody is asked. */
export function actOnRequest(actions: CompiledActions, asked: Asked): Verdict {
  const { maintenance, fault } = actions;
  if (maintenance !== undefined) return { kind: "answer", answer: maintenance };
  let fields = "";
  if (actions.rateLimit !== undefined) {
    const { spec, limiter } = actions.rateLimit;
    const key = rateLimitKey(spec.key, asked.request, asked.from, asked.peerAddress);
    const grant = limiter.take(key, asked.nowMs);
    fields = rateLimitFields(spec, grant);
    if (!grant.allowed) return { kind: "answer", answer: tooMany(fields, grant.retryAfterMs) };
  }
  const verdict = goOrAnswer(actions, asked, fields);
  if (fault === undefined || verdict.kind !== "go" || !isHit(fault, asked.request, asked.random))
    return verdict;
  const answer = fault.abort === undefined ? undefined : aborted(fault.abort, fields);
  if (fault.delayMs !== undefined) return { kind: "delay", delayMs: fault.delayMs, answer, fields };
  return answer === undefined ? verdict : { kind: "answer", answer };
}

function goOrAnswer(actions: CompiledActions, asked: Asked, fields: string): Verdict {
  const { redirect, respond, rewrite, requestHeaders } = actions;
  const { request } = asked;
  if (redirect !== undefined) {
    const location = redirectLocation(actions, redirect.to, request);
    if (location === undefined) return { kind: "bad", what: "the path makes no URL to be sent to" };
    const lines = `${fields}location: ${location}\r\n`;
    return { kind: "answer", answer: { status: redirect.status, fields: lines, body: NO_BYTES, reason: "" } };
  }
  if (respond !== undefined) {
    const lines = respond.body.length === 0 ? fields : `${fields}content-type: ${respond.type}\r\n`;
    return {
      kind: "answer",
      answer: { status: respond.status, fields: lines, body: respond.body, reason: "" },
    };
  }
  if (rewrite !== undefined) {
    const target = rewrittenTarget(actions, rewrite, request, asked.targetBytesMax);
    if (target === undefined) return { kind: "bad", what: "the path makes no target that could be sent on" };
    request.target = target;
  }
  if (requestHeaders !== undefined) request.fields = editFields(request.fields, requestHeaders);
  return fields === "" ? GO : { kind: "go", fields };
}

function tooMany(fields: string, retryAfterMs: number): Answer {
  const seconds = Math.max(1, wholeSeconds(retryAfterMs));
  return ownAnswer(429, "rate_limited", `${fields}retry-after: ${seconds}\r\n`, `wait ${seconds} s`);
}

function aborted(status: number, fields: string): Answer {
  return ownAnswer(status, "fault_injected", fields, "`fault` of this route answers so on purpose");
}

/** Text for people, like every refusal of the proxy. */
function ownAnswer(
  status: number,
  reason: "rate_limited" | "fault_injected",
  fields: string,
  what: string,
): Answer {
  return {
    status,
    reason,
    fields: `content-type: text/plain; charset=utf-8\r\nx-gilliam-reason: ${reason}\r\n${fields}`,
    body: Buffer.from(`${status} ${reason}: ${what}\n`),
  };
}
