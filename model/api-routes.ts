import { z } from "zod";
import * as api from "./api.ts";
import { HostView } from "./host.ts";

/**
 * Every route of the control API that people and programs use (proxies and executors have their own: mesh.ts, host.ts).
 * One table, so that control, CLI and console cannot disagree. `{name}` is a formation, `{id}` an instance or a host.
 * Paths' parameters are percent-encoded; `stream` answers are NDJSON, one `answer` a line, unless said otherwise.
 */
interface ApiRoute {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly query?: z.ZodType;
  readonly body?: z.ZodType;
  readonly answer: z.ZodType;
  readonly stream?: true;
  /** The body grows with the platform, not with what a person wrote. */
  readonly report?: true;
}

const Flag = z.enum(["true", "false"]);

export const API_ROUTES = {
  status: { method: "GET", path: "/v1/status", answer: api.PlatformView },
  formations: { method: "GET", path: "/v1/formations", answer: z.array(api.FormationView) },
  formation: { method: "GET", path: "/v1/formations/{name}", answer: api.FormationView },
  instances: {
    method: "GET",
    path: "/v1/formations/{name}/instances",
    answer: z.array(api.InstanceView),
  },
  /** Changes nothing; the archives need not have been sent. */
  plan: { method: "POST", path: "/v1/formations/{name}/plan", body: api.DeployRequest, answer: api.Plan },
  releases: { method: "GET", path: "/v1/formations/{name}/releases", answer: z.array(api.ReleaseView) },
  deploy: {
    method: "POST",
    path: "/v1/formations/{name}/releases",
    body: api.DeployRequest,
    answer: api.DeployAnswer,
  },
  up: { method: "POST", path: "/v1/formations/{name}/up", answer: api.FormationView },
  down: { method: "POST", path: "/v1/formations/{name}/down", answer: api.FormationView },
  scale: {
    method: "POST",
    path: "/v1/formations/{name}/scale",
    body: api.ScaleRequest,
    answer: api.FormationView,
  },
  canary: {
    method: "POST",
    path: "/v1/formations/{name}/canary",
    body: api.CanaryRequest,
    answer: api.FormationView,
  },
  pause: {
    method: "POST",
    path: "/v1/formations/{name}/pause",
    body: api.PauseRequest,
    answer: api.FormationView,
  },
  promote: {
    method: "POST",
    path: "/v1/formations/{name}/promote",
    body: api.PromoteRequest,
    answer: api.FormationView,
  },
  rollback: {
    method: "POST",
    path: "/v1/formations/{name}/rollback",
    body: api.RollbackRequest,
    answer: api.FormationView,
  },
  routes: { method: "GET", path: "/v1/formations/{name}/routes", answer: z.array(api.RouteView) },
  /** Absent formation: the whole mesh. */
  graph: {
    method: "GET",
    path: "/v1/graph",
    query: z.strictObject({ formation: z.string().optional() }),
    answer: api.GraphView,
  },
  env: {
    method: "GET",
    path: "/v1/formations/{name}/env",
    query: z.strictObject({ service: z.string(), reveal: Flag.optional() }),
    answer: api.EnvironmentView,
  },
  logs: {
    method: "GET",
    path: "/v1/formations/{name}/logs",
    query: z.strictObject({
      follow: Flag.optional(),
      service: z.string().optional(),
      instance: z.string().optional(),
      /** Lines from the past, for each instance. */
      tail: z
        .string()
        .regex(/^\d{1,6}$/)
        .optional(),
    }),
    answer: api.LogLine,
    stream: true,
  },
  exec: {
    method: "POST",
    path: "/v1/instances/{id}/exec",
    body: api.ExecRequest,
    answer: api.ExecMessage,
    stream: true,
  },
  run: {
    method: "POST",
    path: "/v1/formations/{name}/run",
    body: api.RunRequest,
    answer: api.ExecMessage,
    stream: true,
  },
  hosts: { method: "GET", path: "/v1/hosts", answer: z.array(HostView) },
  /** Moves every instance away and places no new one there; `undo` takes it back. */
  drain: {
    method: "POST",
    path: "/v1/hosts/{id}/drain",
    body: z.strictObject({ undo: z.boolean().default(false) }),
    answer: HostView,
  },
  registryExport: { method: "GET", path: "/v1/registry", answer: api.RegistryDump },
  /** Writes what is missing, and with `replace` what differs; removes nothing. */
  registryImport: {
    method: "POST",
    path: "/v1/registry",
    body: z.strictObject({ dump: api.RegistryDump, replace: z.boolean().default(false) }),
    answer: api.RegistryImport,
    report: true,
  },
  /** Server-sent events, not NDJSON. */
  events: { method: "GET", path: "/v1/events", answer: api.ControlEvent, stream: true },
} as const satisfies Record<string, ApiRoute>;

export type ApiRouteName = keyof typeof API_ROUTES;
