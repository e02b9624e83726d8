import { gauge, type MetricsRegistry } from "../base/metrics.ts";
import type { Agent } from "./agent.ts";
import type { ControlClient } from "./control-client.ts";
import type { Driver } from "./driver.ts";

/** What the executor tells Prometheus; everything is read when somebody scrapes. */
export function registerMetrics(
  registry: MetricsRegistry,
  { agent, driver, control }: { agent: Agent; driver: Driver; control: ControlClient },
): void {
  gauge(registry, "gilliam_instances", "Instances on this host, by phase", ["phase"], (metric) => {
    metric.reset();
    for (const { phase } of agent.statuses()) metric.inc({ phase });
  });
  const labels = ["instance"];
  gauge(registry, "gilliam_instance_restarts", "Starts of an instance beyond its first", labels, (metric) => {
    metric.reset();
    for (const { instanceId, restarts } of agent.statuses()) metric.set({ instance: instanceId }, restarts);
  });
  const usage = (name: string, help: string, of: "memoryBytes" | "cpuSeconds") =>
    gauge(registry, name, help, labels, (metric) => {
      metric.reset();
      for (const { instanceId } of agent.statuses()) {
        const used = driver.usage(instanceId);
        if (used !== undefined) metric.set({ instance: instanceId }, used[of]);
      }
    });
  usage("gilliam_instance_memory_bytes", "Memory an instance uses", "memoryBytes");
  usage("gilliam_instance_cpu_seconds", "Processor time an instance has used", "cpuSeconds");
  gauge(registry, "gilliam_control_connected", "1 while assignments arrive from control", [], (metric) =>
    metric.set(control.connected ? 1 : 0),
  );
  gauge(registry, "gilliam_builds", "Images on this host, by state of their build", ["state"], (metric) => {
    metric.reset();
    for (const { state } of agent.builds()) metric.inc({ state });
  });
}
