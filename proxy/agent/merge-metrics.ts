/**
 * Metrics of several workers as one. Pure, and without imports: the keeper adds up what workers that ended have counted,
 * so that counters never run backwards while it lives.
 */

/** A metric as prom-client tells it in JSON. */
export interface MetricCounts {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly values: readonly MetricValue[];
}

export interface MetricValue {
  /** Where it differs from the metric's, like `…_bucket`. */
  readonly metricName?: string | undefined;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

type Rule = (a: number, b: number) => number;
const sum: Rule = (a, b) => a + b;

/** Gauges whose sum would mean nothing; all others are sums. */
const RULES: Readonly<Record<string, Rule>> = {
  gilliam_epoch: Math.min, // In force everywhere.
  gilliam_feed_epoch: Math.min,
  gilliam_feed_saved_epoch: Math.min,
  gilliam_feed_connected: Math.max, // One worker follows the feed for all.
  gilliam_feed_refused_epoch: Math.max,
  gilliam_feed_silence_seconds: Math.max, // Only the leader hears anything; the others say 0.
  gilliam_feed_save_failed: Math.max,
  gilliam_keeper_resident_bytes: Math.max, // All tell of the same keeper.
  gilliam_keeper_worker_deaths_total: Math.max,
  gilliam_keeper_worker_hangs_total: Math.max,
  gilliam_keeper_hot_restarts_total: Math.max,
  gilliam_certificate_expiry_seconds: Math.min,
  gilliam_certificate_problems: Math.max,
  process_start_time_seconds: Math.min,
  nodejs_eventloop_utilization_ratio: Math.max, // The busiest is the one that queues.
  nodejs_eventloop_lag_max_seconds: Math.max,
};

/** One metric for each name, with one value for each set of labels. */
export function mergeMetrics(parts: readonly (readonly MetricCounts[])[]): MetricCounts[] {
  const merged = new Map<string, { metric: MetricCounts; values: Map<string, MetricValue> }>();
  for (const metric of parts.flat()) {
    const rule = RULES[metric.name] ?? sum;
    let known = merged.get(metric.name);
    if (known === undefined) {
      known = { metric, values: new Map() };
      merged.set(metric.name, known);
    }
    for (const value of metric.values) {
      const key = keyOf(value);
      const before = known.values.get(key);
      const now = before === undefined ? value.value : rule(before.value, value.value);
      known.values.set(key, { ...value, value: now });
    }
  }
  return [...merged.values()].map(({ metric, values }) => ({ ...metric, values: [...values.values()] }));
}

/** What of a worker's metrics stays true when it ends: everything that only counts up. */
export function countersOf(metrics: readonly MetricCounts[]): MetricCounts[] {
  return metrics.filter(
    ({ name, type }) =>
      !name.startsWith("gilliam_keeper_") &&
      (type === "counter" || type === "histogram" || name.endsWith("_total")),
  );
}

function keyOf({ metricName = "", labels }: MetricValue): string {
  const names = Object.keys(labels).sort();
  return JSON.stringify([metricName, ...names.map((name) => [name, String(labels[name])])]);
}
