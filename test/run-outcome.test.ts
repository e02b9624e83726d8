import { expect, test } from "vitest";
import { readVitest } from "./run-outcome.ts";

const report = (files: { status: string; tests: string[] }[]) =>
  JSON.stringify({
    testResults: files.map(({ status, tests }, at) => ({
      name: `file-${at}.test.ts`,
      status,
      assertionResults: tests.map((state, number) => ({ fullName: `test ${number}`, status: state })),
    })),
  });

test.for([
  {
    name: "all passed",
    code: 0,
    files: [{ status: "passed", tests: ["passed", "passed"] }],
    counts: [2, 0, 0],
  },
  {
    name: "one of each",
    code: 1,
    files: [{ status: "failed", tests: ["passed", "failed", "skipped"] }],
    counts: [1, 1, 1],
  },
  {
    name: "a file that cannot be loaded",
    code: 1,
    files: [{ status: "failed", tests: [] }],
    counts: [0, 1, 0],
  },
  {
    name: "a hook that failed after its tests",
    code: 1,
    files: [{ status: "failed", tests: ["passed"] }],
    counts: [1, 1, 0],
  },
  {
    name: "an unhandled error beside passing tests",
    code: 1,
    files: [{ status: "passed", tests: ["passed"] }],
    counts: [1, 1, 0],
  },
  { name: "a todo is skipped", code: 0, files: [{ status: "passed", tests: ["todo"] }], counts: [0, 0, 1] },
])("$name: passed, failed, skipped are $counts", ({ code, files, counts }) => {
  const { passed, failures, skipped } = readVitest("unit", code, report(files));
  expect([passed, failures.length, skipped.length]).toEqual(counts);
});

test("no report is one failure", () => {
  expect(readVitest("e2e", -1, undefined).failures).toEqual(["e2e: vitest ended with -1 and left no report"]);
});
