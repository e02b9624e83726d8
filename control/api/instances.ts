import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { UserError } from "../../base/errors.ts";
import { BuildView } from "../../model/api.ts";
import { fillSecrets } from "../../model/gear.ts";
import { secretsOf } from "../assignments.ts";
import { relayLogs } from "../logs.ts";
import { buildViews, serviceInForce } from "../views.ts";
import type { ApiParts } from "./parts.ts";
import { isTrue, peopleRoute, route } from "./route.ts";
import { NDJSON, line } from "./stream.ts";

/** What is asked of the executors on behalf of people: logs, exec, run, build output. */
export function instanceRoutes(app: FastifyInstance, parts: ApiParts): void {
  const { store, controller, formations, executors, streams, clock } = parts;

  peopleRoute(
    app,
    "logs",
    "The log of a formation over all hosts, merged by time.",
    async ({ params, query, reply }) => {
      const { name } = formations.get(params["name"] ?? "");
      const stream = streams.open(reply, NDJSON);
      const request = {
        formation: name,
        service: query.service,
        instance: query.instance,
        tail: query.tail === undefined ? undefined : Number(query.tail),
        follow: isTrue(query.follow),
      };
      const hostIds = () => store.hosts.ids.sort();
      const send = (told: unknown) => {
        stream.write(line(told));
        return stream.drained();
      };
      await relayLogs(request, { executors, hostIds, clock }, send, stream.signal).finally(() =>
        stream.close(),
      );
    },
  );

  const relay = async (
    hostId: string,
    path: string,
    body: unknown,
    reply: Parameters<typeof streams.open>[0],
  ) => {
    const gone = new AbortController();
    reply.raw.once("close", () => gone.abort(new Error("the client left")));
    const response = await executors.ask(hostId, path, { body, signal: gone.signal });
    const stream = streams.open(reply, NDJSON);
    try {
      for await (const text of executors.lines(response)) {
        stream.write(`${text}\n`);
        await stream.drained();
      }
    } catch {
      stream.write(
        line({ kind: "failed", message: `The executor of host ${hostId} went away in the middle of it` }),
      );
    } finally {
      stream.close();
    }
  };

  peopleRoute(app, "exec", "Run a command inside an instance.", async ({ params, body, reply }) => {
    const id = params["id"] ?? "";
    const record = store.instances.get(id);
    if (record === undefined) {
      throw new UserError(`There is no instance "${id}"`, {
        code: "no_such_instance",
        status: 404,
        next: "`gilliam ps` lists them.",
      });
    }
    await relay(record.hostId, `/v1/instances/${encodeURIComponent(id)}/exec`, body, reply);
  });

  peopleRoute(
    app,
    "run",
    "Run a command once, in a fresh copy of a service.",
    async ({ params, body, reply }) => {
      const record = formations.get(params["name"] ?? "");
      const { spec } = serviceInForce(store, record, body.service);
      const { instances } = controller.world();
      const running = instances.find(
        (other) => other.formation === record.name && other.service === body.service && other.want === "run",
      );
      const hostId = running?.hostId ?? store.hosts.values.find(({ draining }) => !draining)?.id;
      if (hostId === undefined) {
        throw new UserError("There is no host to run it on", {
          code: "no_host",
          status: 503,
          next: "`gilliam hosts` lists them; start an executor.",
        });
      }
      const filled = fillSecrets(spec, (address) => secretsOf(store, address)).spec;
      await relay(hostId, "/v1/run", { spec: filled, command: body.command, stdin: body.stdin }, reply);
    },
  );

  route(
    app,
    {
      method: "GET",
      path: "/v1/formations/{name}/builds",
      summary: "The images of a formation and how far each host is with them.",
      access: "admin",
      answer: z.array(BuildView),
    },
    ({ params }) => buildViews(controller.world(), formations.get(params["name"] ?? "")),
  );
  route(
    app,
    {
      method: "GET",
      path: "/v1/formations/{name}/builds/{service}/log",
      summary: "The output of the newest build of a service, as text.",
      access: "admin",
    },
    async ({ params, reply }) => {
      const name = params["name"] ?? "";
      const builds = buildViews(controller.world(), formations.get(name));
      const build = builds.findLast(
        ({ service, state }) => service === params["service"] && state !== "unordered",
      );
      if (build === undefined) {
        throw new UserError(`There is no build of "${params["service"] ?? ""}" in formation "${name}"`, {
          code: "no_such_build",
          status: 404,
          next: "Only services with a `source:` are built; `gilliam status` says what they wait for.",
        });
      }
      const signal = AbortSignal.timeout(60_000);
      const response = await executors.ask(build.hostId, `/v1/builds/${build.image}/log`, { signal });
      return reply.type("text/plain; charset=utf-8").send(await response.text());
    },
  );
}
