import type { Random } from "../base/random.ts";
import type { FormationRecord } from "../model/release.ts";
import type { RunSpec } from "../model/run-spec.ts";
import { buildOf, buildState } from "./builds.ts";
import { groupBy, wantedOf, type WantedRelease } from "./facts.ts";
import { Proxies } from "./letting-go.ts";
import { rollout, Standings } from "./rollout.ts";
import { HostIndex, placeInstance, type Placement } from "./scheduler.ts";
import type { Action, InstanceRecord, World } from "./world.ts";

/**
 * The steps from what is to what is wanted; empty when there is nothing to do now. Total: whatever is missing from the
 * world (hosts, proxies, releases, whole formations) leads to no action for what depends on it, never to a stop.
 * Boot instances are the executor's own and never touched.
 */
export function reconcile(world: World, random: Random): Action[] {
  const plan = new Plan(world, random);
  for (const record of world.instances) settleRecord(plan, record);
  const byFormation = groupBy(world.instances, (record) => record.formation);
  for (const formation of world.formations) {
    if (formation.boot) continue;
    const records = groupBy(byFormation.get(formation.name) ?? [], (record) => record.service);
    for (const service of servicesInOrder(world, formation, records.keys())) {
      reconcileService(plan, formation, service, records.get(service) ?? []);
    }
  }
  return plan.actions;
}

/** Collects actions and keeps the picture of the hosts current while it does. */
class Plan {
  readonly world: World;
  readonly actions: Action[] = [];
  readonly proxies: Proxies;
  readonly standings: Standings;
  readonly #random: Random;
  /** Given out in this plan. */
  readonly #ids = new Set<string>();
  #hosts: HostIndex | undefined;
  #owners: Map<string, Set<string>> | undefined;

  constructor(world: World, random: Random) {
    this.world = world;
    this.proxies = new Proxies(world);
    this.standings = new Standings(world, this.proxies);
    this.#random = random;
  }

  drain(record: InstanceRecord, reason: string): void {
    this.actions.push({ kind: "drain", instanceId: record.id, reason });
  }

  /** Places one instance, or says why it cannot be. */
  place(wanted: WantedRelease, onlyHost?: string): Placement {
    const { spec } = wanted.service;
    this.#hosts ??= new HostIndex(this.world);
    const placement = placeInstance(this.#hosts, spec, this.#random, {
      onlyHost,
      refusal: (hostId) => buildRefusal(this.world, spec, hostId),
    });
    if (placement.kind === "impossible") return placement;
    const record: InstanceRecord = {
      id: this.#newId(spec),
      formation: spec.formation,
      service: spec.service,
      release: wanted.number,
      hostId: placement.hostId,
      spec,
      want: "run",
      createdAtMs: this.world.nowMs,
      boot: false,
    };
    this.#hosts.add(record);
    if (spec.volume !== undefined) this.owners(spec.volume).add(record.id);
    this.actions.push({ kind: "place", record });
    return placement;
  }

  /** Whether a new instance could start where `old` is, once that has gone: its image is built and there is room. */
  couldTakeOver(wanted: WantedRelease, old: InstanceRecord): boolean {
    const { spec } = wanted.service;
    const build = buildState(this.world, spec, old.hostId);
    if (build !== "none" && build !== "ready") return false;
    this.#hosts ??= new HostIndex(this.world);
    this.#hosts.remove(old);
    const placement = placeInstance(this.#hosts, spec, this.#random, { onlyHost: old.hostId });
    this.#hosts.add(old);
    return placement.kind === "placed";
  }

  /** Ids of everything that has the volume or may have it, until it is known to have stopped. */
  owners(volume: string): Set<string> {
    if (this.#owners === undefined) {
      const holding = this.world.instances.filter((record) => !isStopped(record));
      const byVolume = groupBy(holding, (record) => record.spec.volume ?? "");
      this.#owners = new Map(
        [...byVolume].map(([name, group]) => [name, new Set(group.map(({ id }) => id))]),
      );
    }
    const owners = this.#owners.get(volume) ?? new Set<string>();
    this.#owners.set(volume, owners);
    return owners;
  }

  /** Unlikely to be taken; should it be, the registry refuses to create the record a second time. */
  #newId(spec: RunSpec): string {
    const tail = Array.from({ length: 5 }, () => BASE32.charAt(Math.floor(this.#random() * 32))).join("");
    const id = `${spec.formation}-${spec.service}-r${spec.release}-${tail}`;
    if (this.#ids.has(id)) return this.#newId(spec);
    this.#ids.add(id);
    return id;
  }
}

/** RFC 4648's alphabet in lower case: no digit that looks like a letter. */
const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";

function buildRefusal(world: World, spec: RunSpec, hostId: string): string | undefined {
  const build = buildOf(world, spec, hostId);
  return build?.state === "failed" ? `the build failed on host ${hostId}: ${build.reason}` : undefined;
}

/** What follows for one instance from its own state: remember its address, stop it, forget it. */
function settleRecord(plan: Plan, record: InstanceRecord): void {
  if (record.boot) return;
  switch (record.want) {
    case "run": {
      const { status, address } = record;
      if (status?.phase !== "ready" || status.address === undefined) return;
      if (address?.host === status.address.host && address.port === status.address.port) return;
      plan.actions.push({ kind: "remember", instanceId: record.id, address: status.address });
      return;
    }
    case "drain": {
      const release = plan.proxies.haveLetGo(record);
      if (release.kind === "done") {
        plan.actions.push({ kind: "stop", instanceId: record.id, receipt: release.receipt });
      }
      return;
    }
    case "stop":
      if (isStopped(record)) plan.actions.push({ kind: "forget", instanceId: record.id });
  }
}

/** Told to stop and known to have: its volume is free. */
function isStopped(record: InstanceRecord): boolean {
  return record.want === "stop" && record.status?.phase === "stopped";
}

function reconcileService(
  plan: Plan,
  formation: FormationRecord,
  service: string,
  records: readonly InstanceRecord[],
): void {
  const running = records.filter((record) => record.want === "run" && !record.boot);
  const wanted = wantedOf(plan.world, formation, service);
  switch (wanted.kind) {
    case "unknown":
      return;
    case "removed":
      for (const record of running) plan.drain(record, "its service is no longer in the release");
      return;
    case "known":
  }
  if (formation.state === "down") {
    for (const record of running) plan.drain(record, `formation ${formation.name} is down`);
    return;
  }
  const { stable, canary } = wanted;
  // `stopped` is final for an executor: what stopped unasked (a host that started afresh) is replaced.
  const [ended, alive] = partition(running, (record) => record.status?.phase === "stopped");
  for (const record of ended) plan.drain(record, "it stopped without being asked to");

  if (stable.service.spec.volume !== undefined) {
    recreate(plan, stable, stable.service.spec.volume, records, alive);
    return;
  }
  const [canaries, others] = partition(alive, (record) => record.release === canary?.number);
  const steps = [];
  if (canary !== undefined) {
    const step = rollout(plan.standings, canary, canaries);
    // What the canary does not need may be the old release of a rollout that is not over: stable decides.
    others.push(...step.drain.map(({ record }) => record));
    steps.push(step);
  }
  const main = rollout(plan.standings, stable, others);
  for (const { record, reason } of main.drain) plan.drain(record, reason);
  // Stable first, should there not be room for all.
  steps.unshift(main);
  for (const { wanted, start } of steps) {
    for (let index = 0; index < start; index += 1) {
      if (plan.place(wanted).kind === "impossible") break;
    }
  }
}

/**
 * One instance on one volume, never two: the old one must have stopped before the new one is placed, on the host that
 * has the volume. It drains only once its successor could start, so a failing build costs nothing.
 */
function recreate(
  plan: Plan,
  wanted: WantedRelease,
  volume: string,
  records: readonly InstanceRecord[],
  alive: readonly InstanceRecord[],
): void {
  const [current, old] = partition(alive, (record) => record.release === wanted.number);
  const keep = plan.standings.best(current, wanted.count);
  for (const record of current) {
    if (keep.includes(record)) continue;
    plan.drain(record, wanted.count === 0 ? "scaled to 0" : `volume ${volume} has another instance`);
  }
  for (const record of old) {
    if (wanted.count === 0) plan.drain(record, "scaled to 0");
    else if (plan.couldTakeOver(wanted, record)) {
      plan.drain(record, `release ${wanted.number} takes over its volume`);
    }
  }
  if (wanted.count === 0 || plan.owners(volume).size > 0) return;
  const lastHost = records.find((record) => record.spec.volume === volume)?.hostId;
  plan.place(wanted, plan.world.volumes.get(volume) ?? lastHost);
}

/**
 * Services the release names, dependencies first, then those that only have instances left. The order decides who gets
 * room and the first start; nobody waits for it, being ready is each service's own affair.
 */
function servicesInOrder(
  world: World,
  formation: FormationRecord,
  withInstances: Iterable<string>,
): Set<string> {
  const ordered = new Set<string>();
  const visiting = new Set<string>();
  const visit = (name: string) => {
    if (ordered.has(name) || visiting.has(name)) return;
    visiting.add(name);
    const wanted = wantedOf(world, formation, name);
    if (wanted.kind === "known") {
      for (const { target } of wanted.stable.service.dependencies) {
        const [service, home] = target?.split(".") ?? [];
        if (home === formation.name && service !== undefined && formation.services[service] !== undefined) {
          visit(service);
        }
      }
    }
    ordered.add(name);
  };
  for (const name of Object.keys(formation.services).toSorted()) visit(name);
  for (const name of withInstances) ordered.add(name);
  return ordered;
}

function partition<Item>(items: readonly Item[], test: (item: Item) => boolean): [Item[], Item[]] {
  return [items.filter(test), items.filter((item) => !test(item))];
}

/** Why an instance of `spec` could not be placed now; undefined when it could. For explanations. */
export function placementTrouble(world: World, spec: RunSpec): string | undefined {
  const onlyHost = spec.volume === undefined ? undefined : world.volumes.get(spec.volume);
  const placement = placeInstance(new HostIndex(world), spec, () => 0, {
    onlyHost,
    refusal: (hostId) => buildRefusal(world, spec, hostId),
  });
  return placement.kind === "impossible" ? placement.reason : undefined;
}
