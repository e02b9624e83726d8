import { expect, test } from "vitest";
import { judge, judgeOrders } from "./e2e/history.ts";
import type { RecordedRequest } from "./e2e/load.ts";

const request = (part: Partial<RecordedRequest>): RecordedRequest => ({
  kind: "whoami",
  connection: "kept",
  startMs: 0,
  endMs: 10,
  status: 200,
  failure: "",
  servedBy: "shop-web-r1-aaaaa release 1",
  orderKey: undefined,
  ...part,
});
const failed = request({ startMs: 100, endMs: 110, status: 502, failure: "502 upstream_reset" });

test("a failure that nothing explains is a violation, with its own words", () => {
  expect(judge([request({}), failed]).violations).toEqual([
    "whoami over a kept connection, 100–110 ms, answered by shop-web-r1-aaaaa release 1: 502 upstream_reset",
  ]);
});

test.for([
  { fromMs: 105, toMs: 200, countMax: 1, violations: 0 },
  { fromMs: 111, toMs: 200, countMax: 1, violations: 1 }, // It had ended before the fault.
  { fromMs: 0, toMs: 99, countMax: 1, violations: 1 }, // It began after the fault.
  { fromMs: 0, toMs: 200, countMax: 0, violations: 1 },
])("an excuse from $fromMs to $toMs ms for $countMax leaves $violations", ({ violations, ...excuse }) => {
  const verdict = judge([failed], [{ ...excuse, why: "a kill", covers: () => true }]);
  expect(verdict.violations).toHaveLength(violations);
  expect(verdict.excused).toBe(1 - violations);
});

const orders = [201, 201, 0].map((status) => request({ kind: "order", status }));

test.for([
  { name: "the unanswered order may have been placed", count: 3, executions: 3, problems: 0 },
  { name: "or not", count: 2, executions: 2, problems: 0 },
  { name: "an acknowledged order is missing", count: 1, executions: 1, problems: 1 },
  { name: "an order was sent twice", count: 3, executions: 4, problems: 1 },
  { name: "there are more than were sent", count: 4, executions: 4, problems: 1 },
])("orders: $name", ({ count, executions, problems }) => {
  const before = { count: 7, executions: 7 };
  const after = { count: 7 + count, executions: 7 + executions };
  expect(judgeOrders(orders, before, after)).toHaveLength(problems);
});
