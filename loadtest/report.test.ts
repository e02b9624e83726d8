import { describe, expect, test } from "vitest";
import { median } from "./figures.ts";
import type { Sample } from "./figures.ts";
import { parseH2load, parseSTime, parseWrk } from "./generators.ts";
import type { PeerResult } from "./measure.ts";
import { PEERS } from "./peers.ts";
import { absentees, summarize, toHtml, toMarkdown } from "./report.ts";
import { SCENARIOS, invited } from "./scenarios.ts";
import type { Scenario } from "./scenarios.ts";

const result = (peer: string, ...samples: Sample[]): PeerResult => ({ peer, version: "1", samples });
const cpu = (...values: number[]) => values.map((value): Sample => ({ cpu: value, failures: 1 }));
const scenario = (name: string): Scenario => SCENARIOS.find((each) => each.name === name)!;
const verdictsOf = (report: ReturnType<typeof summarize>) =>
  Object.fromEntries(
    report.verdicts.map(({ goal, text }) => [`${goal.figure} ${goal.peer ?? ""}`.trim(), text]),
  );

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

  test("openssl s_time, whose connections without an answer are failures", () => {
    const out = (bytes: number) =>
      `607 connections in 0.61s; 995.08 connections/user sec, bytes read 89229
607 connections in 2 real seconds, ${bytes} bytes read per connection\n`;
    expect(parseSTime(out(147))).toEqual({ requests: 607, perSecond: 303.5, failures: 0 });
    expect(parseSTime(out(0))).toEqual({ requests: 607, perSecond: 303.5, failures: 607 });
  });

  test("anything else is refused, not taken for zero", () => {
    expect(() => parseWrk("unable to connect")).toThrow("not understood");
    expect(() => parseH2load("unable to connect")).toThrow("not understood");
    expect(() => parseSTime("unable to connect")).toThrow("not understood");
  });
});

describe("the report", () => {
  const results = [
    result("gilliam", ...cpu(30, 20, 40)),
    result("nginx", ...cpu(20, 25, 30)),
    result("caddy", ...cpu(200)),
  ];
  const absent = new Map([["haproxy", "it is not installed"]]);
  const summary = summarize(scenario("http1"), results, absent);
  const report = {
    command: "c",
    takenAt: "t",
    machine: { cpu: "<x>" },
    rounds: 3,
    seconds: 5,
    scenarios: [summary],
  };

  test("compares medians, ours over the peer's, and adds failures up", () => {
    expect(summary.rows.map(({ ratio }) => ratio)).toEqual([1, 1.2, 0.15]);
    expect(summary.rows[0]).toMatchObject({ least: 20, most: 40, medians: { cpu: 30, failures: 3 } });
  });

  test("says which goal is missed and by how much, and what was not measured and why", () => {
    expect(verdictsOf(summary)).toMatchObject({
      "cpu nginx": "missed by 20 %",
      "cpu caddy": "reached",
      "cpu haproxy": "not measured: haproxy: it is not installed",
    });
  });

  test("a goal may be a least throughput, or a figure of our own", () => {
    const bulk = [result("gilliam", { perSecond: 90 }), result("nginx", { perSecond: 100 })];
    expect(verdictsOf(summarize(scenario("bulk"), bulk, new Map()))).toEqual({
      "perSecond nginx": "missed by 5 %",
    });
    const idle = [result("gilliam", { held: 10_000, idleKb: 5, baseMb: 90 })];
    expect(verdictsOf(summarize(scenario("idle"), idle, new Map()))).toEqual({
      held: "reached",
      idleKb: "reached",
      baseMb: "missed by 50 %",
    });
  });

  test("without us nothing is reached", () => {
    const alone = summarize(scenario("tls"), [result("nginx", ...cpu(9))], new Map([["gilliam", "no TLS"]]));
    expect(new Set(alone.verdicts.map(({ text }) => text))).toEqual(
      new Set(["not measured: gilliam: no TLS"]),
    );
  });

  test("in Markdown", () => {
    const lines = toMarkdown(report).split("\n");
    expect(lines).toContain("| http1 | CPU µs/request ÷ nginx | ≤ 1 | 1.20 | missed by 20 % |");
    expect(lines.find((line) => line.startsWith("| nginx"))).toContain("| 25.0 | 20.0–30.0 | 1.20 |");
  });

  test("as a page it escapes what it quotes", () => {
    expect(toHtml(report)).toContain("&lt;x&gt;");
  });
});

describe("the scenarios", () => {
  test("every row of the table has a name of its own, a goal, and peers that exist", () => {
    expect(new Set(SCENARIOS.map(({ name }) => name)).size).toBe(SCENARIOS.length);
    const known = PEERS.map(({ name }) => name);
    for (const each of SCENARIOS) {
      expect(each.goals.length, each.name).toBeGreaterThan(0);
      expect(known, each.name).toEqual(expect.arrayContaining([...invited(each)]));
    }
  });

  test("whoever a goal names can take part, but for modules that are not installed", () => {
    for (const each of SCENARIOS) {
      for (const name of new Set(each.goals.flatMap(({ peer }) => peer ?? []))) {
        const peer = PEERS.find((candidate) => candidate.name === name)!;
        expect(peer.cannot(each), `${name} in ${each.name}`).toBeUndefined();
      }
    }
  });

  test("who is invited and not there is named with the reason", () => {
    const reasons = new Map([["nginx", "it is not installed"]]);
    expect(Object.fromEntries(absentees(scenario("grpc"), [{ name: "gilliam" }], reasons))).toEqual({
      nginx: "it is not installed",
      caddy: "not asked for",
      haproxy: "not asked for",
    });
  });
});

test.for([
  [[3, 1, 2], 2],
  [[4, 1, 2, 3], 2.5],
  [[7], 7],
] as const)("the median of %j is %d", ([values, expected]) => {
  expect(median(values)).toBe(expected);
});
