import type { FastifyInstance } from "fastify";
import { UserError } from "../../base/errors.ts";
import { AssignmentsMessage, HostReport } from "../../model/host.ts";
import { changesOf } from "../host-reports.ts";
import type { HostRecord } from "../store.ts";
import { hostView } from "../views.ts";
import type { ApiParts } from "./parts.ts";
import { goOnWithoutRegistry } from "./problems.ts";
import { peopleRoute, route } from "./route.ts";
import { NDJSON, line } from "./stream.ts";

const HOST_ID = /^[a-z0-9][a-z0-9._-]{0,99}$/;

/** Hosts: what they report, what they are told, and taking one out of use. */
export function hostRoutes(app: FastifyInstance, parts: ApiParts): void {
  const { store, controller, assignments, events, streams } = parts;
  peopleRoute(app, "hosts", "Every host.", () =>
    store.hosts.values
      .sort((a, b) => (a.id < b.id ? -1 : 1))
      .map((host) => hostView(controller.world(), host)),
  );
  peopleRoute(
    app,
    "drain",
    "Move every instance away from a host, or let it have some again.",
    async ({ params, body }) => {
      const id = hostIdOf(params);
      const draining = !body.undo;
      for (;;) {
        const host = store.hosts.get(id);
        if (host === undefined) throw noSuchHost(id, store.hosts.ids);
        if (host.draining === draining) return hostView(controller.world(), host);
        const text = draining ? `host ${id} is drained` : `host ${id} is in use again`;
        const { event, writes } = events.prepare({ kind: "host", formation: null, text });
        if (await store.write([store.set(store.hosts, id, { ...host, draining }), ...writes])) {
          events.announce(event);
          void controller.poke();
        }
      }
    },
  );
  route(
    app,
    {
      method: "GET",
      path: "/v1/hosts/{id}/assignments",
      summary: "For executors: what the host is to run and build, whole, whenever it changes.",
      access: "host",
      answer: AssignmentsMessage,
      stream: true,
    },
    ({ params, reply }) => {
      const id = hostIdOf(params);
      const stream = streams.open(reply, NDJSON);
      const connection = assignments.connect(id, (message) => stream.write(line(message)));
      stream.signal.addEventListener("abort", () => connection[Symbol.dispose](), { once: true });
    },
  );
  route(
    app,
    {
      method: "POST",
      path: "/v1/hosts/{id}/status",
      summary: "For executors: what the host runs; its heartbeat.",
      access: "host",
      body: HostReport,
      report: true,
    },
    ({ params, body }) => takeReport(parts, hostIdOf(params), body),
  );
}

async function takeReport(parts: ApiParts, id: string, report: HostReport): Promise<void> {
  const { store, controller, reports, events, clock, limits } = parts;
  if (report.hostId !== id) {
    throw new UserError(`The report is of host "${report.hostId}", but was sent as "${id}"`, {
      code: "bad_request",
      next: "Give the executor one host id.",
    });
  }
  const before = reports.put(report, clock.wallMs());
  await rememberHost(parts, report).catch(goOnWithoutRegistry);
  const { executorUrl, metricsUrl } = report;
  await store.registry
    .register({ kind: "host", id, value: { executorUrl, metricsUrl } }, limits.registrationMs)
    .catch(goOnWithoutRegistry);
  for (const { kind, instanceId, text } of changesOf(before, report)) {
    const record = instanceId === undefined ? undefined : store.instances.get(instanceId);
    events.publish({ kind, formation: record?.formation ?? null, text });
  }
  if (before === undefined) events.publish({ kind: "host", formation: null, text: `host ${id} reports` });
  if (essence(before) !== essence(report)) void controller.poke();
}

/** What decisions depend on; log lines and usage change all the time and are none of it. */
function essence(report: HostReport | undefined): string {
  if (report === undefined) return "";
  return JSON.stringify({
    instances: report.instances.map(({ instanceId, phase, address, restarts }) => [
      instanceId,
      phase,
      address,
      restarts,
    ]),
    builds: report.builds.map(({ image, state }) => [image, state]),
    capacity: report.capacity,
    labels: report.labels,
  });
}

/** What must be known of the host before it speaks again; written only when it differs. */
async function rememberHost({ store }: ApiParts, report: HostReport): Promise<void> {
  for (let attempt = 0; attempt < 4; attempt++) {
    const known = store.hosts.get(report.hostId);
    const host: HostRecord = {
      id: report.hostId,
      draining: known?.draining ?? false,
      driver: report.driver,
      network: report.network,
      capacity: report.capacity,
      labels: report.labels,
      executorUrl: report.executorUrl,
      metricsUrl: report.metricsUrl,
    };
    if (JSON.stringify(known) === JSON.stringify(host)) return;
    if (await store.write([store.set(store.hosts, host.id, host)])) return;
  }
}

function hostIdOf(params: Readonly<Record<string, string>>): string {
  const id = params["id"] ?? "";
  if (HOST_ID.test(id)) return id;
  throw new UserError(`"${id}" is not a host id`, {
    code: "bad_request",
    next: "Host ids are lower-case letters, digits, dots, dashes and underscores, at most 100.",
  });
}

function noSuchHost(id: string, ids: readonly string[]): UserError {
  return new UserError(`There is no host "${id}"`, {
    code: "no_such_host",
    status: 404,
    next: ids.length === 0 ? "No executor has reported yet." : `There are: ${ids.toSorted().join(", ")}.`,
  });
}
