import { hostVoice } from "../../control/facts.ts";
import { liveProxies } from "../../control/letting-go.ts";
import { reconcile } from "../../control/reconcile.ts";
import type { Action, InstanceRecord, World } from "../../control/world.ts";
import { seededRandom } from "../../base/random.ts";
import type { SimPlatform } from "./sim-platform.ts";

/** Judges every batch of actions against what is true, not what control believes. Returns what is wrong. */
export function unsafeActions(platform: SimPlatform, world: World, actions: readonly Action[]): string[] {
  return [
    ...earlyStops(platform, world, actions),
    ...thinned(platform, world, actions),
    ...sharedVolumes(platform),
    // The costliest check, so not at every tick.
    ...(world.nowMs % 2_000 === 0 ? blindActions(world) : []),
  ];
}

/** Stopped while a live proxy could still call it, or had a request in flight, before the drain timeout. */
function earlyStops(platform: SimPlatform, world: World, actions: readonly Action[]): string[] {
  return actions.flatMap((action) => {
    if (action.kind !== "stop") return [];
    const record = world.instances.find(({ id }) => id === action.instanceId);
    const sinceMs = Math.max(record?.drainSinceMs ?? world.nowMs, world.startedAtMs);
    if (world.nowMs - sinceMs >= world.settings.drainMsMax) return [];
    return platform.proxies.flatMap((proxy) => {
      const seen = world.proxies.find(({ id }) => id === proxy.id);
      const live =
        seen === undefined
          ? world.nowMs - world.startedAtMs < world.settings.proxyGoneMs
          : world.nowMs - seen.lastSeenMs < world.settings.proxyGoneMs;
      if (!live || !proxy.alive) return [];
      const holds = proxy.endpoints().has(action.instanceId) || proxy.inFlight(action.instanceId) > 0;
      return holds ? [`stops ${action.instanceId} while ${proxy.id} can call it (${action.receipt})`] : [];
    });
  });
}

/** Drains so many that fewer serve than before, and fewer than wanted. */
function thinned(platform: SimPlatform, world: World, actions: readonly Action[]): string[] {
  const draining = new Set(actions.flatMap((action) => (action.kind === "drain" ? [action.instanceId] : [])));
  if (draining.size === 0) return [];
  return world.formations.flatMap((formation) =>
    Object.entries(formation.services).flatMap(([service, desire]) => {
      const spec = world.releases.get(`${formation.name}/${desire.release}`)?.services[service];
      if (spec === undefined || formation.state === "down" || spec.spec.volume !== undefined) return [];
      const wanted = desire.count ?? spec.instances;
      const runs = world.instances.filter(
        (record) =>
          record.service === service &&
          record.want === "run" &&
          !isExtra(record, world, spec.spec.release, wanted),
      );
      const serving = runs.filter((record) => serves(platform, world, record));
      const left = serving.filter((record) => !draining.has(record.id));
      return left.length < Math.min(serving.length, wanted)
        ? [`leaves ${left.length} of ${serving.length} serving ${service}, ${wanted} wanted`]
        : [];
    }),
  );
}

function serves(platform: SimPlatform, world: World, record: InstanceRecord): boolean {
  const host = world.hosts.find(({ id }) => id === record.hostId);
  if (record.status?.phase !== "ready" || hostVoice(world, host) !== "fresh") return false;
  return liveProxies(world).every((state) => {
    const proxy = platform.proxies.find(({ id }) => id === state.id);
    return !state.wantedEndpoints.has(record.id) || proxy?.endpoints().has(record.id) === true;
  });
}

/** Younger than a full set of what is wanted that has served: an abandoned canary leaves at once, by design. */
function isExtra(record: InstanceRecord, world: World, wantedRelease: number, wanted: number): boolean {
  if (record.release === wantedRelease) return false;
  const older = world.instances.filter(
    (other) =>
      other.service === record.service &&
      other.want === "run" &&
      other.release === wantedRelease &&
      other.address !== undefined &&
      other.createdAtMs < record.createdAtMs,
  );
  return older.length >= wanted;
}

function sharedVolumes(platform: SimPlatform): string[] {
  const owners = new Map<string, string[]>();
  for (const { id, spec } of platform.hosts.flatMap((one) => one.alive())) {
    if (spec.volume !== undefined) owners.set(spec.volume, [...(owners.get(spec.volume) ?? []), id]);
  }
  return [...owners].flatMap(([volume, ids]) =>
    ids.length > 1 ? [`volume ${volume} has ${ids.join(" and ")}`] : [],
  );
}

/** What would be decided if a part of the world were missing must never drain or stop more of a service. */
function blindActions(world: World): string[] {
  const serviceOf = new Map(world.instances.map((record) => [record.id, record.service]));
  const ends = (blind: World) => {
    const counts = new Map<string, number>();
    for (const action of reconcile(blind, seededRandom(1))) {
      if (action.kind !== "drain" && action.kind !== "stop") continue;
      const what = `${action.kind}s of ${serviceOf.get(action.instanceId) ?? "?"}`;
      counts.set(what, (counts.get(what) ?? 0) + 1);
    }
    return counts;
  };
  const sighted = ends(world);
  const blindness: Record<string, World> = {
    releases: { ...world, releases: new Map() },
    formations: { ...world, formations: [] },
    hosts: { ...world, hosts: [] },
    statuses: { ...world, instances: world.instances.map(withoutStatus) },
  };
  return Object.entries(blindness).flatMap(([missing, blind]) =>
    [...ends(blind)]
      .filter(([what, count]) => count > (sighted.get(what) ?? 0))
      .map(([what, count]) => `${count} ${what} only because the ${missing} are missing`),
  );
}

function withoutStatus({ status: _status, ...record }: InstanceRecord): InstanceRecord {
  return record;
}
