import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";

/**
 * The metrics of one part; the only file that knows prom-client. Counting on the proxy's hot path happens in
 * typed arrays of its own; a `collect` callback copies them here when somebody scrapes.
 */
export type { Counter, Gauge, Histogram };
export type MetricsRegistry = Registry;

export function createMetrics(part: string, options: { defaults?: boolean } = {}): MetricsRegistry {
  const registry = new Registry();
  registry.setDefaultLabels({ part });
  if (options.defaults ?? true) collectDefaultMetrics({ register: registry });
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
