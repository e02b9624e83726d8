import type { FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods } from "fastify";
import type { z } from "zod";
import { UserError } from "../../base/errors.ts";
import { Problem } from "../../model/api.ts";
import { API_ROUTES, type ApiRouteName } from "../../model/api-routes.ts";
import type { Access } from "./auth.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    access?: Access;
  }
  interface FastifySchema {
    summary?: string;
    security?: readonly Record<string, readonly string[]>[];
    /** Answers go on for as long as the client stays; the schema is one line's. */
    stream?: boolean;
  }
}

/** Thousands of instances, each with its last lines. */
const REPORT_BYTES_MAX = 64 * 1024 * 1024;

type Schema = z.ZodType;
type OutputOf<S> = S extends Schema ? z.output<S> : Record<string, never>;

export interface RouteSpec {
  readonly method: HTTPMethods;
  /** `{name}` is a parameter. */
  readonly path: string;
  /** One sentence for the OpenAPI document. */
  readonly summary: string;
  readonly access: Access;
  readonly query?: Schema;
  readonly body?: Schema;
  /** What a 200 carries, or a line of it when it is a stream. Absent: 204, or whatever the handler sends itself. */
  readonly answer?: Schema;
  readonly stream?: boolean;
  /** The body is a stream of bytes and the handler's own business. */
  readonly raw?: boolean;
  /** A report of a whole host: its size grows with what runs there, not with what a person wrote. */
  readonly report?: boolean;
}

export interface Call<Q, B> {
  readonly params: Readonly<Record<string, string>>;
  readonly query: OutputOf<Q>;
  readonly body: OutputOf<B>;
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
}

type QueryOf<S> = S extends { query: infer Q } ? Q : undefined;
type BodyOf<S> = S extends { body: infer B } ? B : undefined;

/** Declares a route: what comes in is parsed before the handler, and all of it is in the document. */
export function route<const S extends RouteSpec>(
  app: FastifyInstance,
  spec: S,
  handler: (call: Call<QueryOf<S>, BodyOf<S>>) => unknown,
): void {
  const { method, path, summary, access, query, body, answer, stream = false } = spec;
  app.route({
    method,
    url: path.replaceAll(/\{(\w+)\}/g, ":$1"),
    config: { access },
    ...(spec.raw === true ? { bodyLimit: Number.MAX_SAFE_INTEGER } : {}),
    ...(spec.report === true ? { bodyLimit: REPORT_BYTES_MAX } : {}),
    schema: {
      summary,
      stream,
      ...(query ? { querystring: query } : {}),
      ...(body ? { body } : {}),
      response: { ...(answer ? { 200: answer } : {}), default: Problem },
      ...(access === "open" ? {} : { security: [{ bearer: [] }] }),
    },
    handler: async (request, reply) => {
      const result: unknown = await handler({
        params: request.params as Record<string, string>,
        query: (request.query ?? {}) as OutputOf<QueryOf<S>>,
        body: (request.body ?? {}) as OutputOf<BodyOf<S>>,
        request,
        reply,
      });
      if (stream || result === reply || reply.sent) return reply;
      return result === undefined ? reply.code(204).send() : reply.send(result);
    },
  });
}

type PeopleRoute<N extends ApiRouteName> = (typeof API_ROUTES)[N];

/** Declares a route of model/api-routes.ts, the table that control shares with its clients; for the admin. */
export function peopleRoute<N extends ApiRouteName>(
  app: FastifyInstance,
  name: N,
  summary: string,
  handler: (call: Call<QueryOf<PeopleRoute<N>>, BodyOf<PeopleRoute<N>>>) => unknown,
): void {
  route(
    app,
    { ...(API_ROUTES[name] as Omit<RouteSpec, "summary" | "access">), summary, access: "admin" },
    handler as (call: Call<undefined, undefined>) => unknown,
  );
}

/** Parses with zod; all problems at once, each like `body.counts.web: …`. */
export function compileValidator({ schema, httpPart }: { schema: unknown; httpPart?: string | undefined }) {
  return (data: unknown) => {
    // A POST without a body is one with an empty object: every field may have a default.
    const parsed = (schema as Schema).safeParse(httpPart === "body" && (data ?? null) === null ? {} : data);
    if (parsed.success) return { value: parsed.data };
    const part = httpPart === "querystring" ? "query" : (httpPart ?? "request");
    const problems = parsed.error.issues.map(
      ({ path, message }) => `${[part, ...path.map(String)].join(".")}: ${message}`,
    );
    return {
      error: new UserError(`The ${part} of the request is wrong: ${problems[0] ?? ""}`, {
        code: "bad_request",
        problems,
        next: "GET /v1/openapi.json says what is allowed.",
      }),
    };
  };
}

export function isTrue(flag: "true" | "false" | undefined): boolean {
  return flag === "true";
}
