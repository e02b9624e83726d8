import { type MetricsRegistry, type Sample, series } from "../../base/metrics.ts";
import type { FailureKind } from "./job.ts";

/** Upper bounds of the histogram of a filter's runs, in seconds. */
const BUCKETS = [0.000_005, 0.000_02, 0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.25, 1, 5] as const;
/** Different pairs of name and label that one filter may count under. */
const EVENTS_MAX = 100;

/** Where the rest is counted. */
const OTHER = "other other";

export type RunOutcome = "next" | "answered" | FailureKind;

/** What is counted of one filter of one formation; a new version of it goes on counting. */
export class FilterStats {
  readonly file: string;
  readonly owner: string;
  readonly outcomes = new Map<RunOutcome, number>();
  readonly events = new Map<string, { readonly name: string; readonly label: string; count: number }>();
  readonly #byDuration = new Float64Array(BUCKETS.length + 1);
  #durationMsSum = 0;
  #next = 0;

  constructor(owner: string, file: string) {
    this.owner = owner;
    this.file = file;
  }

  ran(outcome: RunOutcome, durationMs: number): void {
    if (outcome === "next") this.#next += 1;
    else this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + 1);
    this.#durationMsSum += durationMs;
    const seconds = durationMs / 1_000;
    let bucket = 0;
    while (bucket < BUCKETS.length && seconds > BUCKETS[bucket]!) bucket += 1;
    this.#byDuration[bucket]! += 1;
  }

  event(name: string, label: string): void {
    const key = `${name} ${label}`;
    const known = this.events.get(key);
    if (known !== undefined) known.count += 1;
    else if (this.events.size < EVENTS_MAX) this.events.set(key, { name, label, count: 1 });
    else if (key === OTHER) this.events.set(key, { name, label, count: 1 });
    else this.event("other", "other");
  }

  get failures(): number {
    let sum = 0;
    for (const [outcome, count] of this.outcomes) if (outcome !== "answered") sum += count;
    return sum;
  }

  outcomeSamples(): Sample[] {
    const labels = this.#labels();
    return [...(this.#next === 0 ? [] : [["next", this.#next] as const]), ...this.outcomes].map(
      ([outcome, value]) => ({ labels: { ...labels, outcome }, value }),
    );
  }

  eventSamples(): Sample[] {
    return [...this.events.values()].map(({ name, label, count }) => ({
      labels: { ...this.#labels(), name, label },
      value: count,
    }));
  }

  durationSamples(): Sample[] {
    const metric = "gilliam_filter_duration_seconds";
    const labels = this.#labels();
    let below = 0;
    const buckets = [...this.#byDuration].map((value, index) => {
      below += value;
      return { name: `${metric}_bucket`, labels: { ...labels, le: BUCKETS[index] ?? "+Inf" }, value: below };
    });
    return [
      ...buckets,
      { name: `${metric}_sum`, labels, value: this.#durationMsSum / 1_000 },
      { name: `${metric}_count`, labels, value: below },
    ];
  }

  #labels(): Record<string, string> {
    return { filter: this.file, service: this.owner };
  }
}

export function registerFilterMetrics(
  registry: MetricsRegistry,
  stats: () => readonly FilterStats[],
  restarts: () => Sample[],
): void {
  series(
    registry,
    {
      name: "gilliam_filter_runs_total",
      help: "Runs of a filter, by outcome: next, answered, or a kind of failure.",
      type: "counter",
    },
    () => stats().flatMap((one) => one.outcomeSamples()),
  );
  series(
    registry,
    { name: "gilliam_filter_duration_seconds", help: "Time of one run of a filter.", type: "histogram" },
    () => stats().flatMap((one) => one.durationSamples()),
  );
  series(
    registry,
    { name: "gilliam_filter_events_total", help: "What filters count themselves.", type: "counter" },
    () => stats().flatMap((one) => one.eventSamples()),
  );
  series(
    registry,
    {
      name: "gilliam_filter_restarts_total",
      help: "Filters whose process was replaced, because it died, hung or grew.",
      type: "counter",
    },
    restarts,
  );
}
