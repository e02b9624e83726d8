import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { StringDecoder } from "node:string_decoder";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { Clock } from "../base/clock.ts";
import { UserError, messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { MetricsRegistry } from "../base/metrics.ts";
import { ExecRequest, type ExecMessage, type LogLine } from "../model/api.ts";
import { ExecutorRunRequest, LogsQuery, type ShutdownMessage } from "../model/executor-api.ts";
import type { Agent } from "./agent.ts";
import { runOneOff } from "./one-off.ts";
import type { RunnerParts } from "./runner.ts";

export interface ApiOptions {
  readonly agent: Agent;
  readonly parts: RunnerParts;
  readonly token: string;
  readonly metrics: MetricsRegistry;
  readonly clock: Clock;
  readonly log: Log;
  /** Called when everything has been stopped on request. */
  readonly onShutdown: () => void;
}

/** A client that does not read has this much kept for it, in bytes; then it is cut off. */
const UNREAD_BYTES_MAX = 64 * 1024 * 1024;
/** Without a number of lines, a log answers with at most this many, the last ones. */
const TAIL_MAX = 100_000;
const BODY_BYTES_MAX = 64 * 1024 * 1024;
const OPEN_PATHS = new Set(["/healthz", "/metrics"]);

/** The executor's HTTP API; its shapes are in model/executor-api.ts. */
export function createApi(options: ApiOptions): FastifyInstance {
  const { agent, parts, metrics, log } = options;
  const app = fastify({ bodyLimit: BODY_BYTES_MAX, forceCloseConnections: true });

  app.addHook("onRequest", async (request) => {
    if (!OPEN_PATHS.has(request.url) && !isAuthorized(request, options.token)) {
      throw new UserError("This needs the host token", {
        code: "unauthorized",
        status: 401,
        next: "Send `authorization: Bearer TOKEN`.",
      });
    }
  });
  app.setErrorHandler((error, _request, reply) => sendProblem(reply, error, log));
  app.setNotFoundHandler((request) => {
    throw new UserError(`The executor has no ${request.method} ${request.url}`, {
      code: "not_found",
      status: 404,
    });
  });

  app.get("/healthz", () => ({ status: "ok", hostId: parts.hostId, instances: agent.statuses().length }));
  app.get("/metrics", async (_request, reply) => {
    return reply.type(metrics.contentType).send(await metrics.metrics());
  });
  app.get("/v1/instances", () => ({ instances: agent.statuses() }));
  app.get("/v1/logs", (request, reply) => sendLogs(options, parse(LogsQuery, request.query), reply));
  app.get<{ Params: { image: string } }>("/v1/builds/:image/log", (request, reply) => {
    const text = parts.images.buildLog(request.params.image);
    if (text === undefined) {
      throw new UserError(`Image ${request.params.image} was never built on this host`, {
        code: "no_build",
        status: 404,
      });
    }
    return reply.type("text/plain; charset=utf-8").send(text);
  });
  app.post<{ Params: { id: string } }>("/v1/instances/:id/exec", (request, reply) => {
    const { command, stdin } = parse(ExecRequest, request.body);
    const runner = agent.get(request.params.id);
    const context = runner.execContext();
    return streamExec(reply, (onOutput, signal) =>
      parts.driver.exec({
        instanceId: runner.instanceId,
        ...context,
        command,
        stdin: stdin === undefined ? undefined : Buffer.from(stdin, "base64"),
        onOutput,
        signal,
      }),
    );
  });
  app.post("/v1/run", (request, reply) => {
    const { spec, command, stdin } = parse(ExecutorRunRequest, request.body);
    const suffix = randomBytes(4).toString("hex");
    return streamExec(reply, (onOutput, signal) =>
      runOneOff(parts, {
        spec,
        command,
        suffix,
        stdin: stdin === undefined ? undefined : Buffer.from(stdin, "base64"),
        onOutput,
        signal,
      }),
    );
  });
  app.post("/v1/shutdown", async (_request, reply) => {
    const send = beginStream(reply);
    await agent.shutdown((text) => send({ kind: "progress", text } satisfies ShutdownMessage));
    send({ kind: "done" } satisfies ShutdownMessage);
    reply.raw.end();
    options.onShutdown();
  });
  return app;
}

async function sendLogs(
  { parts, clock }: ApiOptions,
  { formation, service, instance, tail = TAIL_MAX, sinceMs = 0, follow }: LogsQuery,
  reply: FastifyReply,
): Promise<void> {
  const filter = { formation, service, instanceId: instance };
  const send = beginStream(reply);
  const pass = (line: LogLine) => {
    if (line.atMs >= sinceMs) send(line);
  };
  if (tail !== 0) for (const line of parts.logs.tail(filter, tail)) pass(line);
  if (follow === "true" && !reply.raw.destroyed) {
    using _following = parts.logs.follow(filter, pass);
    // Something to write now and then, so that a reader who went away without a word is noticed.
    using _alive = clock.every(15_000, () => void reply.raw.write("\n"));
    await once(reply.raw, "close");
  }
  reply.raw.end();
}

type RunExec = (
  onOutput: (stream: "stdout" | "stderr", bytes: Buffer) => void,
  signal: AbortSignal,
) => Promise<number>;

/** Answers with lines of ExecMessage; a client that leaves aborts the command. */
async function streamExec(reply: FastifyReply, run: RunExec): Promise<void> {
  const abort = new AbortController();
  reply.raw.on("close", () => abort.abort(new Error("the client left")));
  const send = beginStream(reply);
  // A character may be cut by the end of a read; its first bytes wait for the rest.
  const decoders = { stdout: new StringDecoder("utf8"), stderr: new StringDecoder("utf8") };
  const sendOutput = (stream: "stdout" | "stderr", data: string) => {
    if (data !== "") send({ kind: "output", stream, data } satisfies ExecMessage);
  };
  try {
    const code = await run(
      (stream, bytes) => sendOutput(stream, decoders[stream].write(bytes)),
      abort.signal,
    );
    for (const stream of ["stdout", "stderr"] as const) sendOutput(stream, decoders[stream].end());
    send({ kind: "exit", code } satisfies ExecMessage);
  } catch (error) {
    send({ kind: "failed", message: messageOf(error) } satisfies ExecMessage);
  }
  reply.raw.end();
}

/** Takes the answer over as NDJSON; returns what writes one line. */
function beginStream(reply: FastifyReply): (line: unknown) => void {
  reply.hijack();
  const response: ServerResponse = reply.raw;
  response.on("error", () => undefined); // The client left; `close` tells.
  response.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store" });
  response.flushHeaders();
  return (line) => {
    if (response.destroyed || response.writableEnded) return;
    response.write(`${JSON.stringify(line)}\n`);
    if (response.writableLength > UNREAD_BYTES_MAX) response.destroy();
  };
}

function parse<T>(
  schema: {
    safeParse(
      value: unknown,
    ):
      | { success: true; data: T }
      | { success: false; error: Error & { issues: readonly { path: PropertyKey[]; message: string }[] } };
  },
  value: unknown,
): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new UserError("The request does not have the right shape", {
    code: "bad_request",
    problems: parsed.error.issues.map(({ path, message }) => `${path.map(String).join(".")}: ${message}`),
    cause: parsed.error,
  });
}

function isAuthorized(request: FastifyRequest, token: string): boolean {
  const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? "")?.[1] ?? "";
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
}

function sendProblem(reply: FastifyReply, error: unknown, log: Log): FastifyReply {
  const known = error instanceof UserError ? error : undefined;
  const status = known?.status ?? (error as { statusCode?: number }).statusCode ?? 500;
  if (status >= 500) log.error({ err: error }, "request failed");
  return reply
    .status(status)
    .type("application/problem+json")
    .send({
      type: "about:blank",
      title: known === undefined ? "The executor failed" : known.message,
      status,
      detail: messageOf(error),
      code: known?.code ?? "internal",
      ...(known?.next === undefined ? {} : { next: known.next }),
      ...(known === undefined || known.problems.length === 0 ? {} : { problems: known.problems }),
    });
}
