import { expect, test } from "vitest";
import { host, instance, NOW_MS, world } from "../test/fixtures/world.ts";
import { catalogOf } from "./catalog.ts";
import type { HostRecord } from "./store.ts";

const record = (id: string, url = "http://10.0.0.1:7010"): HostRecord => ({
  ...host(id),
  executorUrl: url,
  metricsUrl: "",
});
const show = (state: Parameters<typeof world>[0], metrics: Parameters<typeof catalogOf>[0]["metrics"] = []) =>
  catalogOf({ world: world(state), hosts: [record("a")], metrics, metricsService: "gilliam-metrics" });

test.for([
  { title: "ready", input: { phase: "ready" }, seenMs: NOW_MS, status: "passing" },
  { title: "its host is silent", input: { phase: "ready" }, seenMs: NOW_MS - 20_000, status: "warning" },
  {
    title: "starting",
    input: { phase: "starting", address: { host: "10.0.0.9", port: 1 } },
    seenMs: NOW_MS,
    status: "critical",
  },
  // It still answers, but nobody new should come.
  { title: "draining", input: { phase: "ready", want: "drain" }, seenMs: NOW_MS, status: "critical" },
] as const)("an instance that is $title is $status", ({ input, seenMs, status }) => {
  const instances = [instance("i1", input)];
  const [node] = show({ instances, hosts: [host("a", { lastSeenMs: seenMs })] });
  expect(node?.services.map((service) => service.status)).toEqual([status]);
});

test("an instance that is to stop is not shown", () => {
  const instances = [instance("i1", { want: "stop" })];
  expect(show({ instances })[0]?.services).toEqual([]);
});

test("it carries what it is, under the name of its service and formation, on the node of its host", () => {
  const image = {
    kind: "source",
    image: `sha256:${"ab".repeat(32)}`,
    source: `sha256:${"cd".repeat(32)}`,
  } as const;
  const instances = [instance("i1", { phase: "ready", service: "api", release: 3, spec: { image } })];
  const [node] = show({ instances });
  expect(node).toMatchObject({ hostId: "a", address: "10.0.0.1" });
  expect(node?.services).toMatchObject([
    {
      id: "i1",
      name: "api-shop",
      tags: ["shop", "release-3"],
      meta: { formation: "shop", service: "api", release: "3", instance: "i1", version: "abababababab" },
    },
  ]);
});

test("every metrics address is an entry of one service", () => {
  const metrics = [
    { targets: ["127.0.0.1:7000"], labels: { part: "control", __metrics_path__: "/metrics" } },
    {
      targets: ["[::1]:7030"],
      labels: { part: "edge", host: "a", proxy: "edge-a", __metrics_path__: "/metrics" },
    },
  ];
  expect(show({}, metrics)[0]?.services).toMatchObject([
    { id: "metrics-control", name: "gilliam-metrics", address: "127.0.0.1", port: 7000, tags: ["control"] },
    {
      id: "metrics-edge-edge-a",
      address: "::1",
      port: 7030,
      meta: { part: "edge", metrics_path: "/metrics" },
    },
  ]);
});
