import type { EdgeTraffic } from "../model/mesh.ts";
import type { ProxyHeaderFailure } from "./proxy-header.ts";
import type { FailureCode } from "./failure.ts";
import { TlsStats } from "./tls/stats.ts";

/** Upper bounds of the latency histogram, in seconds. */
export const LATENCY_BUCKETS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
] as const;

const STATUS_COUNT = 500;

/** Releases of one edge whose counts are kept; those that came first are forgotten first. */
export const RELEASES_MAX = 16;

/**
 * What was counted on one declared edge to one release. Counting is an increment in a typed array; whoever
 * scrapes or reports reads them out.
 */
export class EdgeStats {
  readonly from: string;
  readonly to: string;
  readonly release: number;
  /** By status less 100. */
  readonly byStatus = new Float64Array(STATUS_COUNT);
  /** Not cumulative; the last is for everything slower. */
  readonly byLatency = new Float64Array(LATENCY_BUCKETS.length + 1);
  requests = 0;
  failures = 0;
  retries = 0;
  durationMsSum = 0;

  constructor(from: string, to: string, release: number) {
    this.from = from;
    this.to = to;
    this.release = release;
  }

  /** Counts one request that is over. `status` 0 is a TCP connection, which has none. */
  count(status: number, failed: boolean, durationMs: number): void {
    this.requests += 1;
    if (failed) this.failures += 1;
    this.durationMsSum += durationMs;
    if (status >= 100) this.byStatus[status - 100]! += 1;
    let bucket = 0;
    const seconds = durationMs / 1000;
    while (bucket < LATENCY_BUCKETS.length && seconds > LATENCY_BUCKETS[bucket]!) bucket += 1;
    this.byLatency[bucket]! += 1;
  }

  traffic(): EdgeTraffic {
    const { from, to, release, requests, failures, retries, durationMsSum } = this;
    return { from, to, release, requests, failures, retries, durationMsSum };
  }
}

/** Everything one engine counts. */
export class EngineStats {
  readonly edges = new Map<string, EdgeStats>();
  readonly refusals = new Map<FailureCode, number>();
  readonly ejections = new Map<string, number>();
  readonly tls = new TlsStats();
  readonly proxyHeaderFailures = new Map<ProxyHeaderFailure, number>();
  /** Requests and TCP connections being served. */
  inFlight = 0;
  downstreamConnections = 0;
  upstreamConnections = 0;
  /** How often a listener stopped accepting because sockets ran out. */
  acceptPauses = 0;
  faults = 0;
  /** Second attempts beside a slow first one, and how many of them answered first. */
  hedges = 0;
  hedgesWon = 0;
  /** Responses being compressed. */
  compressing = 0;

  /** Open ones, of both sides. */
  get sockets(): number {
    return this.downstreamConnections + this.upstreamConnections;
  }

  edge(from: string, to: string, release: number): EdgeStats {
    const key = `${from} ${to} ${release}`;
    let stats = this.edges.get(key);
    if (stats === undefined) {
      stats = new EdgeStats(from, to, release);
      this.edges.set(key, stats);
      this.#forgetOldest(from, to);
    }
    return stats;
  }

  /** A service that is deployed every hour must not make its proxies grow for ever. */
  #forgetOldest(from: string, to: string): void {
    const same = [...this.edges].filter(([, edge]) => edge.from === from && edge.to === to);
    for (const [key] of same.slice(0, -RELEASES_MAX)) this.edges.delete(key);
  }

  refused(code: FailureCode): void {
    this.refusals.set(code, (this.refusals.get(code) ?? 0) + 1);
  }

  proxyHeaderFailed(reason: ProxyHeaderFailure): void {
    this.proxyHeaderFailures.set(reason, (this.proxyHeaderFailures.get(reason) ?? 0) + 1);
  }

  ejected(cluster: string): void {
    this.ejections.set(cluster, (this.ejections.get(cluster) ?? 0) + 1);
  }
}
