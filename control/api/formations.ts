import type { FastifyInstance } from "fastify";
import type { FormationView } from "../../model/api.ts";
import { explain } from "../explain.ts";
import { routeViews } from "../routes.ts";
import { environmentView, instanceViews, releaseViews } from "../views.ts";
import type { ApiParts } from "./parts.ts";
import { isTrue, peopleRoute, route } from "./route.ts";

/** Desired state: what people deploy, look at and change. */
export function formationRoutes(app: FastifyInstance, parts: ApiParts): void {
  readRoutes(app, parts);
  writeRoutes(app, parts);
}

function readRoutes(app: FastifyInstance, parts: ApiParts): void {
  const { store, controller, formations, hub } = parts;
  peopleRoute(app, "formations", "Every formation.", () =>
    store.formations.ids.sort().map((name) => view(parts, name)),
  );
  peopleRoute(
    app,
    "formation",
    "A formation: its services, and in plain words what each waits for.",
    ({ params }) => view(parts, nameOf(params)),
  );
  peopleRoute(app, "instances", "The instances of a formation.", ({ params }) => {
    const { name } = formations.get(nameOf(params));
    return instanceViews(controller.world(), name);
  });
  peopleRoute(app, "releases", "The releases that can be gone back to.", ({ params }) => {
    const record = formations.get(nameOf(params));
    return releaseViews(record, store.releasesOf(record.name));
  });
  peopleRoute(app, "routes", "Public host names and paths, with the shares of releases.", ({ params }) => {
    const { name } = formations.get(nameOf(params));
    const all = hub.mesh === undefined ? [] : routeViews(hub.mesh);
    return all.filter(({ service }) => service.endsWith(`.${name}`));
  });
  peopleRoute(app, "env", "The variables of a service; secrets only when revealed.", ({ params, query }) => {
    const record = formations.get(nameOf(params));
    return environmentView(store, record, query.service, isTrue(query.reveal));
  });
}

function writeRoutes(app: FastifyInstance, parts: ApiParts): void {
  const { formations } = parts;
  peopleRoute(app, "plan", "What a deploy would change; changes nothing.", ({ params, body }) =>
    formations.plan(nameOf(params), body),
  );
  peopleRoute(
    app,
    "deploy",
    "Make a release and, unless staged, send traffic to it. The same content twice is one release.",
    async ({ params, body, reply }) => {
      const answer = await formations.deploy(nameOf(params), body);
      return reply.code(200).send(answer);
    },
  );
  peopleRoute(app, "up", "Run a formation that is down.", async ({ params }) => {
    await formations.setState(nameOf(params), "up");
    return view(parts, nameOf(params));
  });
  peopleRoute(app, "down", "Drain and stop every instance; keep everything else.", async ({ params }) => {
    await formations.setState(nameOf(params), "down");
    return view(parts, nameOf(params));
  });
  peopleRoute(app, "scale", "Change how many instances services have.", async ({ params, body }) => {
    await formations.scale(nameOf(params), body.counts);
    return view(parts, nameOf(params));
  });
  peopleRoute(
    app,
    "canary",
    "Send a share of a service's requests to another release.",
    async ({ params, body }) => {
      await formations.canary(nameOf(params), body);
      return view(parts, nameOf(params));
    },
  );
  peopleRoute(
    app,
    "pause",
    "Send callers of a service away for maintenance, let them wait while something is switched, or end either.",
    async ({ params, body }) => {
      await formations.pause(nameOf(params), body);
      return view(parts, nameOf(params));
    },
  );
  peopleRoute(app, "promote", "Make a canary what runs.", async ({ params, body }) => {
    await formations.promote(nameOf(params), body.service);
    return view(parts, nameOf(params));
  });
  peopleRoute(
    app,
    "rollback",
    "Back to a release; without one: take a canary away, else back to the release before.",
    async ({ params, body }) => {
      await formations.rollback(nameOf(params), body.release);
      return view(parts, nameOf(params));
    },
  );
  route(
    app,
    {
      method: "DELETE",
      path: "/v1/formations/{name}",
      summary: "Drain every instance, then forget the formation, its releases and secrets. Volumes stay.",
      access: "admin",
    },
    async ({ params, reply }) => {
      await formations.delete(nameOf(params));
      return reply.code(202).send();
    },
  );
}

function nameOf(params: Readonly<Record<string, string>>): string {
  return params["name"] ?? "";
}

function view({ controller, formations, limits }: ApiParts, name: string): FormationView {
  const told = explain(controller.world(), formations.get(name));
  return { ...told, urls: told.urls.map((url) => publicUrl(url, limits.publicPort)) };
}

/** `shop.localhost/admin` as a browser wants it. */
function publicUrl(route: string, port: number): string {
  const slash = route.indexOf("/");
  const host = slash < 0 ? route : route.slice(0, slash);
  const path = slash < 0 ? "/" : route.slice(slash);
  return `http://${host}${port === 80 ? "" : `:${port}`}${path}`;
}
