import { type MetricsRegistry, type Sample, series } from "../base/metrics.ts";
import type { Admission } from "./admission.ts";
import type { EngineContext } from "./context.ts";
import type { Mesh } from "./mesh.ts";
import { type EdgeStats, LATENCY_BUCKETS } from "./stats.ts";
import { registerTlsMetrics } from "./tls/metrics.ts";

/** Shows what one engine counts. Nothing is copied before somebody scrapes. */
export function registerEngineMetrics(
  registry: MetricsRegistry,
  { stats, mesh, wheel, pressure }: EngineContext,
): void {
  const edges = () => [...stats.edges.values()];
  series(
    registry,
    {
      name: "gilliam_requests_total",
      help: "Requests that ended, by declared edge, release and status; code 0 is a TCP connection.",
      type: "counter",
    },
    () => edges().flatMap(requestSamples),
  );
  series(
    registry,
    {
      name: "gilliam_request_duration_seconds",
      help: "From a request's first byte to its answer's last, retries included.",
      type: "histogram",
    },
    () => edges().flatMap(durationSamples),
  );
  series(
    registry,
    { name: "gilliam_in_flight", help: "Requests and TCP connections being served now.", type: "gauge" },
    () => [{ labels: {}, value: stats.inFlight }],
  );
  series(
    registry,
    { name: "gilliam_retries_total", help: "Attempts beyond the first.", type: "counter" },
    () => edges().map((edge) => ({ labels: labelsOf(edge), value: edge.retries })),
  );
  series(
    registry,
    {
      name: "gilliam_hedges_total",
      help: "Second attempts beside a slow first one; won: those that answered first.",
      type: "counter",
    },
    () => [
      { labels: { won: "true" }, value: stats.hedgesWon },
      { labels: { won: "false" }, value: stats.hedges - stats.hedgesWon },
    ],
  );
  series(
    registry,
    { name: "gilliam_ejections_total", help: "Endpoints ejected for failing, by cluster.", type: "counter" },
    () => [...stats.ejections].map(([to, value]) => ({ labels: { to }, value })),
  );
  series(
    registry,
    { name: "gilliam_ejected", help: "Endpoints ejected now, by cluster.", type: "gauge" },
    () =>
      [...mesh.clusters.values()].map((cluster) => ({
        labels: { to: cluster.name },
        value: [...cluster.endpoints.values()].filter(({ outlier }) => outlier.ejectedUntilMs > 0).length,
      })),
  );
  series(
    registry,
    {
      name: "gilliam_refusals_total",
      help: "Requests that the proxy itself answered or cut, by reason.",
      type: "counter",
    },
    () => [...stats.refusals].map(([reason, value]) => ({ labels: { reason }, value })),
  );
  series(
    registry,
    {
      name: "gilliam_waiting",
      help: "Requests waiting for a cluster, endpoint or connection.",
      type: "gauge",
    },
    () => [{ labels: {}, value: mesh.waitingCount }],
  );
  series(registry, { name: "gilliam_connections", help: "Open connections, by side.", type: "gauge" }, () => [
    { labels: { side: "downstream" }, value: stats.downstreamConnections },
    { labels: { side: "upstream" }, value: stats.upstreamConnections },
  ]);
  series(
    registry,
    {
      name: "gilliam_accept_pauses_total",
      help: "Times that a listener stopped accepting because all sockets were in use.",
      type: "counter",
    },
    () => [{ labels: {}, value: stats.acceptPauses }],
  );
  series(
    registry,
    { name: "gilliam_deadlines", help: "Connections and requests that wait for a deadline.", type: "gauge" },
    () => [{ labels: {}, value: wheel.count }],
  );
  series(
    registry,
    {
      name: "gilliam_admission_limit",
      help: "Requests that may wait for their answer at once, by cluster with such a limit.",
      type: "gauge",
    },
    () => bounded(mesh).map(([to, { limit }]) => ({ labels: { to }, value: limit })),
  );
  series(
    registry,
    {
      name: "gilliam_admission_in_flight",
      help: "Requests that wait for their answer, by cluster with a limit.",
      type: "gauge",
    },
    () => bounded(mesh).map(([to, { inFlight }]) => ({ labels: { to }, value: inFlight })),
  );
  series(
    registry,
    {
      name: "gilliam_panic",
      help: "1 for a cluster all of whose endpoints are ejected, so that all are used.",
      type: "gauge",
    },
    () =>
      [...mesh.clusters.values()].map(({ name, panicking }) => ({
        labels: { to: name },
        value: Number(panicking),
      })),
  );
  series(
    registry,
    {
      name: "gilliam_pressure",
      help: "0: everybody is served, 1: not those of low priority, 2: only those of high priority.",
      type: "gauge",
    },
    () => [{ labels: {}, value: pressure.level }],
  );
  series(
    registry,
    {
      name: "gilliam_faults_total",
      help: "Connections ended by a fault of the proxy itself.",
      type: "counter",
    },
    () => [{ labels: {}, value: stats.faults }],
  );
  series(
    registry,
    { name: "gilliam_epoch", help: "Epoch of the configuration in force.", type: "gauge" },
    () => [{ labels: {}, value: mesh.epoch }],
  );
  registerTlsMetrics(registry, stats.tls);
  series(
    registry,
    {
      name: "gilliam_proxy_header_failures_total",
      help: "Connections closed because they did not begin with a PROXY header as they must, by reason.",
      type: "counter",
    },
    () => [...stats.proxyHeaderFailures].map(([reason, value]) => ({ labels: { reason }, value })),
  );
}

function bounded({ clusters }: Mesh): [string, Admission][] {
  return [...clusters.values()].flatMap(({ name, admission }) =>
    admission === undefined ? [] : [[name, admission]],
  );
}

function labelsOf({ from, to, release }: EdgeStats): Record<string, string | number> {
  return { from, to, release };
}

function requestSamples(edge: EdgeStats): Sample[] {
  const samples: Sample[] = [];
  let counted = 0;
  edge.byStatus.forEach((value, index) => {
    if (value === 0) return;
    counted += value;
    samples.push({ labels: { ...labelsOf(edge), code: index + 100 }, value });
  });
  if (edge.requests > counted) {
    samples.push({ labels: { ...labelsOf(edge), code: 0 }, value: edge.requests - counted });
  }
  return samples;
}

function durationSamples(edge: EdgeStats): Sample[] {
  const name = "gilliam_request_duration_seconds";
  const labels = labelsOf(edge);
  let below = 0;
  const buckets = [...edge.byLatency].map((value, index) => {
    below += value;
    return {
      name: `${name}_bucket`,
      labels: { ...labels, le: LATENCY_BUCKETS[index] ?? "+Inf" },
      value: below,
    };
  });
  return [
    ...buckets,
    { name: `${name}_sum`, labels, value: edge.durationMsSum / 1000 },
    { name: `${name}_count`, labels, value: edge.requests },
  ];
}
