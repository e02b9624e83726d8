import { UserError } from "../../base/errors.ts";
import type { Result } from "./messages.ts";
import type { PlainLog } from "./plain-log.ts";

/** Carries out what a worker asked for; whatever is thrown becomes an answer. */
export async function answerRequest(
  onRequest: ((body: unknown) => Promise<unknown>) | undefined,
  body: unknown,
  log: PlainLog,
): Promise<Result> {
  try {
    if (onRequest === undefined) {
      throw new UserError("This keeper takes no requests", { code: "no_requests", status: 404 });
    }
    return { ok: true, value: await onRequest(body) };
  } catch (error) {
    if (error instanceof UserError) {
      const { message, code, status, next } = error;
      return { ok: false, message, code, status, next };
    }
    log.error({ error: error instanceof Error ? error.stack : String(error) }, "a worker's request failed");
    return { ok: false, message: "The keeper failed; its log says why", code: "internal", status: 500 };
  }
}

/** What is thrown when a worker could not listen on a socket it was handed. */
export function listenError(told: { id: string; reason: string; code: string }): UserError {
  const taken = told.code === "EADDRINUSE";
  return new UserError(`Cannot listen on ${told.id}: ${told.reason}`, {
    code: taken ? "port_taken" : "listen_failed",
    status: 409,
    next: taken ? "Another process took the port; stop it or choose another." : undefined,
  });
}
