import { expect, test } from "vitest";
import type { EdgeTraffic } from "../model/mesh.ts";
import { formation, instance, release, world } from "../test/fixtures/world.ts";
import { graphView, TrafficRates } from "./graph.ts";
import { buildMesh } from "./mesh.ts";

const counted = (requests: number, more: Partial<EdgeTraffic> = {}): EdgeTraffic => ({
  from: "web.shop",
  to: "api.shop",
  release: 1,
  requests,
  failures: 0,
  retries: 0,
  durationMsSum: requests * 5,
  ...more,
});

test("rates are what was added in the last ten seconds, over all proxies", () => {
  const rates = new TrafficRates();
  rates.record("p", "boot", [counted(1_000)], 100_000); // Counted before anyone looked.
  rates.record("q", "boot", [counted(50)], 100_000);
  rates.record("p", "boot", [counted(1_030, { failures: 10 })], 102_000);
  rates.record("q", "boot", [counted(70)], 104_000);
  const rate = { from: "web.shop", to: "api.shop", release: 1 };
  expect(rates.rates(104_000)).toEqual([{ ...rate, requestsPerSecond: 5, failuresPerSecond: 1, meanMs: 5 }]);
  expect(rates.rates(112_500)).toMatchObject([{ requestsPerSecond: 2, failuresPerSecond: 0 }]);
  expect(rates.rates(115_000)).toEqual([]);
});

test("a proxy that started again counts from nothing, under the same boot nothing is taken back", () => {
  const rates = new TrafficRates();
  rates.record("p", "boot-1", [counted(1_000)], 100_000);
  rates.record("p", "boot-2", [counted(20)], 101_000);
  expect(rates.rates(101_000)).toMatchObject([{ requestsPerSecond: 2 }]);
  rates.record("p", "boot-2", [counted(10)], 102_000);
  expect(rates.rates(102_000)).toMatchObject([{ requestsPerSecond: 2 }]);
});

test("the graph has every declared edge, the public ones from `edge`, and what leaves the platform", () => {
  const shop = release(1, {
    web: {
      dependencies: { api: 7001 },
      edge: [{ host: "shop.localhost", path: "/" }],
      limits: { requestTimeoutMs: 100 },
    },
    api: {},
    mailer: { dependencies: { smtp: 2525 }, address: "mail.example.com:25" },
  });
  const desire = { release: 1 };
  const state = world({
    formations: [formation({ web: desire, api: desire, mailer: desire })],
    releases: [shop],
    instances: [instance("w1", { phase: "ready" })],
  });
  const flows = { release: 1, failuresPerSecond: 0, meanMs: 4 };
  const view = graphView(state, buildMesh(state), [
    { from: "edge", to: "web.shop", requestsPerSecond: 3, ...flows },
    { from: "web.shop", to: "api.shop", requestsPerSecond: 1, ...flows, meanMs: 4 },
    { from: "web.shop", to: "api.shop", requestsPerSecond: 3, ...flows, release: 2, meanMs: 8 },
  ]);
  expect(view.nodes.map(({ address, kind, ready, wanted }) => [address, kind, ready, wanted])).toEqual([
    ["edge", "edge", 0, 0],
    ["web.shop", "process", 1, 1],
    ["api.shop", "process", 0, 1],
    ["mailer.shop", "process", 0, 1],
    ["mail.example.com:25", "external", 1, 1],
  ]);
  expect(
    view.edges.map(({ from, to, requestsPerSecond, meanMs }) => [from, to, requestsPerSecond, meanMs]),
  ).toEqual([
    ["web.shop", "api.shop", 4, 7],
    ["mailer.shop", "mail.example.com:25", 0, null],
    ["edge", "web.shop", 3, 4],
  ]);
});
