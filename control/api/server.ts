import swagger from "@fastify/swagger";
import fastify, { type FastifyInstance, type FastifyRequest, type FastifySchema } from "fastify";
import { z } from "zod";
import { UserError, messageOf } from "../../base/errors.ts";
import { Authorizer } from "./auth.ts";
import { blobRoutes } from "./blobs.ts";
import { eventRoutes } from "./events.ts";
import { feedRoutes } from "./feed.ts";
import { formationRoutes } from "./formations.ts";
import { hostRoutes } from "./hosts.ts";
import { instanceRoutes } from "./instances.ts";
import type { ApiParts } from "./parts.ts";
import { platformRoutes } from "./platform.ts";
import { problem, problemOf } from "./problems.ts";
import { compileValidator } from "./route.ts";

/** The HTTP API, not listening yet. Layers from the outside in: limits, authorization, parsing, route, problems. */
export async function createApi(parts: ApiParts): Promise<FastifyInstance> {
  const { limits, log, tokens, onRequest, clock } = parts;
  const app = fastify({
    bodyLimit: limits.bodyBytesMax,
    requestTimeout: limits.requestMsMax,
    keepAliveTimeout: 30_000,
    connectionTimeout: 0, // Streams are quiet for a while; their own beats find the dead ones.
    routerOptions: { maxParamLength: 300 },
    forceCloseConnections: true,
    exposeHeadRoutes: false,
    clientErrorHandler: (error, socket) => {
      if (!socket.writable) return;
      const { status, text } = clientProblem(error);
      const told = JSON.stringify(problem(status, "bad_request", text));
      socket.end(
        `HTTP/1.1 ${status} Bad Request\r\nconnection: close\r\ncontent-type: application/problem+json\r\n` +
          `content-length: ${Buffer.byteLength(told)}\r\n\r\n${told}`,
      );
    },
  });
  app.server.maxConnections = limits.connectionsMax;
  app.setValidatorCompiler(compileValidator);
  app.setSerializerCompiler(({ schema, httpStatus }) => {
    if (limits.checkAnswers && httpStatus === "200") {
      return (data) => JSON.stringify((schema as z.ZodType).parse(data));
    }
    return (data) => JSON.stringify(data);
  });
  app.removeContentTypeParser("text/plain");
  // Archives come as a stream; everything else is JSON.
  app.addContentTypeParser("application/octet-stream", (_request, payload, done) => done(null, payload));
  app.addContentTypeParser("application/x-tar", (_request, payload, done) => done(null, payload));

  // Before everything else: an unknown path says so to anybody, a known one only to whoever may use it.
  const authorizer = new Authorizer(tokens);
  app.addHook("onRequest", async (request) => {
    if (request.is404) return;
    authorizer.check(request.headers.authorization, request.routeOptions.config.access ?? "admin");
  });
  const started = new WeakMap<FastifyRequest, number>();
  app.addHook("onRequest", async (request) => void started.set(request, clock.nowMs()));
  app.addHook("onResponse", async (request, reply) => {
    const durationMs = clock.nowMs() - (started.get(request) ?? clock.nowMs());
    onRequest(request.routeOptions.url ?? "(unknown)", request.method, reply.statusCode, durationMs);
  });

  app.setErrorHandler(async (error, request, reply) => {
    const told = problemOf(error);
    if (told.status >= 500) {
      const cause = error instanceof UserError ? messageOf(error) : error;
      log.error({ err: cause, method: request.method, route: request.routeOptions.url }, "a request failed");
    }
    await reply.code(told.status).type("application/problem+json").send(JSON.stringify(told));
  });
  app.setNotFoundHandler(async (request, reply) => {
    const told = problem(
      404,
      "no_such_route",
      `There is no ${request.method} ${request.url.split("?")[0]}`,
      "GET /v1/openapi.json lists every route.",
    );
    await reply.code(404).type("application/problem+json").send(JSON.stringify(told));
  });

  await app.register(swagger, {
    exposeHeadRoutes: true,
    openapi: {
      openapi: "3.1.0",
      info: { title: "Gilliam control", version: parts.version },
      components: { securitySchemes: { bearer: { type: "http", scheme: "bearer" } } },
    },
    transform: ({ schema, url }) => ({ schema: describe(schema), url }),
  });
  for (const routes of [
    platformRoutes,
    blobRoutes,
    formationRoutes,
    instanceRoutes,
    hostRoutes,
    feedRoutes,
    eventRoutes,
  ]) {
    routes(app, parts);
  }
  await app.ready();
  return app;
}

/** A route's zod schemas as JSON Schema, the way @fastify/swagger wants them. */
function describe(schema: FastifySchema): FastifySchema {
  const { summary = "", security = [], stream } = schema;
  const { querystring, body, response } = schema as Partial<{
    querystring: z.ZodType;
    body: z.ZodType;
    response: Record<string, z.ZodType>;
  }>;
  const responses = Object.entries(response ?? {}).map(([status, type]) => [
    status,
    {
      description:
        status === "default" ? "What went wrong" : stream === true ? "One of these a line" : "Done",
      content: {
        [status === "default"
          ? "application/problem+json"
          : stream === true
            ? "application/x-ndjson"
            : JSON_TYPE]: {
          schema: jsonSchema(type, "output"),
        },
      },
    },
  ]);
  return {
    summary,
    security,
    ...(querystring ? { querystring: jsonSchema(querystring, "input") } : {}),
    ...(body ? { body: jsonSchema(body, "input") } : {}),
    response: Object.fromEntries(responses) as unknown,
  };
}

const JSON_TYPE = "application/json";

function jsonSchema(type: z.ZodType, io: "input" | "output"): unknown {
  const { $schema: _dialect, ...schema } = z.toJSONSchema(type, { io, unrepresentable: "any" });
  return schema;
}

function clientProblem({ code }: NodeJS.ErrnoException): { status: number; text: string } {
  if (code === "HPE_HEADER_OVERFLOW") return { status: 431, text: "The request's headers are too large" };
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") return { status: 408, text: "The request did not arrive in time" };
  return { status: 400, text: "This is not an HTTP request" };
}
