import { z } from "zod";
import { Protocol, ProxyProtocol } from "./mesh.ts";
import { Digest, Name, Port } from "./names.ts";

/** How one service of one release runs: all that an executor needs, nothing it must look up. */

export const HealthCheck = z.discriminatedUnion("kind", [
  /** Ready when GET `path` on the instance's own port answers 2xx or 3xx. */
  z.strictObject({ kind: z.literal("http"), path: z.string().startsWith("/") }),
  /** Ready when the instance's own port accepts a connection. */
  z.strictObject({ kind: z.literal("tcp") }),
  /** Ready when this command exits 0, run like `exec`; gears use it. */
  z.strictObject({ kind: z.literal("command"), command: z.string().min(1) }),
  /** No port: ready when it has run for a second. */
  z.strictObject({ kind: z.literal("none") }),
]);
export type HealthCheck = z.infer<typeof HealthCheck>;

/** What is run. `source` is built on the host; `platform` is Gilliam's own code; `gear` its built-in gears. */
export const ImageRef = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("source"), image: Digest, source: Digest, build: z.string().optional() }),
  z.strictObject({ kind: z.literal("gear"), gear: Name, version: z.string() }),
  z.strictObject({ kind: z.literal("platform") }),
  z.strictObject({ kind: z.literal("docker"), reference: z.string().min(1) }),
]);
export type ImageRef = z.infer<typeof ImageRef>;

export const DependencySpec = z.strictObject({
  /** The key in the manifest. */
  name: z.string().min(1),
  port: Port,
  protocol: Protocol,
  optional: z.boolean(),
  /** `{host}` and `{port}` are filled in by the executor: `postgres://gilliam:…@{host}:{port}/db`. May hold a secret. */
  url: z.string().min(1),
});
export type DependencySpec = z.infer<typeof DependencySpec>;

export const Resources = z.strictObject({
  /** Cores, like 0.5. */
  cpu: z.number().positive().max(1024).optional(),
  memoryBytes: z.int().positive().optional(),
});
export type Resources = z.infer<typeof Resources>;

/**
 * What loosens the hardening of a container. Absent: own unprivileged user, no capabilities, no new privileges,
 * read-only root, nothing of the host. Only the docker driver has use for it.
 */
export const ContainerNeeds = z.strictObject({
  /** `image`: whoever the image says, which is root where it says nothing. */
  user: z.enum(["own", "image"]).optional(),
  writableRoot: z.boolean().optional(),
  newPrivileges: z.boolean().optional(),
  /** Linux capabilities without `CAP_`, like NET_BIND_SERVICE. */
  capabilities: z.array(z.string().regex(/^[A-Z][A-Z_]{1,40}$/)).optional(),
  /** Folders of the host, `/host/path:/path` with `:ro` when they may only be read. */
  mounts: z.array(z.string().regex(/^\/[^:]*:\/[^:]*(?::r[ow])?$/)).optional(),
  /** Further folders that may be written to; in memory, gone with the instance. */
  scratch: z.array(z.string().startsWith("/")).optional(),
  /** Where the volume appears. */
  volumePath: z.string().startsWith("/").optional(),
});
export type ContainerNeeds = z.infer<typeof ContainerNeeds>;

export const RunSpec = z.strictObject({
  formation: Name,
  service: Name,
  /** The release this spec first appeared in; an unchanged service keeps its number over later releases. */
  release: z.int().min(1),
  image: ImageRef,
  /** A shell command line; absent: what the image found (Procfile, then language). */
  command: z.string().min(1).optional(),
  /** The declared port; also $PORT where instances have a network of their own. Absent: listens nowhere. */
  port: Port.optional(),
  protocol: Protocol,
  /** Connections to its port begin with such a header. */
  proxyProtocol: ProxyProtocol.optional(),
  health: HealthCheck,
  resources: Resources,
  /** Plain variables from the manifest. Secrets are in `secrets`. */
  environment: z.record(z.string(), z.string()),
  /** Variables that are never shown, logged or listed. */
  secrets: z.record(z.string(), z.string()),
  dependencies: z.array(DependencySpec),
  /** A named folder that outlives instances and releases; its path is in $VOLUME. */
  volume: Name.optional(),
  container: ContainerNeeds.optional(),
  stop: z.strictObject({
    signal: z.enum(["SIGTERM", "SIGINT", "SIGQUIT"]),
    /** Milliseconds between the signal and SIGKILL. */
    graceMs: z.int().min(0).max(3_600_000),
  }),
});
export type RunSpec = z.infer<typeof RunSpec>;
