import type { EngineContext } from "./context.ts";
import type { AccessEvent } from "./engine.ts";
import type { Exchange } from "./exchange.ts";
import { type FailureCode, STATUS_BY_CODE } from "./failure.ts";

/** Counts an exchange that is over and tells whoever keeps the access log. */
export function recordExchange(exchange: Exchange): void {
  const { context, origin, request, binding, endpoint, status, reason } = exchange;
  const durationMs = context.clock.nowMs() - exchange.startedMs;
  const failed = status >= 500 || (reason !== "" && reason !== "client_gone");
  context.stats.inFlight -= 1;
  const release = endpoint?.release ?? 0;
  binding?.stats(release).count(status, failed, durationMs);
  if (reason !== "") context.stats.refused(reason);
  if (context.onAccess === undefined) return;
  tellAccess(context, {
    listener: origin.id,
    kind: exchange.upgraded ? "upgrade" : "http",
    method: request.method,
    path: exchange.clientTarget === "" ? request.target : exchange.clientTarget,
    host: request.host,
    from: origin.from,
    client: request.client.address,
    cluster: binding?.cluster ?? "",
    endpoint: endpoint?.id ?? "",
    release,
    status,
    durationMs,
    bytesIn: exchange.bytesIn,
    bytesOut: exchange.bytesOut,
    retries: exchange.retries,
    reason,
    requestId: exchange.requestId,
    notes: exchange.notes,
  });
}

/** Tells of a request that was refused before it became an exchange; `about` is what is known of it. */
export function recordRefusal(
  context: EngineContext,
  listener: { readonly id: string; readonly from: string },
  client: string,
  reason: FailureCode,
  requestId: string,
  about: Partial<Pick<AccessEvent, "method" | "path" | "host" | "durationMs">> = {},
): void {
  context.stats.refused(reason);
  tellAccess(context, {
    listener: listener.id,
    kind: "http",
    method: "",
    path: "",
    host: "",
    from: listener.from,
    client,
    cluster: "",
    endpoint: "",
    release: 0,
    status: STATUS_BY_CODE[reason],
    durationMs: 0,
    bytesIn: 0,
    bytesOut: 0,
    retries: 0,
    reason,
    requestId,
    ...about,
  });
}

/** A listener to events that throws is a fault of its own, and no reason to leave an exchange unfinished. */
export function tellAccess({ onAccess, onFault }: EngineContext, event: AccessEvent): void {
  try {
    onAccess?.(event);
  } catch (error) {
    onFault(error);
  }
}
