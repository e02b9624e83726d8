import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { ControlEvent, MetricsTargets } from "../../model/api.ts";
import { graphView } from "../graph.ts";
import { metricsTargets, platformView } from "../views.ts";
import { exportRegistry, importRegistry } from "../registry/transfer.ts";
import type { ApiParts } from "./parts.ts";
import { peopleRoute, route } from "./route.ts";

/** The platform itself: is it well, what does it say, what does it measure. */
export function platformRoutes(app: FastifyInstance, parts: ApiParts): void {
  const { store, controller, hub, metrics, version, events } = parts;
  route(
    app,
    {
      method: "GET",
      path: "/v1/health",
      summary: "Answers when control works.",
      access: "open",
      answer: z.strictObject({ status: z.literal("ok"), version: z.string() }),
    },
    () => ({ status: "ok", version }),
  );
  route(
    app,
    { method: "GET", path: "/v1/openapi.json", summary: "This document.", access: "open" },
    ({ reply }) => reply.type("application/json").send(JSON.stringify(app.swagger())),
  );
  route(
    app,
    { method: "GET", path: "/metrics", summary: "For Prometheus.", access: "open" },
    async ({ reply }) => reply.type(metrics.contentType).send(await metrics.metrics()),
  );
  peopleRoute(app, "status", "The platform: hosts, proxies, and whatever an operator should know.", () =>
    platformView(parts),
  );
  peopleRoute(
    app,
    "registryExport",
    "Everything that was deployed and decided, secrets included.",
    async () => exportRegistry(store.registry, parts.clock.wallMs()),
  );
  peopleRoute(
    app,
    "registryImport",
    "Writes back what an export has and the registry lacks.",
    async ({ body: { dump, replace } }) => {
      const result = await importRegistry(store.registry, dump, replace);
      await store.load();
      void controller.poke();
      return result;
    },
  );
  peopleRoute(app, "graph", "Declared dependencies with what flows on them now.", ({ query }) => {
    if (hub.mesh === undefined) return { nodes: [], edges: [] };
    const graph = graphView(controller.world(), hub.mesh, hub.traffic());
    const { formation } = query;
    if (formation === undefined) return graph;
    const isOwn = (address: string) => address.endsWith(`.${formation}`);
    const edges = graph.edges.filter(({ from, to }) => isOwn(from) || isOwn(to));
    const named = new Set(edges.flatMap(({ from, to }) => [from, to]));
    return { nodes: graph.nodes.filter(({ address }) => isOwn(address) || named.has(address)), edges };
  });
  route(
    app,
    {
      method: "GET",
      path: "/v1/formations/{name}/receipts",
      summary: "Why each instance was allowed to stop, newest first.",
      access: "admin",
      answer: z.array(ControlEvent),
    },
    ({ params }) =>
      events.all
        .map(({ event }) => event)
        .filter(({ kind, formation }) => kind === "receipt" && formation === params["name"])
        .toReversed(),
  );
  route(
    app,
    {
      method: "GET",
      path: "/v1/metrics-targets",
      summary: "Where Prometheus finds every part (http_sd).",
      access: "host",
      answer: MetricsTargets,
    },
    () => metricsTargets(store, hub.proxies(), parts.ownUrl()),
  );
}
