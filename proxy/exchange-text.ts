import type { ClusterState } from "./cluster.ts";
import type { Exchange } from "./exchange.ts";
import type { FailureCode } from "./failure.ts";
import type { Lapse, Patience } from "./patience.ts";

/** Sentences about one exchange, for refusals and the log. */

/** Which proxy, listener, caller, service and instance it was about. */
export function whereOf({ context, origin, endpoint, binding, requestId }: Exchange): string {
  const { kind, from, id } = origin;
  const at = endpoint === undefined ? "" : `, instance ${endpoint.id}`;
  const to = binding === undefined ? "" : ` to ${binding.cluster}`;
  return `${context.name}, ${kind} listener ${id}, from ${from}${to}${at}; request ${requestId}`;
}

/** What it waited for in vain. */
export function waitedText({ context, binding, pendingMs }: Exchange, missing: FailureCode): string {
  const name = binding?.cluster ?? "";
  const what: Partial<Record<FailureCode, string>> = {
    no_cluster: `"${name}" is not in the configuration of this proxy (epoch ${context.mesh.epoch})`,
    no_endpoint: `"${name}" has no ready instance`,
    held: `"${name}" is held by an operator`,
    maintenance: `"${name}" is closed for maintenance`,
    overloaded: `every connection to "${name}" is in use`,
  };
  return `${what[missing] ?? missing}, waited ${pendingMs} ms`;
}

/** Which deadline passed, and how long it was. `responding`: the response had begun. */
export function lapseText(
  { request, requestComplete }: Exchange,
  lapse: Lapse,
  patience: Patience,
  responding: boolean,
  cluster: ClusterState | undefined,
): [FailureCode, string] {
  if (cluster === undefined || (lapse === "whole" && patience.callers)) {
    return ["deadline_exceeded", `the caller gave it ${request.deadlineMs} ms`];
  }
  const { policy, protocol } = cluster;
  if (lapse === "whole") {
    return ["request_timeout", `not answered completely within ${policy.requestTimeoutMs} ms`];
  }
  if (lapse === "answer") {
    return ["response_timeout", `no response within ${policy.answerTimeoutMs} ms, retries included`];
  }
  if (responding) {
    const who = patience.clientStalled ? "the client took no byte" : "no byte of the body came";
    return ["response_timeout", `${who} for ${patience.streamMs(policy)} ms`];
  }
  if (requestComplete) return ["response_timeout", `no response within ${policy.responseTimeoutMs} ms`];
  return ["body_timeout", `no byte of the request's body came for ${patience.bodyMs(protocol, policy)} ms`];
}
