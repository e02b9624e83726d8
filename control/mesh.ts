import type { CallLimits } from "../model/call-limits.ts";
import { isDeepStrictEqual } from "node:util";
import type { Cluster, Edge, Endpoint, MeshConfig, PublicRoute } from "../model/mesh.ts";
import { parseServiceAddress, serviceAddress } from "../model/names.ts";
import type { BalancingChoice, FormationRecord, ReleaseDependency } from "../model/release.ts";
import type { RouteActions } from "../model/route.ts";
import {
  balancingOf,
  clusterOf,
  DEFAULT_POLICY,
  egressCluster,
  policyOf,
  type PolicyWishes,
} from "./clusters.ts";
import { groupBy, hostVoice, releaseOf, wantedOf, type HostVoice } from "./facts.ts";
import { publicRoutes } from "./routes.ts";
import type { InstanceRecord, World } from "./world.ts";

/** Everything that any proxy may be told. Items are shared with the configurations cut from it. */
export interface Mesh {
  readonly clusters: ReadonlyMap<string, Cluster>;
  /** By the calling service's address. */
  readonly edges: ReadonlyMap<string, readonly Edge[]>;
  readonly routes: readonly PublicRoute[];
  /** Addresses of the services with an instance on the host, draining and stopping ones included; sorted. */
  readonly servicesByHost: ReadonlyMap<string, readonly string[]>;
  /** Plain words for what was left out. */
  readonly problems: readonly string[];
}

export type MeshScope = Pick<MeshConfig, "clusters" | "edges" | "routes">;

/**
 * The mesh of a world: ready instances by service, who may call whom, and the public routes. What equals an item of
 * `previous` is that same object, so that a change is found by comparing references.
 */
export function buildMesh(world: World, previous?: Mesh): Mesh {
  const voices = new Map<string, HostVoice>(world.hosts.map((host) => [host.id, hostVoice(world, host)]));
  const records = byService(world.instances);
  const formations = new Map(world.formations.map((formation) => [formation.name, formation]));
  const clusters = new Map<string, Cluster>();
  const add = (cluster: Cluster) => {
    const before = previous?.clusters.get(cluster.name);
    clusters.set(cluster.name, before !== undefined && sameCluster(before, cluster) ? before : cluster);
  };
  const addresses = new Set<string>(records.keys());
  for (const { name, services } of world.formations) {
    for (const service of Object.keys(services)) addresses.add(serviceAddress(service, name));
  }
  for (const address of addresses) {
    const { service, formation } = parseServiceAddress(address, "");
    add(clusterOf(world, formations.get(formation), service, records.get(address) ?? [], voices));
  }
  const edges = new Map<string, readonly Edge[]>();
  for (const address of addresses) {
    const own = edgesOf(world, formations, address, records.get(address) ?? [], clusters, add);
    const before = previous?.edges.get(address);
    edges.set(address, before !== undefined && sameItems(before, own) ? before : own);
  }
  const { routes, conflicts } = publicRoutes(world);
  const before = previous?.routes;
  return {
    clusters,
    edges,
    routes: before !== undefined && sameItems(before, routes) ? before : routes,
    servicesByHost: servicesByHost(records),
    problems: conflicts,
  };
}

/** Instances by their service's address. In two steps, because joining two strings for each is what would cost. */
function byService(instances: readonly InstanceRecord[]): Map<string, InstanceRecord[]> {
  const services = new Map<string, InstanceRecord[]>();
  for (const [formation, own] of groupBy(instances, (record) => record.formation)) {
    for (const [service, records] of groupBy(own, (record) => record.service)) {
      services.set(serviceAddress(service, formation), records);
    }
  }
  return services;
}

/** What concerns one proxy: an edge has the routes, a sidecar the dependencies of the services on its host. */
export function scopeOf(mesh: Mesh, proxy: { kind: "edge" | "sidecar"; hostId: string }): MeshScope {
  const edges =
    proxy.kind === "edge"
      ? []
      : (mesh.servicesByHost.get(proxy.hostId) ?? []).flatMap((from) => mesh.edges.get(from) ?? []);
  const routes = proxy.kind === "edge" ? [...mesh.routes] : [];
  const named = new Set(
    [...edges, ...routes].flatMap(({ cluster, actions }) => [
      cluster,
      ...(actions?.filters ?? []).flatMap(({ clusters = {} }) => Object.values(clusters)),
    ]),
  );
  const clusters = [...named].flatMap((name) => mesh.clusters.get(name) ?? []);
  return { clusters, edges, routes };
}

/**
 * The declared dependencies of a service: of every release that should run or still has instances. Where two releases
 * differ on a name, stable's word counts, then the canary's.
 */
function edgesOf(
  world: World,
  formations: ReadonlyMap<string, FormationRecord>,
  from: string,
  records: readonly InstanceRecord[],
  clusters: ReadonlyMap<string, Cluster>,
  add: (cluster: Cluster) => void,
): Edge[] {
  const { service, formation } = parseServiceAddress(from, "");
  const edges = new Map<string, Edge>();
  for (const dependency of declaredBy(world, formations.get(formation), service, records)) {
    const { name, port, protocol, address, proxyProtocol } = dependency;
    const id = `${from}/${name}`;
    if (edges.has(id)) continue;
    const target = address ?? dependency.target;
    if (address === undefined && !mayCall(world, formations, formation, target)) continue;
    const policy = policyOf(ownWishes(world, formations, dependency));
    // A caller with limits of its own has a cluster of its own: the same endpoints under another policy.
    const cluster = policy === undefined && proxyProtocol === undefined ? target : `${target}@${id}`;
    const { actions } = dependency;
    edges.set(id, {
      id,
      from,
      dependency: name,
      port,
      protocol,
      cluster,
      ...(actions === undefined ? {} : { actions }),
    });
    if (clusters.has(cluster)) continue;
    if (address !== undefined) {
      add(egressCluster(cluster, address, protocol, policy, proxyProtocol));
    } else {
      const shared = clusters.get(target) ?? { ...EMPTY, name: target, protocol };
      add({ ...shared, name: cluster, ...(policy === undefined ? {} : { policy }) });
    }
  }
  return [...edges.values()].toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

/** Of a service that is declared and does not exist yet: the port is there, the answer is 503 with a reason. */
const EMPTY = { endpoints: [], split: [], policy: DEFAULT_POLICY };

/** A caller with limits of its own keeps what the service itself says about balancing, unless it says otherwise. */
function ownWishes(
  world: World,
  formations: ReadonlyMap<string, FormationRecord>,
  declared: Declared,
): PolicyWishes {
  const { requestTimeoutMs, retriesMax, call, balancing } = declared;
  const own = [requestTimeoutMs, retriesMax, call, balancing].some((wish) => wish !== undefined);
  if (!own || balancing !== undefined || declared.address !== undefined) return declared;
  const { service, formation } = parseServiceAddress(declared.target, "");
  const record = formations.get(formation);
  return { ...declared, balancing: record && balancingOf(wantedOf(world, record, service)) };
}

interface Declared {
  readonly name: string;
  readonly port: number;
  readonly protocol: Edge["protocol"];
  readonly target: string;
  readonly address: string | undefined;
  readonly proxyProtocol: Endpoint["proxyProtocol"];
  readonly requestTimeoutMs: number | undefined;
  readonly retriesMax: number | undefined;
  readonly call: CallLimits | undefined;
  readonly actions: RouteActions | undefined;
  readonly balancing: BalancingChoice | undefined;
}

function declaredBy(
  world: World,
  formation: FormationRecord | undefined,
  service: string,
  records: readonly InstanceRecord[],
): Declared[] {
  const wanted = formation === undefined ? undefined : wantedOf(world, formation, service);
  const releases =
    wanted?.kind === "known" ? [wanted.stable, wanted.canary].filter((one) => one !== undefined) : [];
  const declared = releases.flatMap(({ service: { spec, dependencies } }) => declaredIn(spec, dependencies));
  const seen = new Set(releases.map((release) => release.number));
  for (const { release, spec } of records) {
    if (seen.has(release)) continue;
    seen.add(release);
    const old = releaseOf(world, spec.formation, release)?.services[service];
    declared.push(...declaredIn(spec, old?.dependencies ?? []));
  }
  return declared;
}

function declaredIn(
  spec: InstanceRecord["spec"],
  resolved: readonly Pick<ReleaseDependency, keyof Declared & keyof ReleaseDependency>[],
): Declared[] {
  return spec.dependencies.map(({ name, port, protocol }) => {
    const more = resolved.find((dependency) => dependency.name === name);
    const { service, formation } = parseServiceAddress(name, spec.formation);
    return {
      name,
      port,
      protocol,
      target: more?.target ?? serviceAddress(service, formation),
      address: more?.address,
      proxyProtocol: more?.address === undefined ? undefined : more.proxyProtocol,
      requestTimeoutMs: more?.requestTimeoutMs,
      retriesMax: more?.retriesMax,
      call: more?.call,
      actions: more?.actions,
      balancing: more?.balancing,
    };
  });
}

/** Inside a formation always; across, what the other's current release exports. Unknown is no reason to cut a call. */
function mayCall(
  world: World,
  formations: ReadonlyMap<string, FormationRecord>,
  home: string,
  target: string,
): boolean {
  const { service, formation } = parseServiceAddress(target, home);
  const other = formations.get(formation);
  if (formation === home || other === undefined || other.boot) return true;
  const release = releaseOf(world, formation, other.current);
  return release === undefined || release.exports.includes(service);
}

function servicesByHost(
  records: ReadonlyMap<string, readonly InstanceRecord[]>,
): Map<string, readonly string[]> {
  const hosts = new Map<string, Set<string>>();
  for (const [address, group] of records) {
    for (const { hostId } of group) {
      const services = hosts.get(hostId);
      if (services === undefined) hosts.set(hostId, new Set([address]));
      else services.add(address);
    }
  }
  return new Map([...hosts].map(([host, services]) => [host, [...services].toSorted()]));
}

function sameCluster(a: Cluster, b: Cluster): boolean {
  return (
    a.protocol === b.protocol &&
    sameEndpoints(a.endpoints, b.endpoints) &&
    sameItems(a.split, b.split) &&
    a.sticky?.by === b.sticky?.by &&
    a.sticky?.name === b.sticky?.name &&
    isDeepStrictEqual(a.pause, b.pause) &&
    // Policies are made once for each set of limits (clusters.ts), so equal ones are the same object.
    a.policy === b.policy
  );
}

function sameEndpoints(a: readonly Endpoint[], b: readonly Endpoint[]): boolean {
  return (
    a.length === b.length &&
    a.every((one, index) => {
      const other = b[index];
      return (
        one.id === other?.id &&
        one.host === other.host &&
        one.port === other.port &&
        one.release === other.release &&
        one.proxyProtocol === other.proxyProtocol
      );
    })
  );
}

/** Records compared field by field. */
function sameItems(a: readonly object[], b: readonly object[]): boolean {
  if (a.length !== b.length) return false;
  return a.every((item, index) => {
    const other = b[index] as Record<string, unknown>;
    if (Object.keys(item).length !== Object.keys(other).length) return false;
    return Object.entries(item).every(
      ([key, value]) =>
        other[key] === value || (typeof value === "object" && isDeepStrictEqual(other[key], value)),
    );
  });
}
