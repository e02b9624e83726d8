import type { GraphView } from "../model/api.ts";
import type { EdgeTraffic } from "../model/mesh.ts";
import { serviceAddress } from "../model/names.ts";
import { wantedOf } from "./facts.ts";
import type { Mesh } from "./mesh.ts";
import type { World } from "./world.ts";

/** What flows from one service to a release of another, over all proxies. */
export interface EdgeRate {
  /** `web.shop`, or `edge` for public traffic. */
  readonly from: string;
  readonly to: string;
  readonly release: number;
  readonly requestsPerSecond: number;
  readonly failuresPerSecond: number;
  /** Undefined when nothing was requested. */
  readonly meanMs: number | undefined;
}

interface Sum {
  requests: number;
  failures: number;
  durationMs: number;
}

/** Derives rates over the last ten seconds from the counters proxies report; a counter that begins again starts at 0. */
export class TrafficRates {
  /** By proxy: its last totals by edge, and under which boot they were counted. */
  readonly #totals = new Map<string, { bootId: string; byEdge: Map<string, Sum> }>();
  /** By edge: what came in, in slots of a second, oldest first. */
  readonly #slots = new Map<string, { second: number; sum: Sum }[]>();

  record(proxyId: string, bootId: string, traffic: readonly EdgeTraffic[], nowMs: number): void {
    const before = this.#totals.get(proxyId);
    const last = before?.bootId === bootId ? before.byEdge : undefined;
    const byEdge = new Map<string, Sum>();
    for (const { from, to, release, requests, failures, durationMsSum } of traffic) {
      const key = JSON.stringify([from, targetOf(to), release]);
      const total = byEdge.get(key) ?? { requests: 0, failures: 0, durationMs: 0 };
      byEdge.set(key, add(total, { requests, failures, durationMs: durationMsSum }));
    }
    for (const [key, total] of byEdge) {
      // A proxy seen for the first time may have counted for days: its totals are where counting starts.
      const base = last?.get(key) ?? (before === undefined ? total : NOTHING);
      const grown = {
        requests: total.requests - base.requests,
        failures: total.failures - base.failures,
        durationMs: total.durationMs - base.durationMs,
      };
      if (grown.requests > 0) this.#count(key, grown, nowMs);
    }
    this.#totals.set(proxyId, { bootId, byEdge });
  }

  forget(proxyId: string): void {
    this.#totals.delete(proxyId);
  }

  rates(nowMs: number): EdgeRate[] {
    const rates: EdgeRate[] = [];
    for (const [key, slots] of this.#slots) {
      const recent = slots.filter(({ second }) => second > nowMs / 1000 - WINDOW_SECONDS);
      if (recent.length === 0) {
        this.#slots.delete(key);
        continue;
      }
      const sum = recent.reduce((total, slot) => add(total, slot.sum), NOTHING);
      const [from, to, release] = JSON.parse(key) as [string, string, number];
      rates.push({
        from,
        to,
        release,
        requestsPerSecond: sum.requests / WINDOW_SECONDS,
        failuresPerSecond: sum.failures / WINDOW_SECONDS,
        meanMs: sum.requests === 0 ? undefined : sum.durationMs / sum.requests,
      });
    }
    return rates;
  }

  #count(key: string, grown: Sum, nowMs: number): void {
    const second = Math.floor(nowMs / 1000);
    const slots = this.#slots.get(key) ?? [];
    const kept = slots.filter((slot) => slot.second > second - WINDOW_SECONDS);
    const current = kept.find((slot) => slot.second === second);
    if (current === undefined) kept.push({ second, sum: grown });
    else current.sum = add(current.sum, grown);
    this.#slots.set(key, kept);
  }
}

const WINDOW_SECONDS = 10;
const NOTHING: Sum = { requests: 0, failures: 0, durationMs: 0 };

function add(a: Sum, b: Sum): Sum {
  return {
    requests: a.requests + b.requests,
    failures: a.failures + b.failures,
    durationMs: a.durationMs + b.durationMs,
  };
}

/** A caller with limits of its own has a cluster of its own, `api.shop@web.shop/api`: still the same service. */
function targetOf(cluster: string): string {
  const at = cluster.indexOf("@");
  return at < 0 ? cluster : cluster.slice(0, at);
}

/** The declared graph with what flows on it now. The public routes come from the node `edge`. */
export function graphView(world: World, mesh: Mesh, rates: readonly EdgeRate[]): GraphView {
  const flows = new Map<string, EdgeRate[]>();
  for (const rate of rates) {
    const key = `${rate.from} ${rate.to}`;
    flows.set(key, [...(flows.get(key) ?? []), rate]);
  }
  const edges: GraphView["edges"] = [];
  const externals = new Set<string>();
  for (const own of mesh.edges.values()) {
    for (const { from, dependency, port, protocol, cluster } of own) {
      const to = targetOf(cluster);
      const first = mesh.clusters.get(cluster)?.endpoints[0];
      if (first?.release === 0) externals.add(to);
      edges.push({ from, to, dependency, port, protocol, ...sumOf(flows.get(`${from} ${to}`) ?? []) });
    }
  }
  for (const to of new Set(mesh.routes.map((route) => route.cluster))) {
    const protocol = mesh.clusters.get(to)?.protocol ?? "http";
    const flow = sumOf(flows.get(`edge ${to}`) ?? []);
    edges.push({ from: "edge", to, dependency: "edge", port: 0, protocol, ...flow });
  }
  const nodes = [...serviceNodes(world, mesh), ...[...externals].map(externalNode)];
  if (mesh.routes.length > 0) nodes.unshift({ address: "edge", kind: "edge", ready: 0, wanted: 0 });
  return { nodes, edges };
}

function serviceNodes(world: World, mesh: Mesh): GraphView["nodes"] {
  return world.formations.flatMap((formation) =>
    Object.keys(formation.services).flatMap((name) => {
      const wanted = wantedOf(world, formation, name);
      if (wanted.kind !== "known") return [];
      const address = serviceAddress(name, formation.name);
      return [
        {
          address,
          kind: wanted.stable.service.kind,
          ready: mesh.clusters.get(address)?.endpoints.length ?? 0,
          wanted: wanted.stable.count + (wanted.canary?.count ?? 0),
        },
      ];
    }),
  );
}

function externalNode(address: string): GraphView["nodes"][number] {
  return { address, kind: "external", ready: 1, wanted: 1 };
}

function sumOf(rates: readonly EdgeRate[]) {
  const requestsPerSecond = rates.reduce((sum, rate) => sum + rate.requestsPerSecond, 0);
  const failuresPerSecond = rates.reduce((sum, rate) => sum + rate.failuresPerSecond, 0);
  const durations = rates.reduce((sum, rate) => sum + (rate.meanMs ?? 0) * rate.requestsPerSecond, 0);
  return {
    requestsPerSecond,
    failuresPerSecond,
    meanMs: requestsPerSecond === 0 ? null : durations / requestsPerSecond,
  };
}
