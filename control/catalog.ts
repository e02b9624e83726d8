import type { MetricsTargets } from "../model/api.ts";
import type { RunSpec } from "../model/run-spec.ts";
import { addressOf, healthOf, hostVoice } from "./facts.ts";
import type { HostRecord } from "./store.ts";
import type { InstanceRecord, World } from "./world.ts";

/** What Consul's users see of Gilliam: hosts as nodes, instances as services, their health as checks. Pure. */

export interface CatalogService {
  /** The instance's id. */
  readonly id: string;
  /** `<service>-<formation>`: `api-shop.service.consul`. */
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly tags: readonly string[];
  readonly meta: Readonly<Record<string, string>>;
  /** Consul's DNS leaves out what is critical. */
  readonly status: "passing" | "warning" | "critical";
  readonly output: string;
}

export interface CatalogNode {
  readonly hostId: string;
  readonly address: string;
  readonly services: readonly CatalogService[];
}

export interface CatalogInput {
  readonly world: World;
  readonly hosts: readonly HostRecord[];
  readonly metrics: MetricsTargets;
  /** The name of the service that all metrics addresses have. */
  readonly metricsService: string;
}

export function catalogOf({ world, hosts, metrics, metricsService }: CatalogInput): CatalogNode[] {
  const states = new Map(world.hosts.map((host) => [host.id, host]));
  return hosts.map((host) => {
    const voice = hostVoice(world, states.get(host.id));
    const instances = world.instances
      .filter(({ hostId, want }) => hostId === host.id && want !== "stop")
      .flatMap((record) => serviceOf(record, voice));
    const address = URL.parse(host.executorUrl)?.hostname.replace(/^\[(.*)\]$/, "$1") ?? "127.0.0.1";
    const own = metrics
      .filter(({ labels }) => (labels["host"] ?? hosts[0]?.id) === host.id)
      .flatMap((target) => metricsServiceOf(target, metricsService));
    return { hostId: host.id, address, services: [...instances, ...own] };
  });
}

function serviceOf(record: InstanceRecord, voice: ReturnType<typeof hostVoice>): CatalogService[] {
  const address = addressOf(record);
  if (address === undefined) return [];
  const health = healthOf(record, voice);
  const { formation, service, release, spec } = record;
  const status =
    record.want === "drain" || health === "unready" || health === "unheard"
      ? "critical"
      : health === "assumed"
        ? "warning"
        : "passing";
  const output =
    record.want === "drain"
      ? `draining: ${record.drainReason ?? ""}`
      : health === "assumed"
        ? "it was ready when its host was last heard of"
        : (record.status?.reason ?? "") || health;
  return [
    {
      id: record.id,
      name: `${service}-${formation}`,
      address: address.host,
      port: address.port,
      tags: [formation, `release-${release}`],
      meta: { formation, service, release: String(release), instance: record.id, version: versionOf(spec) },
      status,
      output,
    },
  ];
}

/** What the code is, in a word: twelve digits of its hash, or the name the image has elsewhere. */
function versionOf({ image }: RunSpec): string {
  switch (image.kind) {
    case "source":
      return image.image.replace("sha256:", "").slice(0, 12);
    case "gear":
      return `${image.gear}-${image.version}`;
    case "docker":
      return image.reference;
    case "platform":
      return "platform";
  }
}

function metricsServiceOf({ targets, labels }: MetricsTargets[number], name: string): CatalogService[] {
  const url = URL.parse(`http://${targets[0] ?? ""}`);
  if (url === null) return [];
  const { part = "", host = "", proxy, __metrics_path__: path = "/metrics" } = labels;
  return [
    {
      id: ["metrics", part, proxy ?? host].filter((text) => text !== "").join("-"),
      name,
      address: url.hostname.replace(/^\[(.*)\]$/, "$1"),
      port: Number(url.port || 80),
      tags: [part],
      meta: { part, host, metrics_path: path },
      status: "passing",
      output: "",
    },
  ];
}
