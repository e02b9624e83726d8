import type { Clock } from "../base/clock.ts";
import { UserError, messageOf } from "../base/errors.ts";

export interface ExecutorsParts {
  /** Where the executor of a host is reached; undefined when the host is not known. */
  readonly urlOf: (hostId: string) => string | undefined;
  readonly hostToken: string;
  readonly clock: Clock;
  /** How long to wait for the head of an answer, in milliseconds. */
  readonly timeoutMs: number;
}

/** A line is cut off beyond this: no executor sends longer ones. */
const LINE_BYTES_MAX = 2 * 1024 * 1024;

/** Asks the executors of hosts over HTTP: logs, exec, run, build output. */
export class Executors {
  readonly #parts: ExecutorsParts;

  constructor(parts: ExecutorsParts) {
    this.#parts = parts;
  }

  /**
   * Sends a request and resolves with the answer once its head is there; the body has no time limit.
   * @throws UserError "executor_unreachable" (502), or what the executor itself refused
   */
  async ask(
    hostId: string,
    path: string,
    { body, signal }: { body?: unknown; signal: AbortSignal },
  ): Promise<Response> {
    const { urlOf, hostToken, clock, timeoutMs } = this.#parts;
    const url = urlOf(hostId);
    if (url === undefined) throw unreachable(hostId, "it has never reported to this control");
    const slow = new AbortController();
    const timer = clock.after(timeoutMs, () =>
      slow.abort(new Error(`no answer within ${Math.round(timeoutMs / 1000)} s`)),
    );
    let response: Response;
    try {
      response = await fetch(`${url.replace(/\/$/, "")}${path}`, {
        method: body === undefined ? "GET" : "POST",
        headers: {
          authorization: `Bearer ${hostToken}`,
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        signal: AbortSignal.any([slow.signal, signal]),
        redirect: "error",
      });
    } catch (error) {
      throw unreachable(hostId, messageOf(slow.signal.aborted ? slow.signal.reason : error));
    } finally {
      timer[Symbol.dispose]();
    }
    if (response.ok) return response;
    throw await refusal(hostId, response);
  }

  /** The lines of an NDJSON answer, without their ends; ends quietly when aborted. */
  async *lines(response: Response): AsyncGenerator<string> {
    if (response.body === null) return;
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      rest += decoder.decode(chunk, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > LINE_BYTES_MAX) throw new Error("a line of the executor's answer is too long");
      for (const text of lines) if (text !== "") yield text;
    }
    if (rest !== "") yield rest;
  }
}

async function refusal(hostId: string, response: Response): Promise<UserError> {
  const text = (await response.text().catch(() => "")).slice(0, 64_000);
  try {
    const told = JSON.parse(text) as { detail?: unknown; code?: unknown; next?: unknown };
    if (typeof told.detail === "string" && typeof told.code === "string" && response.status < 500) {
      return new UserError(told.detail, {
        code: told.code,
        // The token between us is not the caller's: its trouble is ours.
        status: response.status === 401 || response.status === 403 ? 502 : response.status,
        ...(typeof told.next === "string" ? { next: told.next } : {}),
      });
    }
  } catch {
    // Not a problem document: told as it is below.
  }
  return new UserError(`The executor of host ${hostId} answered ${response.status}: ${text.slice(0, 300)}`, {
    code: "executor_failed",
    status: 502,
    next: `Look into the executor's log on host ${hostId}.`,
  });
}

function unreachable(hostId: string, why: string): UserError {
  return new UserError(`The executor of host ${hostId} cannot be reached: ${why}`, {
    code: "executor_unreachable",
    status: 502,
    next: `Check that the executor runs on host ${hostId}: gilliam hosts.`,
  });
}
