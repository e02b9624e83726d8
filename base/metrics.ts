import { createRequire } from "node:module";
import type * as Prom from "prom-client";
import { registerProcessMetrics } from "./process-metrics.ts";

/**
 * The metrics of one part; the only file that knows prom-client. Counting on the proxy's hot path happens in
 * typed arrays of its own; a `collect` callback copies them here when somebody scrapes.
 *
 * Only these four files of prom-client are loaded: its index also brings a push gateway with clients for HTTP
 * and TLS, and its default metrics OpenTelemetry; 15 MB and 80 ms of CPU at the start of every process.
 */
const require = createRequire(import.meta.url);
const Registry = require("prom-client/lib/registry.js") as typeof Prom.Registry;
const Counter = require("prom-client/lib/counter.js") as typeof Prom.Counter;
const Gauge = require("prom-client/lib/gauge.js") as typeof Prom.Gauge;
const Histogram = require("prom-client/lib/histogram.js") as typeof Prom.Histogram;

export type Counter = Prom.Counter;
export type Gauge = Prom.Gauge;
export type Histogram = Prom.Histogram;
export type MetricsRegistry = Prom.Registry;

/** One value of a metric that somebody else counts. `name` only where it differs, like `…_bucket`. */
export interface Sample {
  readonly name?: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

/** A metric whose values are made when somebody scrapes: for whoever counts in arrays of his own. */
export function series(
  registry: MetricsRegistry,
  metric: { name: string; help: string; type: "counter" | "gauge" | "histogram" },
  collect: () => Sample[],
): void {
  const open = registry as unknown as { registerMetric(metric: object): void };
  open.registerMetric({
    name: metric.name,
    get: () =>
      Promise.resolve({
        ...metric,
        aggregator: "sum",
        values: collect().map(({ name, labels, value }) => ({
          metricName: name ?? metric.name,
          labels,
          value,
        })),
      }),
    reset: () => undefined,
  });
}

export const METRICS_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

/** Metrics that were told as JSON, in the text format for Prometheus. */
export function metricsText(
  metrics: readonly {
    readonly name: string;
    readonly help: string;
    readonly type: string;
    readonly values: readonly (Omit<Sample, "name"> & { readonly metricName?: string | undefined })[];
  }[],
): Promise<string> {
  const registry = new Registry();
  for (const { name, help, type, values } of metrics) {
    series(registry, { name, help, type: type as "counter" | "gauge" | "histogram" }, () =>
      values.map(({ labels, value, metricName }) => ({ name: metricName ?? name, labels, value })),
    );
  }
  return registry.metrics();
}

export function createMetrics(part: string, options: { defaults?: boolean } = {}): MetricsRegistry {
  const registry = new Registry();
  registry.setDefaultLabels({ part });
  if (options.defaults ?? true) {
    registerProcessMetrics((name, help, type, value) => {
      series(registry, { name, help, type }, () => {
        const now = value();
        return now === undefined ? [] : [{ labels: {}, value: now }];
      });
    });
  }
  return registry;
}

export function counter(
  registry: MetricsRegistry,
  name: string,
  help: string,
  labels: string[] = [],
  collect?: (metric: Counter) => void,
): Counter {
  return new Counter({ name, help, labelNames: labels, registers: [registry], ...collector(collect) });
}

export function gauge(
  registry: MetricsRegistry,
  name: string,
  help: string,
  labels: string[] = [],
  collect?: (metric: Gauge) => void,
): Gauge {
  return new Gauge({ name, help, labelNames: labels, registers: [registry], ...collector(collect) });
}

export function histogram(
  registry: MetricsRegistry,
  name: string,
  help: string,
  labels: string[] = [],
  buckets?: number[],
): Histogram {
  return new Histogram({
    name,
    help,
    labelNames: labels,
    registers: [registry],
    ...(buckets ? { buckets } : {}),
  });
}

function collector<M>(collect: ((metric: M) => void) | undefined) {
  if (collect === undefined) return {};
  return {
    collect(this: M) {
      collect(this);
    },
  };
}
