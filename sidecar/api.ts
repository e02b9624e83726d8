import type Http from "node:http";
import net from "node:net";
import { z } from "zod";
import type { Clock } from "../base/clock.ts";
import { UserError, messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { http } from "../base/node-http.ts";
import { LocalPortsRequest } from "../model/local-ports.ts";
import { closeServer } from "../proxy/agent/admin.ts";

/** What the worker asks of its keeper. */
export type PortsRequest =
  | { readonly verb: "put"; readonly request: LocalPortsRequest }
  | { readonly verb: "delete"; readonly instanceId: string }
  | { readonly verb: "list" };

export interface LocalPortsApiOptions {
  /** Carried out by the keeper, which owns the sockets. */
  readonly ask: (request: PortsRequest) => Promise<unknown>;
  readonly clock: Clock;
  readonly log: Log;
}

const BODY_BYTES_MAX = 256 * 1024;

/** model/local-ports.ts over HTTP on the Unix socket. */
export class LocalPortsApi {
  readonly #options: LocalPortsApiOptions;
  readonly #server: Http.Server;
  #handle: PipeHandle | undefined;

  constructor(options: LocalPortsApiOptions) {
    this.#options = options;
    const limits = { headersTimeout: 5_000, requestTimeout: 10_000 };
    this.#server = http.createServer(limits, (request, response) => {
      void this.#answer(request, response);
    });
  }

  /** Serves on a Unix socket that came over IPC; `Server.listen` takes only TCP handles. */
  listen(handle: unknown): void {
    const pipe = handle as PipeHandle;
    pipe.onconnection = (status, client) => {
      if (status !== 0) return;
      this.#server.emit(
        "connection",
        new net.Socket({ handle: client, readable: true, writable: true } as object),
      );
    };
    const error = pipe.listen(128);
    if (error !== 0) throw new Error(`cannot listen on the local-ports socket: errno ${error}`);
    this.#handle = pipe;
  }

  async close(): Promise<void> {
    this.#handle?.close();
    await closeServer(this.#server, this.#options.clock, 5_000);
  }

  async #answer(request: Http.IncomingMessage, response: Http.ServerResponse): Promise<void> {
    try {
      const { status, body } = await this.#route(request);
      send(response, status, "application/json", body);
    } catch (error) {
      if (!(error instanceof UserError))
        this.#options.log.error({ reason: messageOf(error) }, "local-ports failed");
      const { status, ...body } = problemOf(error);
      send(response, status, "application/problem+json", { ...body, status });
    }
  }

  async #route(request: Http.IncomingMessage): Promise<{ status: number; body: unknown }> {
    const { method = "GET", url = "/" } = request;
    if (url === "/v1/instances" && method === "GET") {
      return { status: 200, body: await this.#options.ask({ verb: "list" }) };
    }
    const id = instanceIdOf(url);
    if (id !== undefined && method === "PUT") {
      const body = parseRequest(await readBody(request), id);
      return { status: 200, body: await this.#options.ask({ verb: "put", request: body }) };
    }
    if (id !== undefined && method === "DELETE") {
      return { status: 200, body: await this.#options.ask({ verb: "delete", instanceId: id }) };
    }
    throw new UserError(`There is no ${method} ${url}`, {
      code: "no_route",
      status: 404,
      next: "Use PUT or DELETE /v1/instances/{id}, or GET /v1/instances.",
    });
  }
}

interface PipeHandle {
  onconnection: (status: number, client: unknown) => void;
  listen(backlog: number): number;
  close(): void;
}

function instanceIdOf(url: string): string | undefined {
  const match = /^\/v1\/instances\/([^/?]{1,200})$/.exec(url);
  if (match?.[1] === undefined) return undefined;
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return undefined;
  }
}

async function readBody(request: Http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) {
      throw new UserError(`The request is larger than ${BODY_BYTES_MAX} bytes`, {
        code: "too_large",
        status: 413,
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseRequest(text: string, id: string): LocalPortsRequest {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new UserError("The request's body is not JSON", { code: "bad_json", cause: error });
  }
  const parsed = LocalPortsRequest.safeParse(json);
  if (!parsed.success) {
    throw new UserError("The request does not fit the schema of model/local-ports.ts", {
      code: "bad_request",
      problems: z.prettifyError(parsed.error).split("\n"),
    });
  }
  if (parsed.data.instanceId !== id) {
    throw new UserError(`The path names instance ${id}, the body ${parsed.data.instanceId}`, {
      code: "bad_request",
    });
  }
  return parsed.data;
}

/** RFC 9457, as model/api.ts has it. */
function problemOf(error: unknown) {
  if (error instanceof UserError) {
    const { code, message, next, problems, status } = error;
    return { type: `urn:gilliam:${code}`, title: code, status, detail: message, code, next, problems };
  }
  return {
    type: "urn:gilliam:internal",
    title: "internal",
    status: 500,
    detail: "The sidecar failed; its log says why",
    code: "internal",
  };
}

function send(response: Http.ServerResponse, status: number, type: string, body: unknown): void {
  response.writeHead(status, { "content-type": type }).end(JSON.stringify(body));
}
