import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { seededRandom } from "../base/random.ts";
import { buildMesh } from "../control/mesh.ts";
import { reconcile } from "../control/reconcile.ts";
import type { HostState, InstanceRecord, World } from "../control/world.ts";
import type { FormationRecord, Release } from "../model/release.ts";
import { formation, host, release, world } from "../test/fixtures/world.ts";

/**
 * How long control takes to decide for a large platform, on one core and without any I/O: everything placed from
 * nothing, the look at a settled platform, and the look after one service changed.
 */
const USAGE = `node loadtest/placement.ts [--hosts 5000] [--instances 100000] [--rounds 5]`;

const INSTANCES_PER_SERVICE = 50;
const SERVICES_PER_FORMATION = 20;

function formationNames(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `f${index}`);
}

/** Services of every size, so that packing has something to do. */
function releaseOf(name: string, number: number, changed: string | undefined): Release {
  const services = Array.from({ length: SERVICES_PER_FORMATION }, (_, index) => {
    const service = `s${index}`;
    const spec = {
      release: service === changed ? number : 1,
      resources: { cpu: 0.05 * (1 + (index % 4)), memoryBytes: (64 + 64 * (index % 3)) * 1024 ** 2 },
    };
    const dependencies = index === 0 ? {} : { [`s${index - 1}`]: 7_001 };
    return [service, { spec, instances: INSTANCES_PER_SERVICE, dependencies }] as const;
  });
  return release(number, Object.fromEntries(services), { formation: name });
}

function desireOf(name: string, number: number): FormationRecord {
  const services = Array.from({ length: SERVICES_PER_FORMATION }, (_, index) => [
    `s${index}`,
    { release: number },
  ]);
  return formation(Object.fromEntries(services), { name });
}

function hostsOf(count: number): HostState[] {
  return Array.from({ length: count }, (_, index) =>
    host(`h${index}`, {
      capacity: { cpu: 4 + (index % 3) * 4, memoryBytes: (8 + (index % 3) * 8) * 1024 ** 3 },
    }),
  );
}

function ready(record: InstanceRecord, index: number): InstanceRecord {
  const address = { host: `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`, port: 8080 };
  const status = {
    instanceId: record.id,
    phase: "ready",
    reason: "",
    restarts: 0,
    lastLines: [],
    address,
  } as const;
  return { ...record, address, status: { ...status, lastLines: [] } };
}

/** CPU time of the process, so that a busy machine does not count; garbage collection does. */
function timed<Result>(run: () => Result): { ms: number; result: Result } {
  const start = process.cpuUsage();
  const result = run();
  const { user, system } = process.cpuUsage(start);
  return { ms: (user + system) / 1000, result };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

function main(): void {
  const { values } = parseArgs({
    options: {
      hosts: { type: "string", default: "5000" },
      instances: { type: "string", default: "100000" },
      rounds: { type: "string", default: "5" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const rounds = Array.from({ length: Number(values.rounds) });
  const count = Math.ceil(Number(values.instances) / (INSTANCES_PER_SERVICE * SERVICES_PER_FORMATION));
  const names = formationNames(count);
  const empty = world({
    formations: names.map((name) => desireOf(name, 1)),
    releases: names.map((name) => releaseOf(name, 1, undefined)),
    hosts: hostsOf(Number(values.hosts)),
  });
  const placing = timed(() => reconcile(empty, seededRandom(1)));
  const records = placing.result.flatMap((action) => (action.kind === "place" ? [action.record] : []));
  const perHost = new Map<string, number>();
  for (const { hostId } of records) perHost.set(hostId, (perHost.get(hostId) ?? 0) + 1);

  const settled: World = { ...empty, instances: records.map(ready) };
  const looks = rounds.map(() => timed(() => reconcile(settled, seededRandom(2))));
  const next = releaseOf("f0", 2, "s7");
  const changed: World = {
    ...settled,
    formations: [desireOf("f0", 2), ...settled.formations.slice(1)],
    releases: new Map([...settled.releases, ["f0/2", next]]),
  };
  const changes = rounds.map(() => timed(() => reconcile(changed, seededRandom(3))));
  const mesh = timed(() => buildMesh(settled));
  const meshes = rounds.map(() => timed(() => buildMesh(changed, mesh.result)));

  const ms = (value: number) => `${value < 100 ? value.toFixed(1) : Math.round(value)} ms`;
  console.log(`${cpus()[0]?.model ?? "?"}, Node ${process.versions.node}`);
  console.log(`${values.hosts} hosts, ${records.length} of ${count * 1000} instances placed`);
  console.log(
    `instances on a host          ${Math.min(...perHost.values())} to ${Math.max(...perHost.values())}`,
  );
  console.log(`all placed from nothing      ${ms(placing.ms)}`);
  console.log(
    `look, nothing to do          ${ms(median(looks.map((one) => one.ms)))} (${looks[0]?.result.length} actions)`,
  );
  console.log(
    `look, one service changed    ${ms(median(changes.map((one) => one.ms)))} (${changes[0]?.result.length} actions)`,
  );
  console.log(`mesh from nothing            ${ms(mesh.ms)}`);
  console.log(`mesh, one service changed    ${ms(median(meshes.map((one) => one.ms)))}`);
}

main();
