import { createReadStream } from "node:fs";
import type { IncomingMessage } from "node:http";
import type { z } from "zod";
import { errnoOf, messageOf, UserError } from "../base/errors.ts";
import { API_ROUTES, type ApiRouteName } from "../model/api-routes.ts";
import { Problem } from "../model/api.ts";
import { readLines, readText, sendRequest } from "./http.ts";

type Routes = typeof API_ROUTES;
type Part<N extends ApiRouteName, K extends string> =
  Routes[N] extends Record<K, infer S extends z.ZodType> ? { readonly [P in K]: z.input<S> } : unknown;
type Parameter<N extends ApiRouteName> = Routes[N]["path"] extends `${string}{name}${string}`
  ? { readonly name: string }
  : Routes[N]["path"] extends `${string}{id}${string}`
    ? { readonly id: string }
    : unknown;
export type Call<N extends ApiRouteName> = Parameter<N> & Part<N, "body"> & Part<N, "query">;
export type Answer<N extends ApiRouteName> = z.output<Routes[N]["answer"]>;

export interface ClientOptions {
  readonly baseUrl: string;
  readonly token: string | undefined;
  /** How to start the platform, for messages. */
  readonly startHint: string;
  readonly signal: AbortSignal;
}

const SILENCE_MS_MAX = 60_000;
/** Looking is quick for control; a person who asks wants to know soon that it hangs. */
const READ_SILENCE_MS_MAX = 15_000;

/** Speaks to control; every failure becomes a UserError that says what, where and what next. */
export class ControlClient {
  readonly #options: ClientOptions;
  constructor(options: ClientOptions) {
    this.#options = options;
  }

  get baseUrl(): string {
    return this.#options.baseUrl;
  }

  /** Calls a route and checks its answer against the model. */
  async call<N extends ApiRouteName>(name: N, call: Call<N>): Promise<Answer<N>> {
    const isRead = API_ROUTES[name].method === "GET";
    const answer = await this.#send(name, call, isRead ? READ_SILENCE_MS_MAX : SILENCE_MS_MAX);
    const text = await this.#reading(() => readText(answer));
    return this.#parsed(name, text);
  }

  /** Calls a route that answers line by line; `signal` ends it. */
  async *stream<N extends ApiRouteName>(
    name: N,
    call: Call<N>,
    signal = this.#options.signal,
  ): AsyncGenerator<Answer<N>> {
    const answer = await this.#send(name, call, 0, signal);
    try {
      for await (const line of readLines(answer)) yield this.#parsed(name, line);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof UserError) throw error;
      throw this.#unreachable(error, "the connection broke", "connection_lost");
    } finally {
      answer.destroy();
    }
  }

  /** Whether control has an archive already. */
  async hasBlob(digest: string): Promise<boolean> {
    const answer = await this.#request("HEAD", `/v1/blobs/${digest}`, { silenceMsMax: SILENCE_MS_MAX });
    answer.resume();
    if (answer.statusCode === 200 || answer.statusCode === 204) return true;
    if (answer.statusCode === 404) return false;
    throw refusal(answer.statusCode ?? 0, "", `HEAD /v1/blobs/${digest}`);
  }

  async putBlob(digest: string, path: string, size: number): Promise<void> {
    const answer = await this.#request("PUT", `/v1/blobs/${digest}`, {
      headers: { "content-type": "application/octet-stream", "content-length": String(size) },
      body: createReadStream(path),
      silenceMsMax: SILENCE_MS_MAX,
    });
    const text = await this.#reading(() => readText(answer));
    const status = answer.statusCode ?? 0;
    if (status >= 300) throw refusal(status, text, `PUT /v1/blobs/${digest}`);
  }

  async #send<N extends ApiRouteName>(
    name: N,
    call: Call<N>,
    silenceMsMax: number,
    signal?: AbortSignal,
  ): Promise<IncomingMessage> {
    const route = API_ROUTES[name];
    const given = call as {
      name?: string;
      id?: string;
      query?: Record<string, string | undefined>;
      body?: unknown;
    };
    const query = new URLSearchParams(
      Object.entries(given.query ?? {}).filter((pair): pair is [string, string] => pair[1] !== undefined),
    );
    const path = route.path
      .replace("{name}", encodeURIComponent(given.name ?? ""))
      .replace("{id}", encodeURIComponent(given.id ?? ""));
    const target = query.size === 0 ? path : `${path}?${query.toString()}`;
    const answer = await this.#request(route.method, target, {
      ...(route.method === "POST"
        ? { headers: { "content-type": "application/json" }, body: JSON.stringify(given.body ?? {}) }
        : {}),
      silenceMsMax,
      ...(signal ? { signal } : {}),
    });
    const status = answer.statusCode ?? 0;
    if (status >= 200 && status < 300) return answer;
    const text = await this.#reading(() => readText(answer));
    throw refusal(status, text, `${route.method} ${target}`);
  }

  async #request(
    method: string,
    target: string,
    {
      headers = {},
      signal = this.#options.signal,
      ...rest
    }: {
      headers?: Record<string, string>;
      body?: string | ReturnType<typeof createReadStream>;
      silenceMsMax: number;
      signal?: AbortSignal;
    },
  ): Promise<IncomingMessage> {
    const { token, baseUrl } = this.#options;
    const length =
      typeof rest.body === "string" ? { "content-length": String(Buffer.byteLength(rest.body)) } : {};
    try {
      return await sendRequest({
        method,
        url: new URL(baseUrl.replace(/\/+$/, "") + target),
        headers: {
          accept: "application/json, application/problem+json, application/x-ndjson",
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...length,
          ...headers,
        },
        ...rest,
        signal,
      });
    } catch (error) {
      throw this.#unreachable(error, reasonOf(error));
    }
  }

  async #reading<T>(read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      throw this.#unreachable(error, "the connection broke");
    }
  }

  /** `connection_lost`: it was there and answered, then the stream broke. */
  #unreachable(
    cause: unknown,
    reason: string,
    code: "control_unreachable" | "connection_lost" = "control_unreachable",
  ): UserError {
    const { baseUrl, startHint, signal } = this.#options;
    if (signal.aborted) return new UserError("Stopped", { code: "interrupted", cause });
    return new UserError(`Cannot reach Gilliam's control at ${baseUrl}: ${reason}`, {
      code,
      status: 503,
      next: `Is it running? ${startHint}`,
      cause,
    });
  }

  #parsed<N extends ApiRouteName>(name: N, text: string): Answer<N> {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw strangeAnswer(this.baseUrl, name, messageOf(error));
    }
    const parsed = API_ROUTES[name].answer.safeParse(value);
    if (!parsed.success) {
      const first = parsed.error.issues[0];
      throw strangeAnswer(this.baseUrl, name, `${first?.path.join(".")}: ${first?.message}`);
    }
    return parsed.data as Answer<N>;
  }
}

function strangeAnswer(baseUrl: string, name: string, what: string): UserError {
  return new UserError(`Cannot understand the answer to "${name}" from ${baseUrl}: ${what}`, {
    code: "strange_answer",
    status: 502,
    next: "Is that Gilliam's control, of the same version as this command? See `gilliam --version` and `gilliam status`.",
  });
}

/** A problem+json answer as the error it describes; any other body as far as it goes. */
function refusal(status: number, text: string, what: string): UserError {
  const parsed = Problem.safeParse(jsonOrNothing(text));
  const hint = status === 401 || status === 403 ? TOKEN_HINT : undefined;
  if (parsed.success) {
    const { detail, code, next, problems, title } = parsed.data;
    return new UserError(detail === "" ? title : detail, {
      code,
      status,
      next: code === "no_such_formation" ? `${next ?? ""} Make it: gilliam deploy`.trim() : (next ?? hint),
      problems: problems ?? [],
    });
  }
  return new UserError(
    `Control answered ${status} to ${what}${text === "" ? "" : `: ${text.slice(0, 200)}`}`,
    {
      code: "refused",
      status,
      next: status === 401 || status === 403 ? TOKEN_HINT : undefined,
    },
  );
}

const TOKEN_HINT =
  "The token was not accepted: set GILLIAM_TOKEN, or point --state at the folder of the platform you mean.";

function jsonOrNothing(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function reasonOf(error: unknown): string {
  switch (errnoOf(error)) {
    case "ECONNREFUSED":
      return "connection refused";
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return "no such host name";
    case "ECONNRESET":
    case "EPIPE":
      return "the connection broke";
    case undefined:
    default:
      return messageOf(error);
  }
}
