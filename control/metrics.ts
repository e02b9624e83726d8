import { counter, createMetrics, gauge, histogram, type MetricsRegistry } from "../base/metrics.ts";
import type { InstancePhase } from "../model/instance.ts";
import type { Store } from "./store.ts";
import type { World } from "./world.ts";

export interface ControlMetrics {
  readonly registry: MetricsRegistry;
  readonly onRequest: (route: string, method: string, status: number, durationMs: number) => void;
  readonly onTick: (durationMs: number) => void;
  /** Wires what is read when somebody scrapes. */
  watch(parts: { store: Store; world: () => World; epoch: () => number; streams: () => number }): void;
}

const SECONDS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10];

export function createControlMetrics(): ControlMetrics {
  const registry = createMetrics("control");
  const requests = counter(registry, "gilliam_control_requests_total", "API requests.", [
    "route",
    "method",
    "status",
  ]);
  const durations = histogram(
    registry,
    "gilliam_control_request_seconds",
    "API requests: time to the end of the answer, streams included.",
    ["route"],
    SECONDS,
  );
  const looks = histogram(
    registry,
    "gilliam_control_look_seconds",
    "One look of the controller: decide, write, tell.",
    [],
    SECONDS,
  );
  return {
    registry,
    onRequest: (route, method, status, durationMs) => {
      requests.inc({ route, method, status });
      durations.observe({ route }, durationMs / 1000);
    },
    onTick: (durationMs) => looks.observe(durationMs / 1000),
    watch: ({ store, world, epoch, streams }) => {
      gauge(registry, "gilliam_control_epoch", "Newest epoch.", [], (metric) => metric.set(epoch()));
      gauge(
        registry,
        "gilliam_control_streams",
        "Streams open: feeds, assignments, logs, events.",
        [],
        (metric) => metric.set(streams()),
      );
      counter(
        registry,
        "gilliam_control_registry_writes_total",
        "Registry transactions.",
        ["result"],
        (metric) => {
          const { writes, refused } = store.counts;
          metric.reset();
          metric.inc({ result: "written" }, writes);
          metric.inc({ result: "refused" }, refused);
        },
      );
      gauge(registry, "gilliam_control_proxies", "Proxies, by how they stand.", ["state"], (metric) => {
        const { proxies, nowMs, settings } = world();
        const silent = proxies.filter(({ lastSeenMs }) => nowMs - lastSeenMs > settings.silentMs);
        metric.set({ state: "known" }, proxies.length);
        metric.set({ state: "behind" }, proxies.filter((proxy) => proxy.epoch < proxy.wantedEpoch).length);
        metric.set({ state: "refusing" }, proxies.filter(({ refused }) => refused !== undefined).length);
        metric.set({ state: "silent" }, silent.length);
      });
      gauge(registry, "gilliam_control_instances", "Instances, by phase.", ["phase"], (metric) => {
        const counts = new Map<InstancePhase, number>(PHASES.map((phase) => [phase, 0]));
        for (const { status, want } of world().instances) {
          const phase = want === "drain" ? "draining" : (status?.phase ?? "pending");
          counts.set(phase, (counts.get(phase) ?? 0) + 1);
        }
        for (const [phase, count] of counts) metric.set({ phase }, count);
      });
      gauge(registry, "gilliam_control_hosts", "Hosts, by how they stand.", ["state"], (metric) => {
        const { hosts, nowMs, settings } = world();
        const silent = hosts.filter(({ lastSeenMs }) => nowMs - lastSeenMs > settings.silentMs).length;
        metric.set({ state: "known" }, hosts.length);
        metric.set({ state: "silent" }, silent);
      });
    },
  };
}

const PHASES: readonly InstancePhase[] = ["pending", "starting", "ready", "draining", "stopped", "failed"];
