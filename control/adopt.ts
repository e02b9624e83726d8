import type { InstanceStatus } from "../model/instance.ts";
import type { FormationRecord, Release, ReleaseService } from "../model/release.ts";
import type { RunSpec } from "../model/run-spec.ts";
import type { HostReports } from "./host-reports.ts";
import type { Write } from "./registry/registry.ts";
import type { Store } from "./store.ts";
import type { InstanceRecord } from "./world.ts";

export interface Adoptions {
  readonly writes: Write[];
  readonly texts: { formation: string; text: string }[];
  /** Sentences about instances nobody here knows. They are left alone. */
  readonly unknown: string[];
}

/**
 * What hosts report and the registry does not know. Instances of a boot manifest become a formation that is shown but
 * not changed; an instance whose release is known is taken back as wanted; any other is left running with an alarm.
 * Nothing is ever stopped for being unknown.
 */
export function adoptions(store: Store, reports: HostReports, nowMs: number): Adoptions {
  const writes: Write[] = [];
  const texts: Adoptions["texts"] = [];
  const unknown: string[] = [];
  const boot = new Map<string, { status: InstanceStatus; spec: RunSpec; hostId: string }>();
  for (const hostId of reports.hostIds) {
    for (const status of reports.get(hostId)?.instances ?? []) {
      if (status.boot !== undefined) {
        boot.set(status.instanceId, { status, spec: withoutSecrets(status.boot), hostId });
      } else if (store.instances.get(status.instanceId) === undefined && status.phase !== "stopped") {
        const record = recordOf(status, hostId, store, nowMs);
        if (record === undefined) {
          unknown.push(
            `Host ${hostId} runs ${status.instanceId}, of which the registry knows nothing; it is left alone. ` +
              `Deploy its formation again, or stop it by hand there.`,
          );
        } else {
          writes.push(store.set(store.instances, record.id, record));
          texts.push({ formation: record.formation, text: `${record.id} is adopted from host ${hostId}` });
        }
      }
    }
  }
  return { writes: [...writes, ...bootWrites(store, reports, boot, nowMs)], texts, unknown };
}

/** `<formation>-<service>-r<release>-<random>`, when that release is still known to have that service. */
function recordOf(
  { instanceId, address }: InstanceStatus,
  hostId: string,
  store: Store,
  nowMs: number,
): InstanceRecord | undefined {
  const match = /^(?<stem>[a-z0-9-]+)-r(?<release>\d{1,9})-[a-z0-9]+$/.exec(instanceId);
  const number = Number(match?.groups?.["release"]);
  for (const { name: formation, boot } of store.formations.values) {
    if (boot || !match?.groups?.["stem"]?.startsWith(`${formation}-`)) continue;
    const service = match.groups["stem"].slice(formation.length + 1);
    const spec = store
      .releasesOf(formation)
      .map((release) => release.services[service]?.spec)
      .find((spec) => spec?.release === number);
    if (spec === undefined) continue;
    return {
      id: instanceId,
      formation,
      service,
      release: number,
      hostId,
      spec,
      want: "run",
      createdAtMs: nowMs,
      boot: false,
      ...(address === undefined ? {} : { address }),
    };
  }
  return undefined;
}

type Boot = ReadonlyMap<string, { status: InstanceStatus; spec: RunSpec; hostId: string }>;

function bootWrites(store: Store, reports: HostReports, boot: Boot, nowMs: number): Write[] {
  const writes: Write[] = [];
  for (const [id, { status, spec, hostId }] of boot) {
    const known = store.instances.get(id);
    const record: InstanceRecord = {
      id,
      formation: spec.formation,
      service: spec.service,
      release: spec.release,
      hostId,
      spec,
      want: "run",
      createdAtMs: known?.createdAtMs ?? nowMs,
      boot: true,
      ...(status.address === undefined ? {} : { address: status.address }),
    };
    if (!same(known, record)) writes.push(store.set(store.instances, id, record));
  }
  // Gone from its own executor's list: it was replaced there. Forgetting it stops nothing.
  for (const { id, boot: isBoot, hostId } of store.instances.values) {
    const gone = isBoot && reports.get(hostId) !== undefined && boot.get(id)?.hostId !== hostId;
    if (gone) writes.push(store.remove(store.instances, id));
  }
  const formations = new Set([...boot.values()].map(({ spec }) => spec.formation));
  for (const formation of formations) writes.push(...bootFormation(store, formation, boot, nowMs));
  return writes;
}

/** The record and the one release of a boot formation, as its instances tell them. */
function bootFormation(store: Store, formation: string, boot: Boot, nowMs: number): Write[] {
  const writes: Write[] = [];
  const old = store.releases.get(`${formation}/1`);
  const services: Record<string, ReleaseService> = { ...old?.services };
  for (const { spec } of boot.values()) {
    if (spec.formation === formation) services[spec.service] = bootService(spec, boot);
  }
  const release: Release = {
    formation,
    number: 1,
    createdAtMs: old?.createdAtMs ?? nowMs,
    contentDigest: "boot",
    manifest: "",
    services,
    exports: [],
  };
  if (!same(old, release)) writes.push(store.set(store.releases, `${formation}/1`, release));
  const record: FormationRecord = {
    name: formation,
    state: "up",
    current: 1,
    previous: 0,
    services: Object.fromEntries(Object.keys(services).map((service) => [service, { release: 1 }])),
    boot: true,
  };
  if (!same(store.formations.get(formation), record)) {
    writes.push(store.set(store.formations, formation, record));
  }
  return writes;
}

function bootService(spec: RunSpec, boot: Boot): ReleaseService {
  const alike = [...boot.values()].filter(
    (other) => other.spec.formation === spec.formation && other.spec.service === spec.service,
  );
  return {
    name: spec.service,
    kind: "process",
    spec,
    instances: alike.length,
    edge: [],
    dependencies: spec.dependencies.map(({ name, port, optional }) => ({ name, port, optional })),
  };
}

function withoutSecrets(spec: RunSpec): RunSpec {
  return { ...spec, secrets: {} };
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
