import { openLoop } from "./generators.ts";
import type { Latencies } from "./generators.ts";
import { peerFolder } from "./peers.ts";
import type { Peer } from "./peers.ts";
import { cpuMicroseconds, freePort, residentBytes, waitForPort } from "./processes.ts";
import type { Cores } from "./processes.ts";
import type { Scenario } from "./scenarios.ts";

export interface Round {
  readonly cpuMicrosecondsPerRequest: number;
  readonly perSecond: number;
  readonly failures: number;
  readonly residentBytes: number;
}

export interface PeerResult {
  readonly peer: string;
  readonly version: string;
  readonly rounds: Round[];
  latencies: Latencies | undefined;
}

export interface Bench {
  readonly cores: Cores;
  readonly folder: string;
  readonly upstreamPorts: readonly number[];
  readonly rounds: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

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
    rounds: [],
    latencies: undefined,
  }));
  for (let round = 0; round < bench.rounds; round++) {
    for (let index = 0; index < peers.length; index++) {
      const which = (index + round) % peers.length;
      const result = results[which]!;
      result.rounds.push(await measureOnce(scenario, peers[which]!, bench));
      const { cpuMicrosecondsPerRequest, perSecond } = result.rounds.at(-1)!;
      const figures = `${cpuMicrosecondsPerRequest.toFixed(1)} µs, ${Math.round(perSecond)}/s`;
      process.stderr.write(`${scenario.name} round ${round + 1}: ${result.peer} ${figures}\n`);
    }
  }
  return results;
}

async function measureOnce(scenario: Scenario, peer: Peer, bench: Bench): Promise<Round> {
  return withPeer(scenario, peer, bench, async (port, pid) => {
    await scenario.load(bench.cores.load, port, bench.warmUpSeconds);
    const before = cpuMicroseconds(pid);
    const load = await scenario.load(bench.cores.load, port, bench.seconds);
    const used = cpuMicroseconds(pid) - before;
    return {
      cpuMicrosecondsPerRequest: used / load.requests,
      perSecond: load.perSecond,
      failures: load.failures,
      residentBytes: residentBytes(pid),
    };
  });
}

/** Latency at one rate for all who can take it: half of what `reference` does; a slower peer gets half of its own. */
export async function measureLatencies(
  scenario: Scenario,
  peers: readonly Peer[],
  results: readonly PeerResult[],
  reference: string,
  bench: Bench,
): Promise<void> {
  const best = (result: PeerResult) => median(result.rounds.map(({ perSecond }) => perSecond));
  const whole = results.find(({ peer }) => peer === reference);
  for (const [index, peer] of peers.entries()) {
    const result = results[index]!;
    const rate = Math.min(best(result), whole === undefined ? Infinity : best(whole)) / 2;
    result.latencies = await withPeer(scenario, peer, bench, async (port) => {
      await scenario.load(bench.cores.load, port, bench.warmUpSeconds);
      return openLoop(bench.cores.load, port, rate, 64, Math.max(2, bench.seconds));
    });
    process.stderr.write(
      `${scenario.name} latency: ${result.peer} p99 ${result.latencies.msP99.toFixed(2)} ms\n`,
    );
  }
}

/** Of the upstream alone, without a proxy: what the generator and the machine add. */
export async function measureDirect(bench: Bench, perSecond: number): Promise<Latencies> {
  return openLoop(bench.cores.load, bench.upstreamPorts[0]!, perSecond, 64, Math.max(2, bench.seconds));
}

async function withPeer<T>(
  scenario: Scenario,
  peer: Peer,
  bench: Bench,
  use: (port: number, pid: number) => Promise<T>,
): Promise<T> {
  const port = await freePort();
  const program = await peer.start({
    core: bench.cores.proxy,
    port,
    upstreamPorts: bench.upstreamPorts,
    upstream: scenario.upstream,
    folder: peerFolder(bench.folder, `${peer.name}-${scenario.name}`),
    downstream: scenario.downstream,
  });
  try {
    await waitForPort(port, program, peer.name);
    return await use(port, program.pid);
  } finally {
    await program.stop();
  }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}
