import { z } from "zod";
import { Assignment, InstanceStatus } from "./instance.ts";
import { Digest } from "./names.ts";

/** What passes between control and the executor of a host. */

export const Capacity = z.strictObject({ cpu: z.number().positive(), memoryBytes: z.number().positive() });
export type Capacity = z.infer<typeof Capacity>;

/** Control asks a host to build an image; the source archive is at `GET /v1/blobs/{source}`. */
export const BuildOrder = z.strictObject({
  image: Digest,
  source: Digest,
  /** `build:` of the manifest: replaces the language's own install step. */
  build: z.string().optional(),
});
export type BuildOrder = z.infer<typeof BuildOrder>;

export const BuildStatus = z.strictObject({
  image: Digest,
  state: z.enum(["queued", "building", "ready", "failed"]),
  /** Which language was found and why, one sentence. */
  explanation: z.string(),
  /** The failing step and what to do; empty unless failed. */
  reason: z.string(),
  /** The last lines of the build's output, at most 20. */
  lastLines: z.array(z.string()).max(20),
  /** The command the image starts with when the manifest names none. */
  defaultCommand: z.string().optional(),
});
export type BuildStatus = z.infer<typeof BuildStatus>;

/** A line of `GET /v1/hosts/{hostId}/assignments`, NDJSON. Each carries the whole list. */
export const AssignmentsMessage = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("assignments"),
    revision: z.int().min(0),
    instances: z.array(Assignment),
    builds: z.array(BuildOrder),
    /** Images some release can still be rolled back to; others may be collected. */
    keepImages: z.array(Digest),
  }),
  z.strictObject({ kind: z.literal("alive") }),
]);
export type AssignmentsMessage = z.infer<typeof AssignmentsMessage>;

/** `POST /v1/hosts/{hostId}/status`: on every change and every two seconds; also the host's heartbeat. */
export const HostReport = z.strictObject({
  hostId: z.string().min(1),
  /** Where control reaches the executor's API: `http://127.0.0.1:7010`. */
  executorUrl: z.string(),
  metricsUrl: z.string(),
  driver: z.enum(["process", "docker"]),
  /** `namespace`: instances have their own localhost. `shared`: they share the host's and get free ports. */
  network: z.enum(["namespace", "shared"]),
  capacity: Capacity,
  labels: z.record(z.string(), z.string()),
  instances: z.array(InstanceStatus),
  builds: z.array(BuildStatus),
});
export type HostReport = z.infer<typeof HostReport>;

/** Host as control lists it. */
export const HostView = z.strictObject({
  hostId: z.string(),
  state: z.enum(["up", "silent", "draining"]),
  driver: z.enum(["process", "docker"]),
  network: z.enum(["namespace", "shared"]),
  capacity: Capacity,
  labels: z.record(z.string(), z.string()),
  instances: z.int(),
  lastSeenMs: z.number(),
});
export type HostView = z.infer<typeof HostView>;
