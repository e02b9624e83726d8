import { median } from "./figures.ts";
import type { Sample } from "./figures.ts";
import { openLoop, ownCommand } from "./generators.ts";
import { peerFolder } from "./peers.ts";
import type { Certificate, Peer } from "./peers.ts";
import { cpuMicroseconds, freePort, residentBytes, startInteractive, waitForPort } from "./processes.ts";
import type { Cores } from "./processes.ts";
import type { Kind, Scenario } from "./scenarios.ts";

export interface PeerResult {
  readonly peer: string;
  readonly version: string;
  readonly samples: Sample[];
}

export interface Bench {
  readonly cores: Cores;
  readonly folder: string;
  readonly certificate: Certificate;
  readonly upstreamPorts: readonly number[];
  readonly rounds: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

type KindOf<Name extends Kind["name"]> = Extract<Kind, { name: Name }>;
const LATENCY_CONNECTIONS = 64;

/**
 * Rounds are interleaved: every peer once, then every peer again, each time beginning with another, so that a
 * disturbance of the machine does not fall on one of them alone.
 */
export async function measure(
  scenario: Scenario,
  peers: readonly Peer[],
  bench: Bench,
): Promise<PeerResult[]> {
  const results = peers.map((peer): PeerResult => ({
    peer: peer.name,
    version: peer.version() ?? "",
    samples: [],
  }));
  const rates =
    scenario.kind.name === "latency" ? await halfLoads(scenario, scenario.kind, peers, bench) : [];
  for (let round = 0; round < bench.rounds; round++) {
    for (let index = 0; index < peers.length; index++) {
      const which = (index + round) % peers.length;
      const result = results[which]!;
      const sample = await measureOnce(scenario, peers[which]!, bench, rates[which] ?? 0);
      result.samples.push(sample);
      const figures = scenario.figures.map((figure) => `${figure} ${sample[figure]?.toFixed(2)}`).join(", ");
      process.stderr.write(`${scenario.name} round ${round + 1}: ${result.peer} ${figures}\n`);
    }
  }
  return results;
}

function measureOnce(scenario: Scenario, peer: Peer, bench: Bench, rate: number): Promise<Sample> {
  const { kind } = scenario;
  switch (kind.name) {
    case "load":
      return withPeer(scenario, peer, bench, (port, pid) => underLoad(kind, bench, port, pid));
    case "latency":
      return atRate(scenario, kind, peer, bench, rate);
    case "idle":
      return withPeer(scenario, peer, bench, (port, pid) => withIdle(kind, bench, port, pid));
  }
}

async function underLoad(kind: KindOf<"load">, bench: Bench, port: number, pid: number): Promise<Sample> {
  let before = 0;
  const begun = () => {
    before = cpuMicroseconds(pid);
  };
  if (bench.warmUpSeconds > 0) await kind.load(bench.cores.load, port, bench.warmUpSeconds, begun);
  begun();
  const load = await kind.load(bench.cores.load, port, bench.seconds, begun);
  const used = cpuMicroseconds(pid) - before;
  const { perSecond, failures } = load;
  return { cpu: used / load.requests, perSecond, failures, residentMb: residentBytes(pid) / 1e6 };
}

/** Half of what each can do, and never more than half of what the reference can. */
async function halfLoads(
  scenario: Scenario,
  kind: KindOf<"latency">,
  peers: readonly Peer[],
  bench: Bench,
): Promise<number[]> {
  const most: number[] = [];
  for (const peer of peers) {
    const { perSecond } = await withPeer(scenario, peer, bench, async (port) => {
      await kind.load(bench.cores.load, port, Math.max(1, bench.warmUpSeconds));
      return kind.load(bench.cores.load, port, Math.min(2, bench.seconds));
    });
    most.push(perSecond);
  }
  const reference = most[peers.findIndex(({ name }) => name === kind.reference)] ?? 10_000;
  return most.map((perSecond) => Math.min(perSecond, reference) / 2);
}

/** The same requests go to an upstream without a proxy right before, so that both see the same machine. */
async function atRate(
  scenario: Scenario,
  kind: KindOf<"latency">,
  peer: Peer,
  bench: Bench,
  rate: number,
): Promise<Sample> {
  const { load } = bench.cores;
  const seconds = Math.max(2, bench.seconds);
  return withPeer(scenario, peer, bench, async (port) => {
    if (bench.warmUpSeconds > 0) await kind.load(load, port, bench.warmUpSeconds);
    const direct = await openLoop(load, bench.upstreamPorts[0]!, rate, LATENCY_CONNECTIONS, seconds);
    const through = await openLoop(load, port, rate, LATENCY_CONNECTIONS, seconds);
    const { msP50, msP99, msP999, perSecond, failures } = through;
    // What differs by less than the generator's own grain is not told apart.
    const addedP99 = Math.max(0.01, msP99 - direct.msP99);
    return { addedP99, p50: msP50, p99: msP99, p999: msP999, perSecond, failures };
  });
}

async function withIdle(kind: KindOf<"idle">, bench: Bench, port: number, pid: number): Promise<Sample> {
  await settled();
  const base = residentBytes(pid);
  const clients = startInteractive(bench.cores.load, ownCommand("idle-clients.ts", [port, kind.connections]));
  try {
    await clients.nextLine();
    await settled();
    const full = residentBytes(pid);
    clients.ask();
    const held = Number(await clients.nextLine());
    const idleKb = (full - base) / 1_000 / Math.max(1, held);
    return { held, baseMb: base / 1e6, idleKb };
  } finally {
    clients.end();
  }
}

/** Long enough for a program to be done with starting, or with what it keeps for a moment. */
async function settled(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 2_000));
}

async function withPeer<T>(
  scenario: Scenario,
  peer: Peer,
  bench: Bench,
  use: (port: number, pid: number) => Promise<T>,
): Promise<T> {
  const wanted = await freePort();
  const program = await peer.start({
    core: bench.cores.proxy,
    port: wanted,
    upstreamPorts: bench.upstreamPorts,
    folder: peerFolder(bench.folder, `${peer.name}-${scenario.name}`),
    front: scenario.front,
    back: scenario.back,
    certificate: bench.certificate,
  });
  try {
    const port = program.port ?? wanted;
    await waitForPort(port, program, peer.name);
    return await use(port, program.pid);
  } finally {
    await program.stop();
  }
}

/** The medians of all rounds. */
export function medians(samples: readonly Sample[]): Sample {
  const figures = [...new Set(samples.flatMap((sample) => Object.keys(sample)))] as (keyof Sample)[];
  return Object.fromEntries(
    figures.map((figure) => [
      figure,
      figure === "failures"
        ? samples.reduce((sum, sample) => sum + (sample.failures ?? 0), 0)
        : median(samples.flatMap((sample) => sample[figure] ?? [])),
    ]),
  );
}
