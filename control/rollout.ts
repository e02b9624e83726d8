import { healthOf, hostVoice, type HostVoice, type WantedRelease } from "./facts.ts";
import type { Proxies } from "./letting-go.ts";
import type { InstanceRecord, World } from "./world.ts";

/** How well an instance is known to serve; a change lets go of the lowest first. */
export const STANDING = {
  unready: 0,
  unheard: 1,
  /** It was ready when last heard of: it may well be serving. */
  assumed: 2,
  /** Ready, but not every proxy that should call it has acknowledged it. */
  ready: 3,
  /** Ready, and in every proxy that should call it. */
  serving: 4,
} as const;
export type Standing = keyof typeof STANDING;

/** Looks up what a rollout asks of instances: health, host, traffic. */
export class Standings {
  readonly #world: World;
  readonly #proxies: Proxies;
  readonly #voices: ReadonlyMap<string, HostVoice>;
  readonly #draining: ReadonlySet<string>;
  readonly #well: ReadonlySet<string>;

  constructor(world: World, proxies: Proxies) {
    this.#world = world;
    this.#proxies = proxies;
    this.#voices = new Map(world.hosts.map((host) => [host.id, hostVoice(world, host)]));
    this.#draining = new Set(world.hosts.filter((host) => host.draining).map((host) => host.id));
    const well = world.hosts.filter((host) => !host.draining && this.#voices.get(host.id) === "fresh");
    this.#well = new Set(well.map((host) => host.id));
  }

  /** Whether these are all of the release, on hosts that are well: with the right count there is nothing to do. */
  areSettled(records: readonly InstanceRecord[], release: number): boolean {
    return records.every((record) => record.release === release && this.#well.has(record.hostId));
  }

  voice(record: InstanceRecord): HostVoice {
    return this.#voices.get(record.hostId) ?? hostVoice(this.#world, undefined);
  }

  onDrainingHost(record: InstanceRecord): boolean {
    return this.#draining.has(record.hostId);
  }

  of(record: InstanceRecord): Standing {
    const health = healthOf(record, this.voice(record));
    if (health !== "ready") return health;
    // As long as there may be proxies control has not heard of, nothing is known to be in all of them.
    return this.#proxies.heard && this.#proxies.haveTakenUp(record) ? "serving" : "ready";
  }

  /** The `count` to keep: best standing first, then the oldest, so that a rollout undone early changes least. */
  best(records: readonly InstanceRecord[], count: number): InstanceRecord[] {
    if (records.length <= count) return [...records];
    return records
      .map((record) => ({ record, standing: STANDING[this.of(record)] }))
      .toSorted(
        (a, b) =>
          b.standing - a.standing ||
          a.record.createdAtMs - b.record.createdAtMs ||
          (a.record.id < b.record.id ? -1 : 1),
      )
      .slice(0, count)
      .map(({ record }) => record);
  }
}

export interface RolloutStep {
  readonly wanted: WantedRelease;
  /** How many to start now. */
  readonly start: number;
  readonly drain: readonly { readonly record: InstanceRecord; readonly reason: string }[];
}

/**
 * One step of a rolling replacement: start up to the surge, and let an old instance drain for each new one that serves.
 * A release that never serves therefore never costs an old instance; an old instance that is not serving goes first.
 * `records` are those of the service that want to run, of any release.
 */
export function rollout(
  standings: Standings,
  wanted: WantedRelease,
  records: readonly InstanceRecord[],
): RolloutStep {
  const { count, number } = wanted;
  if (count === 0) {
    return { wanted, start: 0, drain: records.map((record) => ({ record, reason: "scaled to 0" })) };
  }
  if (records.length === count && standings.areSettled(records, number))
    return { wanted, start: 0, drain: [] };
  // Nothing can be said of instances on a lost host: they are replaced, and are surplus should the host come back.
  const known = records.filter((record) => standings.voice(record) !== "lost");
  const current: InstanceRecord[] = [];
  const old: InstanceRecord[] = [];
  for (const record of known) {
    const stays = record.release === number && !standings.onDrainingHost(record);
    (stays ? current : old).push(record);
  }
  const keptCurrent = new Set(standings.best(current, count));
  const isExtra = extras(standings, wanted, [...keptCurrent]);
  const isServing = (record: InstanceRecord) => standings.of(record) === "serving";
  const replaced = old.filter((record) => !isExtra(record));
  const served = replaced.length === 0 ? 0 : [...keptCurrent].filter(isServing).length;
  const keptOld = new Set(standings.best(replaced, Math.max(0, count - served)));

  const dropped = known.filter((record) => !keptCurrent.has(record) && !keptOld.has(record));
  // What may be serving is let go only for others that are known to. A host missing from the world proves nothing:
  // what is surplus cannot be told from what was lost.
  const blind = records.some((record) => standings.voice(record) === "unknown");
  const enough = dropped.length > 0 && [...keptCurrent, ...keptOld].filter(isServing).length >= count;
  const drain = dropped
    .filter((record) => !blind && (enough || isExtra(record) || standings.of(record) === "unready"))
    .map((record) => ({ record, reason: drainReason(standings, wanted, record) }));
  const surge = Math.max(1, Math.ceil(count * SURGE_SHARE));
  const room = count + surge - (known.length - drain.length);
  const start = Math.max(0, Math.min(count - keptCurrent.size, room));
  return { wanted, start, drain };
}

/**
 * Tells those that were added on top of a full set which had served before: an abandoned canary, a release given up
 * early. They have nothing to hand over and leave at once, so that going back takes a bad release out of traffic
 * without waiting for anything, be it one of the set that just restarts.
 */
function extras(
  standings: Standings,
  { count, number }: WantedRelease,
  current: readonly InstanceRecord[],
): (record: InstanceRecord) => boolean {
  const hasServed = ({ address, status }: InstanceRecord) => address !== undefined && status !== undefined;
  const full =
    current.length === count &&
    current.every((record) => hasServed(record) && standings.voice(record) === "fresh");
  if (!full) return () => false;
  const youngestMs = Math.max(...current.map((record) => record.createdAtMs));
  return (record) => record.release !== number && record.createdAtMs > youngestMs;
}

/** How many instances beyond the count a rollout may run, as a share of it; at least one. */
const SURGE_SHARE = 0.25;

function drainReason(standings: Standings, wanted: WantedRelease, record: InstanceRecord): string {
  if (record.release !== wanted.number) return `release ${wanted.number} replaces it`;
  if (standings.onDrainingHost(record)) return `host ${record.hostId} is draining`;
  return `scaled to ${wanted.count}`;
}
