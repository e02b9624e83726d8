import type { FormationRecord, Release, ReleaseService } from "../model/release.ts";
import type { HostState, InstanceRecord, World } from "./world.ts";

/** Readings of the world that several decisions share. What is missing is told apart from what is known to be nothing. */

export function releaseOf(world: World, formation: string, number: number): Release | undefined {
  return world.releases.get(`${formation}/${number}`);
}

/** A release of a service that should run, and how many of it. */
export interface WantedRelease {
  /** The number its instances carry: of the release in which this spec first appeared. */
  readonly number: number;
  readonly service: ReleaseService;
  readonly count: number;
  /** Per cent of the requests; stable has the rest. */
  readonly weight: number;
}

export type Wanted =
  | { readonly kind: "known"; readonly stable: WantedRelease; readonly canary: WantedRelease | undefined }
  /** The formation's current release is known and does not have it. */
  | { readonly kind: "removed" }
  /** Something needed to tell is missing: change nothing. */
  | { readonly kind: "unknown"; readonly missing: string };

/**
 * What should run of one service. Stable keeps its full count until `promote`; a canary has its share of it, rounded
 * up, and one instance also at weight 0, so that turning the weight up needs no start.
 */
export function wantedOf(world: World, formation: FormationRecord, name: string): Wanted {
  const desire = formation.services[name];
  if (desire === undefined) {
    const current = releaseOf(world, formation.name, formation.current);
    if (current === undefined) return { kind: "unknown", missing: `release ${formation.current}` };
    if (current.services[name] === undefined) return { kind: "removed" };
    return { kind: "unknown", missing: `the desired release of ${name}` };
  }
  const service = releaseOf(world, formation.name, desire.release)?.services[name];
  if (service === undefined) return { kind: "unknown", missing: `release ${desire.release} with ${name}` };
  const asked = formation.state === "down" ? 0 : (desire.count ?? service.instances);
  // Two instances on one volume would corrupt it, so such a service is single and has no canary.
  const single = service.spec.volume !== undefined;
  const count = single ? Math.min(1, asked) : asked;
  const stable = { number: service.spec.release, service, count, weight: 100 };
  if (desire.canary === undefined || single) return { kind: "known", stable, canary: undefined };

  const { release, weight } = desire.canary;
  const other = releaseOf(world, formation.name, release)?.services[name];
  if (other === undefined) return { kind: "unknown", missing: `release ${release} with ${name}` };
  if (other.spec.release === stable.number) return { kind: "known", stable, canary: undefined };
  const canary = {
    number: other.spec.release,
    service: other,
    count: count === 0 ? 0 : Math.max(1, Math.ceil((count * weight) / 100)),
    weight,
  };
  return { kind: "known", stable: { ...stable, weight: 100 - weight }, canary };
}

type Moment = Pick<World, "nowMs" | "startedAtMs" | "settings">;

/** `fresh`: heard of within silentMs. `lost`: for so long not that its instances are replaced. */
export type HostVoice = "fresh" | "silent" | "lost" | "unknown";

export function hostVoice(world: Moment, host: HostState | undefined): HostVoice {
  if (host === undefined) return "unknown";
  const { nowMs, startedAtMs, settings } = world;
  if (nowMs - Math.max(host.lastSeenMs, startedAtMs) > settings.replaceMs) return "lost";
  return nowMs - host.lastSeenMs > settings.silentMs ? "silent" : "fresh";
}

/** Whether every host that has instances spoke since control started: only then is "not ready" more than "not heard". */
export function everyHostHeard(world: World): boolean {
  const heard = new Set(
    world.hosts.filter((host) => host.lastSeenMs > world.startedAtMs).map((host) => host.id),
  );
  return world.instances.every((record) => heard.has(record.hostId));
}

export type Address = { readonly host: string; readonly port: number };

/** `assumed`: it was ready when last heard of, and nobody said otherwise. `unheard`: nobody ever spoke of it. */
export type Health = "ready" | "assumed" | "unheard" | "unready";

export function healthOf(record: InstanceRecord, voice: HostVoice): Health {
  if (record.status !== undefined) {
    if (record.status.phase !== "ready") return "unready";
    return voice === "fresh" ? "ready" : "assumed";
  }
  return record.address === undefined ? "unheard" : "assumed";
}

export function addressOf(record: InstanceRecord): Address | undefined {
  return record.status?.address ?? record.address;
}

/** Groups in order of first appearance. */
export function groupBy<Item>(items: Iterable<Item>, key: (item: Item) => string): Map<string, Item[]> {
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const name = key(item);
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [item]);
    else group.push(item);
  }
  return groups;
}
