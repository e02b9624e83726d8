import { expect, test } from "vitest";
import { counter, createMetrics, gauge, histogram, series } from "./metrics.ts";

test("what a part counts and what every process tells is in one scrape", async () => {
  const registry = createMetrics("edge");
  counter(registry, "calls_total", "Calls.", ["to"]).inc({ to: "api" }, 2);
  gauge(registry, "depth", "Depth.", [], (metric) => metric.set(7));
  histogram(registry, "seconds", "Durations.", [], [1]).observe(0.5);
  series(registry, { name: "own", help: "Own.", type: "counter" }, () => [{ labels: { a: "b" }, value: 3 }]);
  const text = await registry.metrics();
  expect(text).toContain('calls_total{to="api",part="edge"} 2');
  expect(text).toContain('depth{part="edge"} 7');
  expect(text).toContain('seconds_bucket{le="1",part="edge"} 1');
  expect(text).toContain('own{a="b",part="edge"} 3');
  for (const name of [
    "process_resident_memory_bytes",
    "process_cpu_user_seconds_total",
    "process_open_fds",
  ]) {
    expect(text).toMatch(new RegExp(`^${name}{part="edge"} [0-9.e+]+$`, "m"));
  }
  expect(text).toMatch(/^nodejs_eventloop_utilization_ratio{part="edge"} (0|1|0\.\d+)$/m);
});
