import { z } from "zod";
import { InstancePhase } from "./instance.ts";
import { Digest, Name } from "./names.ts";

/**
 * The control API, as the CLI and the console speak it: JSON over HTTP under /v1, `authorization: Bearer TOKEN`,
 * errors as application/problem+json (RFC 9457). Every write is idempotent.
 */

/** RFC 9457, with `code` (stable), `next` (what to do) and `problems` (all of them, one line each). */
export const Problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string(),
  next: z.string().optional(),
  problems: z.array(z.string()).optional(),
});
export type Problem = z.infer<typeof Problem>;

/** Everything that was deployed and decided, secrets included: `gilliam registry export`. */
export const RegistryDump = z.strictObject({
  format: z.literal(1),
  exportedAtMs: z.number(),
  /** The registry it comes from, for people. */
  from: z.string(),
  entries: z.array(z.strictObject({ key: z.string(), value: z.unknown() })),
});
export type RegistryDump = z.infer<typeof RegistryDump>;

/** What came of an import: entries written, those that were the same, and keys that differ and were kept. */
export const RegistryImport = z.strictObject({
  written: z.int(),
  same: z.int(),
  kept: z.array(z.string()),
});
export type RegistryImport = z.infer<typeof RegistryImport>;

/** POST /v1/formations/{name}/plan and …/releases. Archives are put before: PUT /v1/blobs/{digest}. */
export const DeployRequest = z.strictObject({
  /** Text of gilliam.yaml. */
  manifest: z.string().max(1_000_000),
  /** Name of that file, for messages. */
  file: z.string(),
  /** Digest of each process's source archive, by service name. */
  sources: z.record(z.string(), Digest),
  /** Digest of each filter's bundle, by its file as the manifest says it. */
  filters: z.record(z.string(), Digest).default({}),
  /** `deploy` sends traffic to it; `stage` only makes the release, for a canary. */
  mode: z.enum(["deploy", "stage"]).default("deploy"),
});
export type DeployRequest = z.infer<typeof DeployRequest>;

export const PlanChange = z.strictObject({
  service: z.string(),
  action: z.enum(["create", "replace", "scale", "reroute", "remove", "keep"]),
  /** One line a difference, like `environment.LOG_LEVEL: info → debug`; secrets are never shown. */
  differences: z.array(z.string()),
});
export const Plan = z.strictObject({
  formation: z.string(),
  /** 0 when this would be the first. */
  from: z.int(),
  /** The number it would get; equal to `from` when nothing changes. */
  to: z.int(),
  changes: z.array(PlanChange),
  warnings: z.array(z.string()),
});
export type Plan = z.infer<typeof Plan>;

export const DeployAnswer = z.strictObject({
  formation: z.string(),
  release: z.int(),
  /** False: the same content was deployed before, nothing was changed. */
  created: z.boolean(),
  plan: Plan,
});
export type DeployAnswer = z.infer<typeof DeployAnswer>;

export const InstanceView = z.strictObject({
  id: z.string(),
  formation: z.string(),
  service: z.string(),
  release: z.int(),
  hostId: z.string(),
  phase: InstancePhase,
  reason: z.string(),
  restarts: z.int(),
  startedAtMs: z.number().nullable(),
  address: z.string().nullable(),
  /** In every proxy that could call it, acknowledged. */
  inTraffic: z.boolean(),
  lastLines: z.array(z.string()),
});
export type InstanceView = z.infer<typeof InstanceView>;

export const ServiceView = z.strictObject({
  name: z.string(),
  kind: z.enum(["process", "auxiliary"]),
  release: z.int(),
  wanted: z.int(),
  ready: z.int(),
  canary: z.strictObject({ release: z.int(), weight: z.int(), ready: z.int(), wanted: z.int() }).nullable(),
  /** `ready`, or what it waits for. */
  state: z.enum(["ready", "changing", "waiting", "failing", "down"]),
  /** Plain words: what is wrong or awaited, and what to do. Empty when ready. */
  explanation: z.string(),
  image: z.string(),
});
export type ServiceView = z.infer<typeof ServiceView>;

/** GET /v1/formations/{name} */
export const FormationView = z.strictObject({
  name: z.string(),
  state: z.enum(["up", "down"]),
  current: z.int(),
  /** True when every service is as wanted and every proxy has acknowledged it. */
  settled: z.boolean(),
  services: z.array(ServiceView),
  urls: z.array(z.string()),
  boot: z.boolean(),
});
export type FormationView = z.infer<typeof FormationView>;

export const ReleaseView = z.strictObject({
  number: z.int(),
  createdAtMs: z.number(),
  current: z.boolean(),
  services: z.array(z.string()),
  /** One line: what it changed against the one before. */
  summary: z.string(),
});
export type ReleaseView = z.infer<typeof ReleaseView>;

export const RouteView = z.strictObject({
  host: z.string(),
  path: z.string(),
  /** What it asks of requests besides host and path, like `exact, GET`; absent: nothing. */
  match: z.string().optional(),
  service: z.string(),
  /** What happens to its requests on their way, a line each; absent: nothing. */
  actions: z.array(z.string()).optional(),
  split: z.array(z.strictObject({ release: z.int(), weight: z.int(), endpoints: z.int() })),
});
export type RouteView = z.infer<typeof RouteView>;

/** GET /v1/graph: declared edges with what flows on them now. */
export const GraphView = z.strictObject({
  nodes: z.array(
    z.strictObject({
      address: z.string(),
      kind: z.enum(["process", "auxiliary", "external", "edge"]),
      ready: z.int(),
      wanted: z.int(),
    }),
  ),
  edges: z.array(
    z.strictObject({
      from: z.string(),
      to: z.string(),
      dependency: z.string(),
      port: z.int(),
      protocol: z.string(),
      /** Over the last ten seconds. */
      requestsPerSecond: z.number(),
      failuresPerSecond: z.number(),
      meanMs: z.number().nullable(),
    }),
  ),
});
export type GraphView = z.infer<typeof GraphView>;

export const ScaleRequest = z.strictObject({ counts: z.record(Name, z.int().min(0).max(1000)) });
export type ScaleRequest = z.infer<typeof ScaleRequest>;

export const CanaryRequest = z.strictObject({
  service: Name,
  release: z.int().min(1),
  /** Per cent of requests, 0 to 100. */
  weight: z.int().min(0).max(100),
  sticky: z
    .discriminatedUnion("by", [
      z.strictObject({ by: z.literal("cookie"), name: z.string().min(1) }),
      z.strictObject({ by: z.literal("header"), name: z.string().min(1) }),
    ])
    .optional(),
});
export type CanaryRequest = z.infer<typeof CanaryRequest>;

/** POST /v1/formations/{name}/pause: who calls the service is sent away, or waits, or neither any more. */
export const PauseRequest = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("maintenance"),
    service: Name,
    retryAfterSeconds: z.int().min(0).max(86_400).default(60),
  }),
  z.strictObject({ kind: z.literal("hold"), service: Name, forMs: z.int().min(1).max(3_600_000) }),
  z.strictObject({ kind: z.literal("none"), service: Name }),
]);
export type PauseRequest = z.infer<typeof PauseRequest>;

/** POST /v1/formations/{name}/promote; absent service: every service with a canary. */
export const PromoteRequest = z.strictObject({ service: Name.optional() });
/** POST /v1/formations/{name}/rollback; absent release: the one before. Ends canaries too. */
export const RollbackRequest = z.strictObject({ release: z.int().min(1).optional() });

/** A line of GET /v1/formations/{name}/logs?follow=true&service=&instance=&tail=N, NDJSON. */
export const LogLine = z.strictObject({
  atMs: z.number(),
  service: z.string(),
  instanceId: z.string(),
  release: z.int(),
  stream: z.enum(["stdout", "stderr", "system"]),
  text: z.string(),
});
export type LogLine = z.infer<typeof LogLine>;

/** POST /v1/instances/{id}/exec (inside a running instance) and POST /v1/formations/{name}/run (a one-off). */
export const ExecRequest = z.strictObject({
  command: z.array(z.string()).min(1),
  /** Standard input, base64; absent: none. */
  stdin: z.string().optional(),
});
export const RunRequest = z.strictObject({
  service: Name,
  command: z.array(z.string()).min(1),
  stdin: z.string().optional(),
});
/** A line of their answer, NDJSON. */
export const ExecMessage = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("output"), stream: z.enum(["stdout", "stderr"]), data: z.string() }),
  z.strictObject({ kind: z.literal("exit"), code: z.int() }),
  z.strictObject({ kind: z.literal("failed"), message: z.string() }),
]);
export type ExecMessage = z.infer<typeof ExecMessage>;

/** GET /v1/formations/{name}/env?service=web&reveal=false */
export const EnvironmentView = z.strictObject({
  service: z.string(),
  release: z.int(),
  variables: z.array(
    z.strictObject({ name: z.string(), value: z.string(), secret: z.boolean(), from: z.string() }),
  ),
});
export type EnvironmentView = z.infer<typeof EnvironmentView>;

/** GET /v1/status */
export const PlatformView = z.strictObject({
  version: z.string(),
  registry: z.string(),
  startedAtMs: z.number(),
  hosts: z.int(),
  formations: z.array(z.string()),
  epoch: z.int(),
  proxies: z.array(
    z.strictObject({
      id: z.string(),
      kind: z.enum(["edge", "sidecar"]),
      hostId: z.string(),
      epoch: z.int(),
      behind: z.boolean(),
      refused: z.string().nullable(),
      lastSeenMs: z.number(),
      metricsUrl: z.string(),
    }),
  ),
  /** Plain sentences: whatever an operator should know, worst first. */
  alarms: z.array(z.string()),
});
export type PlatformView = z.infer<typeof PlatformView>;

/** GET /v1/events, server-sent events: `event: KIND`, `data: JSON`. */
export const ControlEvent = z.strictObject({
  atMs: z.number(),
  kind: z.enum(["release", "formation", "instance", "host", "proxy", "build", "receipt"]),
  formation: z.string().nullable(),
  text: z.string(),
});
export type ControlEvent = z.infer<typeof ControlEvent>;

/** GET /v1/formations/{name}/builds: an image of a service, on one host. */
export const BuildView = z.strictObject({
  service: z.string(),
  /** The release the service's spec first appeared in. */
  release: z.int(),
  image: z.string(),
  hostId: z.string(),
  /** `unordered`: no host has been asked to build it yet; `hostId` is then empty. */
  state: z.enum(["unordered", "queued", "building", "ready", "failed"]),
  explanation: z.string(),
  reason: z.string(),
  lastLines: z.array(z.string()),
});
export type BuildView = z.infer<typeof BuildView>;

/** GET /v1/metrics-targets: Prometheus' http_sd. */
export const MetricsTargets = z.array(
  z.strictObject({ targets: z.array(z.string()), labels: z.record(z.string(), z.string()) }),
);
export type MetricsTargets = z.infer<typeof MetricsTargets>;
