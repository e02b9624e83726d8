import { type CallLimits, policyOfCall } from "../model/call-limits.ts";
import { canonicalJson } from "../model/canonical.ts";
import {
  ClusterPolicy,
  type Cluster,
  type ClusterPause,
  type Endpoint,
  type Protocol,
  type ProxyProtocol,
  type Split,
} from "../model/mesh.ts";
import { Port, serviceAddress } from "../model/names.ts";
import type { BalancingChoice, FormationRecord, ServicePause } from "../model/release.ts";
import { addressOf, healthOf, wantedOf, type HostVoice, type Wanted } from "./facts.ts";
import type { InstanceRecord, World } from "./world.ts";

/** The cluster of a service: its ready endpoints, and each release's share of the requests. */
export function clusterOf(
  world: World,
  formation: FormationRecord | undefined,
  service: string,
  records: readonly InstanceRecord[],
  voices: ReadonlyMap<string, HostVoice>,
): Cluster {
  const endpoints = endpointsOf(records, voices);
  const wanted: Wanted =
    formation === undefined
      ? { kind: "unknown", missing: "the formation" }
      : wantedOf(world, formation, service);
  const spec = wanted.kind === "known" ? wanted.stable.service.spec : records[0]?.spec;
  const sticky = formation?.services[service]?.sticky;
  const protocol = spec?.protocol ?? "http";
  // While a service changes from HTTP/1.1 to HTTP/2, instances of the other kind cannot be served anyway.
  const plain = protocol === "http2" || protocol === "grpc";
  const pause = pauseNow(formation?.services[service]?.pause, world.nowMs);
  return {
    name: serviceAddress(service, formation?.name ?? records[0]?.formation ?? ""),
    protocol,
    endpoints: plain ? endpoints.map(({ proxyProtocol: _told, ...endpoint }) => endpoint) : endpoints,
    split: splitOf(wanted, endpoints),
    ...(sticky === undefined ? {} : { sticky }),
    ...(pause === undefined ? {} : { pause }),
    policy: policyOf({ balancing: balancingOf(wanted) }) ?? DEFAULT_POLICY,
  };
}

/** What proxies are told of an operator's word; nothing once a hold is over. */
export function pauseNow(pause: ServicePause | undefined, nowMs: number): ClusterPause | undefined {
  switch (pause?.kind) {
    case undefined:
      return undefined;
    case "maintenance":
      return { kind: "maintenance", retryAfterSeconds: pause.retryAfterSeconds };
    case "hold": {
      const over = nowMs >= pause.sinceMs + pause.forMs;
      return over ? undefined : { kind: "hold", id: String(pause.sinceMs), forMs: pause.forMs };
    }
  }
}

/** What the stable release says about how requests are spread over its instances. */
export function balancingOf(wanted: Wanted): BalancingChoice | undefined {
  return wanted.kind === "known" ? wanted.stable.service.balancing : undefined;
}

/**
 * Instances that should run and are ready, by id. Those on a host that fell silent leave the mesh, unless a release has
 * no others: then a host that says nothing is no proof that its instances are gone, and proxies see for themselves.
 */
function endpointsOf(records: readonly InstanceRecord[], voices: ReadonlyMap<string, HostVoice>): Endpoint[] {
  const ready: Endpoint[] = [];
  const assumed: Endpoint[] = [];
  for (const record of records) {
    const address = addressOf(record);
    if (record.want !== "run" || address === undefined) continue;
    const health = healthOf(record, voices.get(record.hostId) ?? "unknown");
    const { proxyProtocol } = record.spec;
    const endpoint = {
      id: record.id,
      host: address.host,
      port: address.port,
      release: record.release,
      ...(proxyProtocol === undefined ? {} : { proxyProtocol }),
    };
    if (health === "ready") ready.push(endpoint);
    if (health === "assumed") assumed.push(endpoint);
  }
  if (assumed.length > 0) {
    const releases = new Set(ready.map((endpoint) => endpoint.release));
    ready.push(...assumed.filter((endpoint) => !releases.has(endpoint.release)));
  }
  return ready.toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

/**
 * Exact shares while a canary runs: it gets its weight, the rest goes to every other release by its endpoints, so that
 * a rollout going on at the same time does not move the canary's share. Empty without a canary.
 */
function splitOf(wanted: Wanted, endpoints: readonly Endpoint[]): Split[] {
  if (wanted.kind !== "known" || wanted.canary === undefined) return [];
  const { stable, canary } = wanted;
  const counts = new Map<number, number>();
  for (const { release } of endpoints) {
    if (release !== canary.number) counts.set(release, (counts.get(release) ?? 0) + 1);
  }
  if (counts.size <= 1) {
    const [release = stable.number] = counts.keys();
    return [
      { release, weight: stable.weight },
      { release: canary.number, weight: canary.weight },
    ];
  }
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const others = [...counts].map(([release, count]) => ({ release, weight: stable.weight * count }));
  return [
    ...others.toSorted((a, b) => a.release - b.release),
    { release: canary.number, weight: canary.weight * total },
  ];
}

/** A declared external host: one endpoint that no executor runs. */
export function egressCluster(
  name: string,
  address: string,
  protocol: Protocol,
  policy: ClusterPolicy | undefined,
  proxyProtocol?: ProxyProtocol,
): Cluster {
  const colon = address.lastIndexOf(":");
  const host = address.slice(0, colon).replace(/^\[(.*)\]$/, "$1");
  const port = Number(address.slice(colon + 1));
  return {
    name,
    protocol,
    // A proxy refuses a configuration with an impossible port as a whole, so none goes out.
    endpoints:
      host !== "" && Port.safeParse(port).success
        ? [
            {
              id: `egress/${address}`,
              host,
              port,
              release: 0,
              ...(proxyProtocol === undefined ? {} : { proxyProtocol }),
            },
          ]
        : [],
    split: [],
    policy: policy ?? DEFAULT_POLICY,
  };
}

/** What decides a cluster's policy; all of it optional. */
export interface PolicyWishes {
  readonly requestTimeoutMs?: number | undefined;
  readonly retriesMax?: number | undefined;
  readonly call?: CallLimits | undefined;
  readonly balancing?: BalancingChoice | undefined;
}

/** The policy for a caller's own limits; undefined when it declares none. The same limits give the same object. */
export function policyOf({
  requestTimeoutMs,
  retriesMax,
  call,
  balancing,
}: PolicyWishes): ClusterPolicy | undefined {
  const wishes = [requestTimeoutMs, retriesMax, call, balancing];
  if (wishes.every((wish) => wish === undefined)) return undefined;
  const key = wishes.map((wish) => (wish === undefined ? "" : canonicalJson(wish))).join("/");
  let policy = POLICIES.get(key);
  if (policy === undefined) {
    policy = ClusterPolicy.parse({
      ...policyOfCall(requestTimeoutMs, retriesMax, call ?? {}),
      ...balancing,
    });
    POLICIES.set(key, policy);
  }
  return policy;
}

export const DEFAULT_POLICY: ClusterPolicy = ClusterPolicy.parse({});
const POLICIES = new Map<string, ClusterPolicy>();
