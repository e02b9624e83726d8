import { join } from "node:path";
import type { BootManifest } from "../model/boot.ts";
import type { RunSpec } from "../model/run-spec.ts";
import { compileCacheOf } from "./compile-cache.ts";
import type { Ports } from "./ports.ts";
import type { PlatformFile } from "./state-folder.ts";

export interface BootFacts {
  readonly state: string;
  readonly hostId: string;
  readonly ports: Ports;
  readonly isPublic: boolean;
  /** Hash of the platform's copy: a part restarts when it changes. */
  readonly platform: string;
  readonly consul?: PlatformFile["consul"] | undefined;
  /** Of the edge. */
  readonly tls?: PlatformFile["tls"] | undefined;
  readonly edgeWorkers?: PlatformFile["edgeWorkers"] | undefined;
}

type BootInstance = BootManifest["instances"][number];

/** The platform's own parts, as the executor runs them. Pure. */
export function bootManifest(facts: BootFacts): BootManifest {
  const { state, hostId, ports, isPublic, platform } = facts;
  const edgeHost = isPublic ? "0.0.0.0" : "127.0.0.1";
  const controlUrl = `http://127.0.0.1:${ports.control}`;
  const shared = { GILLIAM_STATE: state, GILLIAM_HOST_ID: hostId, GILLIAM_PLATFORM_HASH: platform };
  const NODE_COMPILE_CACHE = compileCacheOf(join(state, "platform", platform));
  const proxy = { ...shared, GILLIAM_CONTROL_URL: controlUrl, NODE_COMPILE_CACHE };
  return {
    formation: "gilliam",
    instances: [
      part("control", "none", "node control/main.ts", ports.control, "/v1/health", 10_000, {
        ...shared,
        GILLIAM_CONTROL_PORT: String(ports.control),
        GILLIAM_PUBLIC_PORT: String(ports.edge),
        ...consulEnvironment(state, facts.consul),
      }),
      part("sidecar", "sidecar", "exec node sidecar/main.ts", ports.sidecar, "/healthz", 35_000, {
        ...proxy,
        GILLIAM_SIDECAR_ADMIN: `127.0.0.1:${ports.sidecar}`,
      }),
      part("edge", "none", "exec node proxy/main.ts", ports.edgeAdmin, "/healthz", 35_000, {
        ...proxy,
        GILLIAM_EDGE_LISTEN: `${edgeHost}:${ports.edge}`,
        ...tlsEnvironment(edgeHost, facts.tls),
        ...(facts.edgeWorkers === undefined ? {} : { GILLIAM_EDGE_WORKERS: String(facts.edgeWorkers) }),
        GILLIAM_EDGE_ADMIN: `127.0.0.1:${ports.edgeAdmin}`,
      }),
    ],
  };
}

function tlsEnvironment(host: string, tls: PlatformFile["tls"]): Record<string, string> {
  return tls === undefined
    ? {}
    : { GILLIAM_EDGE_TLS_LISTEN: `${host}:${tls.port}`, GILLIAM_EDGE_TLS_DIR: tls.dir };
}

function consulEnvironment(state: string, consul: PlatformFile["consul"]): Record<string, string> {
  if (consul === undefined) return {};
  const names = { token: "TOKEN_FILE", ca: "CA", cert: "CERT", key: "KEY" } as const;
  return {
    GILLIAM_CONSUL_URL: consul.url,
    GILLIAM_CONSUL_PREFIX: consul.prefix,
    GILLIAM_CONSUL_DATACENTER: consul.datacenter,
    ...Object.fromEntries(
      consul.files.map((file) => [`GILLIAM_CONSUL_${names[file]}`, join(state, "consul", file)]),
    ),
  };
}

function part(
  service: string,
  privileges: BootInstance["privileges"],
  command: string,
  port: number,
  healthPath: string,
  graceMs: number,
  environment: Record<string, string>,
): BootInstance {
  const spec: RunSpec = {
    formation: "gilliam",
    service,
    release: 1,
    image: { kind: "platform" },
    command,
    port,
    protocol: "http",
    health: { kind: "http", path: healthPath },
    resources: {},
    environment,
    secrets: {},
    dependencies: [],
    stop: { signal: "SIGTERM", graceMs },
  };
  return { instanceId: `gilliam-${service}-1`, spec, privileges };
}
