import { expect, test } from "vitest";
import { Binding } from "./binding.ts";
import { EngineStats, RELEASES_MAX } from "./stats.ts";

test("counts by status, latency and failure", () => {
  const stats = new EngineStats().edge("web.shop", "api.shop", 3);
  stats.count(200, false, 0.9);
  stats.count(200, false, 1.1);
  stats.count(503, true, 70_000);
  stats.count(0, false, 10); // A TCP connection.
  expect([stats.byStatus[100], stats.byStatus[403]]).toEqual([2, 1]);
  expect([stats.byLatency[0], stats.byLatency[1], stats.byLatency.at(-1)]).toEqual([1, 1, 1]);
  expect(stats.traffic()).toMatchObject({
    from: "web.shop",
    to: "api.shop",
    release: 3,
    requests: 4,
    failures: 1,
  });
});

test("a service that is deployed again and again does not make its proxies grow", () => {
  const stats = new EngineStats();
  const binding = new Binding("web.shop", "api.shop", stats);
  for (let release = 1; release <= 100; release += 1) binding.stats(release).count(200, false, 1);
  binding.stats(100).count(200, false, 1);
  const kept = [...stats.edges.values()];
  expect(kept).toHaveLength(RELEASES_MAX);
  expect(kept.at(-1)?.traffic()).toMatchObject({ release: 100, requests: 2 });
});
