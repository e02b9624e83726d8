import { EventEmitter } from "node:events";
import http from "node:http";
import https from "node:https";
import Consul from "consul";
import { UserError, errnoOf, messageOf } from "../../base/errors.ts";

export interface ConsulAddress {
  /** `http://127.0.0.1:8500` or `https://…`. */
  readonly url: string;
  /** Asked before every call, so that a renewed token counts at once; "" for none. */
  readonly token: () => string;
  readonly datacenter?: string;
  /** PEM texts. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
}

export interface ConsulAnswer<T> {
  readonly status: number;
  readonly body: T;
  /** `X-Consul-Index`; 0 when there is none. */
  readonly index: number;
}

export interface CallOptions {
  readonly query?: Readonly<Record<string, string | number>>;
  readonly body?: unknown;
  /** Sent as it is, not as JSON. */
  readonly raw?: Buffer;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Statuses beside 2xx that are answers, not failures. */
  readonly accept?: readonly number[];
}

export type ConsulTrouble = "unreachable" | "timeout" | "leaderless" | "forbidden" | "refused";

/** Consul cannot be asked, or will not say. `trouble` tells which; the message says it to people. */
export class ConsulError extends UserError {
  readonly trouble: ConsulTrouble;

  constructor(trouble: ConsulTrouble, url: string, detail: string, cause?: unknown) {
    super(`Consul at ${url} ${SAYS[trouble]}: ${detail}`, {
      code: "registry_unavailable",
      status: 503,
      next: NEXT[trouble],
      cause,
    });
    this.trouble = trouble;
  }
}

const SAYS: Record<ConsulTrouble, string> = {
  unreachable: "cannot be reached",
  timeout: "does not answer",
  leaderless: "has no leader",
  forbidden: "does not accept the token",
  refused: "refused the request",
};
const NEXT: Record<ConsulTrouble, string> = {
  unreachable:
    "Check that Consul runs there (consul members) and that the address is right; what runs goes on.",
  timeout: "Check its servers (consul operator raft list-peers); what runs goes on, and it is tried again.",
  leaderless: "A majority of its servers must be up (consul operator raft list-peers); what runs goes on.",
  forbidden:
    "Give it a valid token with the rules that `gilliam consul policy` prints; no restart is needed.",
  refused: "Read Consul's own log; what runs goes on.",
};

/** What Consul's answers 500 and 503 say while an election is under way or a majority is missing. */
const LEADERLESS =
  /no cluster leader|no leader|leadership lost|not the leader|raft is already|rpc error.*(?:dial|closed|EOF|connection|timeout)|failed to get conn/i;
export const CALL_MS = 10_000;

/** papi, below the npm client, offers the four verbs to those who extend it. */
interface Papi {
  _request(options: object): Promise<Answer>;
}
interface Answer {
  readonly statusCode: number;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: unknown;
}

/**
 * Calls to Consul's HTTP API; the one place that knows the npm client. That client has no typed way to the index of an
 * answer, to checks of a session or to a transaction's errors, so calls go through its request method by path.
 */
export class ConsulClient {
  readonly url: string;
  readonly #address: ConsulAddress;
  readonly #consul: Consul;
  #calls = 0;

  constructor(address: ConsulAddress) {
    this.url = address.url.replace(/\/+$/, "");
    this.#address = address;
    const isTls = this.url.startsWith("https:");
    const agent = isTls
      ? new https.Agent({ keepAlive: true, ...address.tls })
      : new http.Agent({ keepAlive: true });
    this.#consul = new Consul({ baseUrl: `${this.url}/v1`, agent } as ConstructorParameters<
      typeof Consul
    >[0]);
  }

  /** Requests sent since it was made: how a storm is told from patience. */
  get calls(): number {
    return this.#calls;
  }

  /** @throws ConsulError, or the signal's reason when aborted */
  async call<T>(method: string, path: string, options: CallOptions = {}): Promise<ConsulAnswer<T>> {
    const { query, body, raw, timeoutMs = CALL_MS, signal, accept = [] } = options;
    signal?.throwIfAborted();
    const context = new EventEmitter();
    const onAbort = () => void context.emit("cancel");
    signal?.addEventListener("abort", onAbort, { once: true });
    const token = this.#address.token();
    this.#calls += 1;
    try {
      const answer = await (this.#consul as unknown as Papi)._request({
        method,
        path,
        query: { ...(this.#address.datacenter ? { dc: this.#address.datacenter } : {}), ...query },
        headers: token === "" ? {} : { "x-consul-token": token },
        ...(raw === undefined ? (body === undefined ? {} : { body, type: "json" }) : { body: raw }),
        timeout: timeoutMs,
        ctx: context,
      });
      return answerOf<T>(answer);
    } catch (error) {
      signal?.throwIfAborted();
      const response = (error as { response?: Answer }).response;
      if (response !== undefined && accept.includes(response.statusCode)) return answerOf<T>(response);
      throw this.#told(error, response, timeoutMs);
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  close(): void {
    this.#consul.destroy();
  }

  #told(error: unknown, response: Answer | undefined, timeoutMs: number): ConsulError {
    if (response === undefined) {
      const timedOut = (error as { isTimeout?: boolean }).isTimeout === true;
      return timedOut
        ? new ConsulError("timeout", this.url, `nothing came within ${timeoutMs / 1000} s`, error)
        : new ConsulError("unreachable", this.url, errnoOf(error) ?? messageOf(error), error);
    }
    const text = textOf(response.body);
    const trouble =
      response.statusCode === 403
        ? "forbidden"
        : response.statusCode >= 500 && LEADERLESS.test(text)
          ? "leaderless"
          : "refused";
    return new ConsulError(trouble, this.url, `${response.statusCode} ${text}`.trim(), error);
  }
}

function answerOf<T>({ statusCode, headers, body }: Answer): ConsulAnswer<T> {
  const index = Number(headers["x-consul-index"] ?? 0);
  return { status: statusCode, body: body as T, index: Number.isSafeInteger(index) ? index : 0 };
}

function textOf(body: unknown): string {
  if (typeof body === "string") return body.trim().slice(0, 300);
  if (Buffer.isBuffer(body)) return body.toString("utf8").trim().slice(0, 300);
  return body === undefined || body === null ? "" : JSON.stringify(body).slice(0, 300);
}
