import { expect, test } from "vitest";
import { type MetricCounts, countersOf, mergeMetrics } from "./merge-metrics.ts";

const metric = (
  name: string,
  type: string,
  ...values: readonly (readonly [Record<string, string | number>, number])[]
): MetricCounts => ({
  name,
  help: "",
  type,
  values: values.map(([labels, value]) => ({ labels, value })),
});

test("counters add up by their labels, in whatever order these stand", () => {
  const one = [metric("gilliam_requests_total", "counter", [{ to: "web", code: 200 }, 3])];
  const two = [
    metric("gilliam_requests_total", "counter", [{ code: 200, to: "web" }, 4], [{ to: "web", code: 500 }, 1]),
  ];
  const [{ values } = { values: [] }] = mergeMetrics([one, two]);
  expect(values.map(({ value }) => value)).toEqual([7, 1]);
});

test.for([
  ["gilliam_in_flight", 7],
  ["gilliam_epoch", 3],
  ["gilliam_feed_connected", 4],
  ["process_resident_memory_bytes", 7],
  ["nodejs_eventloop_lag_max_seconds", 4],
] as const)("the gauge %s of workers with 3 and 4 is %d", ([name, expected]) => {
  const parts = [3, 4].map((value) => [metric(name, "gauge", [{}, value])]);
  expect(mergeMetrics(parts)[0]!.values[0]!.value).toBe(expected);
});

test("of a worker that ended only what counts up is kept", () => {
  const all = [
    metric("a_total", "counter", [{}, 1]),
    metric("b_seconds", "histogram", [{}, 1]),
    metric("c_total", "gauge", [{}, 1]),
    metric("gilliam_in_flight", "gauge", [{}, 1]),
    metric("gilliam_keeper_hot_restarts_total", "gauge", [{}, 1]),
  ];
  expect(countersOf(all).map(({ name }) => name)).toEqual(["a_total", "b_seconds", "c_total"]);
});
