import { describe, expect, test } from "vitest";
import { parseH2load, parseWrk } from "./generators.ts";
import { median } from "./measure.ts";
import type { PeerResult, Round } from "./measure.ts";
import { summarize, toHtml, toMarkdown } from "./report.ts";
import { SCENARIOS } from "./scenarios.ts";

const round = (cpuMicrosecondsPerRequest: number): Round => ({
  cpuMicrosecondsPerRequest,
  perSecond: 10_000,
  failures: 0,
  residentBytes: 50e6,
});
const result = (peer: string, ...cpu: number[]): PeerResult => ({
  peer,
  version: "1",
  rounds: cpu.map(round),
  latencies: undefined,
});

describe("what the generators say", () => {
  test("wrk", () => {
    const out = `  2 threads\n  81052 requests in 2.00s, 15.3MB read\n  Socket errors: connect 0, read 1, write 0, timeout 2
  Non-2xx or 3xx responses: 4\nRequests/sec:  40511.20\n`;
    expect(parseWrk(out)).toEqual({ requests: 81_052, perSecond: 40_511.2, failures: 7 });
  });

  test("h2load", () => {
    const out = `finished in 2.00s, 21495.50 req/s, 17.84MB/s
requests: 100 total, 100 started, 100 done, 98 succeeded, 1 failed, 1 errored, 0 timeout\n`;
    expect(parseH2load(out)).toEqual({ requests: 98, perSecond: 21_495.5, failures: 2 });
  });

  test("anything else is refused, not taken for zero", () => {
    expect(() => parseWrk("unable to connect")).toThrow("not understood");
    expect(() => parseH2load("unable to connect")).toThrow("not understood");
  });
});

describe("the report", () => {
  const results = [result("gilliam", 30, 20, 40), result("nginx", 20, 25, 30), result("caddy", 200)];
  const summary = summarize(SCENARIOS[0]!, results, undefined);
  const report = {
    command: "c",
    takenAt: "t",
    machine: { cpu: "<x>" },
    rounds: 3,
    seconds: 5,
    scenarios: [summary],
  };

  test("compares medians, ours over the peer's", () => {
    expect(summary.rows.map(({ ratio }) => ratio)).toEqual([1, 1.2, 0.15]);
    expect(summary.rows[0]).toMatchObject({ cpuLeast: 20, cpuMost: 40, residentMegabytes: 50 });
  });

  test("says which target is missed, and by how much", () => {
    const lines = toMarkdown(report).split("\n");
    expect(lines.find((line) => line.startsWith("| nginx"))).toContain("| 1.20 | ≤ 1 | no, by 20 % |");
    expect(lines.find((line) => line.startsWith("| caddy"))).toContain("| 0.15 | ≤ 0.25 | yes |");
  });

  test("as a page it escapes what it quotes", () => {
    expect(toHtml(report)).toContain("&lt;x&gt;");
  });
});

test.for([
  [[3, 1, 2], 2],
  [[4, 1, 2, 3], 2.5],
  [[7], 7],
] as const)("the median of %j is %d", ([values, expected]) => {
  expect(median(values)).toBe(expected);
});
