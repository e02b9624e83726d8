import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { UserError } from "../../base/errors.ts";
import { FeedMessage, ProxyReport } from "../../model/mesh.ts";
import type { ApiParts } from "./parts.ts";
import { goOnWithoutRegistry } from "./problems.ts";
import { route } from "./route.ts";
import { NDJSON, line } from "./stream.ts";

const ID = /^[a-z0-9][a-z0-9._-]{0,99}$/;

const FeedQuery = z.strictObject({
  /** The epoch in force at the proxy; 0 for none. */
  epoch: z
    .string()
    .regex(/^\d{1,15}$/)
    .default("0")
    .transform(Number),
  kind: z.enum(["edge", "sidecar"]),
  host: z.string().regex(ID),
});

/** Proxies: their part of the mesh, and what they acknowledge. */
export function feedRoutes(app: FastifyInstance, parts: ApiParts): void {
  const { store, hub, controller, streams, clock, limits } = parts;
  const known = new Set<string>();

  /** In the registry before it is told anything: a restarted control must know whom to wait for. */
  const remember = async (id: string, kind: "edge" | "sidecar", hostId: string) => {
    await store.registry
      .register({ kind: "proxy", id, value: { kind, hostId } }, limits.registrationMs)
      .catch(goOnWithoutRegistry);
    if (known.has(id)) return;
    known.add(id);
    parts.events.publish({ kind: "proxy", formation: null, text: `${kind} ${id} on host ${hostId} is here` });
  };

  route(
    app,
    {
      method: "GET",
      path: "/v1/feed/{id}",
      summary: "For proxies: the mesh as far as it concerns this one, whole or as differences.",
      access: "host",
      query: FeedQuery,
      answer: FeedMessage,
      stream: true,
    },
    async ({ params, query, reply }) => {
      const id = proxyIdOf(params);
      await remember(id, query.kind, query.host);
      const stream = streams.open(reply, NDJSON);
      const proxy = { id, kind: query.kind, hostId: query.host, epoch: query.epoch };
      const connection = hub.connect(proxy, (message) => stream.write(line(message)));
      stream.signal.addEventListener("abort", () => connection[Symbol.dispose](), { once: true });
    },
  );
  route(
    app,
    {
      method: "POST",
      path: "/v1/feed/{id}/report",
      summary: "For proxies: the epoch in force, what is in flight, and what flowed; their heartbeat.",
      access: "host",
      body: ProxyReport,
      report: true,
    },
    async ({ params, body }) => {
      const id = proxyIdOf(params);
      await remember(id, body.kind, body.hostId);
      const before = hub.proxies().find((proxy) => proxy.id === id);
      hub.report(id, body, clock.wallMs());
      const isNews =
        before?.epoch !== body.epoch ||
        body.refused !== undefined ||
        JSON.stringify(before.busy) !== JSON.stringify(body.busy);
      if (isNews) void controller.poke();
    },
  );
}

function proxyIdOf(params: Readonly<Record<string, string>>): string {
  const id = params["id"] ?? "";
  if (ID.test(id)) return id;
  throw new UserError(`"${id}" is not a proxy id`, {
    code: "bad_request",
    next: "Proxy ids are lower-case letters, digits, dots, dashes and underscores, at most 100.",
  });
}
