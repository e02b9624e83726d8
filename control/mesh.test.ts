import { describe, expect, test } from "vitest";
import { MeshConfig } from "../model/mesh.ts";
import { formation, host, instance, NOW_MS, release, SETTINGS, world } from "../test/fixtures/world.ts";
import { buildMesh, scopeOf } from "./mesh.ts";
import type { World } from "./world.ts";

const DESIRE = { release: 1 };

function clusterIds(state: World, name = "web.shop"): string[] | undefined {
  return buildMesh(state)
    .clusters.get(name)
    ?.endpoints.map((endpoint) => endpoint.id);
}

describe("endpoints", () => {
  const state = (instances: World["instances"], more: Partial<World> = {}) =>
    world({
      formations: [formation({ web: DESIRE })],
      instances,
      hosts: [host("a"), host("b", { lastSeenMs: NOW_MS - SETTINGS.silentMs - 1 })],
      ...more,
      releases: [release(1, { web: {} })],
    });

  test("are the ready instances that should run, by id", () => {
    const instances = [
      instance("w4", { phase: "ready" }),
      instance("w1", { phase: "starting" }),
      instance("w2", { phase: "ready", want: "drain" }),
      instance("w3", { phase: "ready" }),
      instance("w5", { phase: "failed", address: { host: "10.0.0.9", port: 1 } }),
    ];
    expect(clusterIds(state(instances))).toEqual(["w3", "w4"]);
  });

  test("on a silent host leave while the release has others, and stay when it has none", () => {
    const silent = instance("w2", { phase: "ready", hostId: "b" });
    expect(clusterIds(state([instance("w1", { phase: "ready" }), silent]))).toEqual(["w1"]);
    expect(clusterIds(state([silent]))).toEqual(["w2"]);
    // The only one of its release: taking it out would turn a canary's weight around.
    expect(clusterIds(state([instance("w1", { phase: "ready", release: 2 }), silent]))).toEqual(["w1", "w2"]);
  });

  test("after a restart of control are those that were ready when it last knew", () => {
    const address = { host: "10.0.0.7", port: 8080 };
    expect(clusterIds(state([instance("w1", { address }), instance("w2")]))).toEqual(["w1"]);
  });
});

describe("splits", () => {
  const split = (weight: number, releases: readonly number[]) => {
    const state = world({
      formations: [formation({ web: { release: 2, canary: { release: 3, weight } } })],
      releases: [1, 2, 3].map((number) => release(number, { web: {} })),
      instances: releases.map((number, index) => instance(`w${index}`, { phase: "ready", release: number })),
    });
    return buildMesh(state).clusters.get("web.shop")?.split;
  };

  test.for([
    {
      weight: 10,
      releases: [2, 2, 3],
      split: [
        [2, 90],
        [3, 10],
      ],
    },
    {
      weight: 0,
      releases: [2, 3],
      split: [
        [2, 100],
        [3, 0],
      ],
    },
    {
      weight: 100,
      releases: [2, 3],
      split: [
        [2, 0],
        [3, 100],
      ],
    },
    {
      weight: 10,
      releases: [],
      split: [
        [2, 90],
        [3, 10],
      ],
    },
    // Stable is still rolling from 1 to 2: the canary keeps its tenth, the rest goes by endpoints.
    {
      weight: 10,
      releases: [1, 1, 2, 3],
      split: [
        [1, 180],
        [2, 90],
        [3, 30],
      ],
    },
    // No instance of 2 yet: its share is 1's, not the canary's.
    {
      weight: 10,
      releases: [1, 3],
      split: [
        [1, 90],
        [3, 10],
      ],
    },
  ])("canary at $weight % with instances of $releases: $split", ({ weight, releases, split: expected }) => {
    expect(split(weight, releases)).toEqual(expected.map(([release, weight]) => ({ release, weight })));
  });

  test("none without a canary, and none for a canary of the same spec", () => {
    const shop = release(1, { web: {} });
    const again = { ...shop, number: 2 };
    const state = (canary: object) =>
      world({ formations: [formation({ web: { release: 1, ...canary } })], releases: [shop, again] });
    expect(buildMesh(state({})).clusters.get("web.shop")?.split).toEqual([]);
    const same = state({ canary: { release: 2, weight: 10 } });
    expect(buildMesh(same).clusters.get("web.shop")?.split).toEqual([]);
  });
});

describe("edges", () => {
  const bank = release(1, { ledger: {}, vault: {} }, { formation: "bank", exports: ["ledger"] });
  const shop = release(1, {
    web: { dependencies: { api: 7001, "ledger.bank": 7002, "vault.bank": 7003, "ghost.nowhere": 7004 } },
    api: { dependencies: { db: 5432 }, limits: { requestTimeoutMs: 2_000, retriesMax: 0 } },
    db: {},
    mailer: { dependencies: { smtp: 2525 }, address: "mail.example.com:25" },
  });
  const state = world({
    formations: [
      formation({ web: DESIRE, api: DESIRE, db: DESIRE, mailer: DESIRE }),
      formation({ ledger: DESIRE, vault: DESIRE }, { name: "bank" }),
    ],
    releases: [bank, shop],
    hosts: [host("a"), host("b")],
    instances: [
      instance("w1", { hostId: "a" }),
      instance("a1", { hostId: "b", service: "api", want: "drain" }),
      instance("m1", { hostId: "b", service: "mailer" }),
      instance("d1", { hostId: "b", service: "db", phase: "ready" }),
    ],
  });
  const mesh = buildMesh(state);

  test("across formations only what the other exports; what does not exist yet has an empty cluster", () => {
    expect(mesh.edges.get("web.shop")?.map(({ dependency, cluster }) => [dependency, cluster])).toEqual([
      ["api", "api.shop"],
      ["ghost.nowhere", "ghost.nowhere"],
      ["ledger.bank", "ledger.bank"],
    ]);
    expect(mesh.clusters.get("ghost.nowhere")?.endpoints).toEqual([]);
  });

  test("a caller with limits of its own has a cluster of its own, with the same endpoints", () => {
    const [edge] = mesh.edges.get("api.shop") ?? [];
    expect(edge?.cluster).toBe("db.shop@api.shop/db");
    const cluster = mesh.clusters.get("db.shop@api.shop/db");
    expect(cluster?.endpoints.map(({ id }) => id)).toEqual(["d1"]);
    expect(cluster?.policy).toMatchObject({ requestTimeoutMs: 2_000, retry: { retriesMax: 0 } });
    expect(mesh.clusters.get("db.shop")?.policy.retry.retriesMax).toBe(2);
  });

  test("declared egress is an endpoint of release 0", () => {
    const [edge] = mesh.edges.get("mailer.shop") ?? [];
    expect(mesh.clusters.get(edge?.cluster ?? "")?.endpoints).toEqual([
      { id: "egress/mail.example.com:25", host: "mail.example.com", port: 25, release: 0 },
    ]);
  });

  test("who expects a PROXY header is said endpoint by endpoint", () => {
    const plain = release(1, { web: {} });
    const web = plain.services["web"]!;
    const told = { ...web.spec, proxyProtocol: "v1" as const };
    const state = (protocol: "http" | "grpc") =>
      world({
        formations: [formation({ web: DESIRE })],
        releases: [{ ...plain, services: { web: { ...web, spec: { ...told, protocol } } } }],
        instances: [
          instance("w1", { phase: "ready", spec: { ...told, protocol } }),
          instance("w2", { phase: "ready", spec: web.spec }),
        ],
        hosts: [host("a")],
      });
    const versions = (protocol: "http" | "grpc") =>
      buildMesh(state(protocol))
        .clusters.get("web.shop")
        ?.endpoints.map(({ proxyProtocol }) => proxyProtocol);
    expect(versions("http")).toEqual(["v1", undefined]);
    expect(versions("grpc")).toEqual([undefined, undefined]);
  });

  test("a sidecar holds what its host's instances declare, draining ones included, and no more", () => {
    const scope = scopeOf(mesh, { kind: "sidecar", hostId: "b" });
    expect(scope.edges.map(({ id }) => id)).toEqual(["api.shop/db", "mailer.shop/smtp"]);
    expect(scope.clusters.map(({ name }) => name).toSorted()).toEqual([
      "db.shop@api.shop/db",
      "mail.example.com:25",
    ]);
    expect(scope.routes).toEqual([]);
    expect(scopeOf(mesh, { kind: "sidecar", hostId: "c" })).toEqual({ clusters: [], edges: [], routes: [] });
  });

  test("what is made is valid on the wire", () => {
    for (const hostId of ["a", "b"]) {
      const config = { epoch: 1, ...scopeOf(mesh, { kind: "sidecar", hostId }) };
      expect(MeshConfig.parse(structuredClone(config))).toEqual(config);
    }
  });

  test("an old release's dependency stays as long as it has instances", () => {
    const next = release(2, { web: { dependencies: { api: 7009 } } });
    const both = world({
      formations: [formation({ web: { release: 2 } })],
      releases: [shop, next],
      instances: [instance("w1", { spec: shop.services["web"]!.spec })],
    });
    expect(
      buildMesh(both)
        .edges.get("web.shop")
        ?.map(({ dependency, port }) => [dependency, port]),
    ).toEqual([
      ["api", 7009],
      ["ghost.nowhere", 7004],
      ["ledger.bank", 7002],
      ["vault.bank", 7003], // Formation bank is not known here: no reason to cut a call.
    ]);
  });

  test("what did not change is the same object, what did is not", () => {
    const same = buildMesh(structuredClone(state), mesh);
    for (const [name, cluster] of same.clusters) expect(cluster).toBe(mesh.clusters.get(name));
    for (const [from, edges] of same.edges) expect(edges).toBe(mesh.edges.get(from));
    const moved = buildMesh({ ...state, instances: state.instances.slice(0, 3) }, mesh);
    expect(moved.clusters.get("db.shop")).not.toBe(mesh.clusters.get("db.shop"));
    expect(moved.clusters.get("api.shop")).toBe(mesh.clusters.get("api.shop"));
  });
});

test("an operator's pause goes to every caller, and a hold is gone when its time is over", () => {
  const hold = { kind: "hold" as const, sinceMs: NOW_MS - 3_000, forMs: 5_000 };
  const at = (nowMs: number) => {
    const limits = { limits: { requestTimeoutMs: 1 } };
    const state = world({
      formations: [formation({ web: { release: 1 }, api: { release: 1, pause: hold } })],
      releases: [release(1, { web: { dependencies: { api: 7001 }, ...limits }, api: {} })],
    });
    const { clusters } = buildMesh({ ...state, nowMs });
    return [clusters.get("api.shop")?.pause, clusters.get("api.shop@web.shop/api")?.pause];
  };
  const told = { kind: "hold", id: String(hold.sinceMs), forMs: 5_000 };
  expect(at(NOW_MS)).toEqual([told, told]);
  expect(at(NOW_MS + 2_000)).toEqual([undefined, undefined]);
});

test("how requests are spread is the service's word, unless a caller has one of its own", () => {
  const services = (web: object) =>
    world({
      formations: [formation({ web: DESIRE, api: DESIRE })],
      releases: [
        release(1, {
          web: { dependencies: { api: 7001 }, limits: web },
          api: { balancing: { balancing: "ewma" } },
        }),
      ],
    });
  const policy = (web: object, name: string) => buildMesh(services(web)).clusters.get(name)?.policy;
  const balancing = (web: object, name: string) => policy(web, name)?.balancing;
  expect(balancing({}, "api.shop")).toBe("ewma");
  expect(balancing({ requestTimeoutMs: 1 }, "api.shop@web.shop/api")).toBe("ewma");
  expect(balancing({ call: { priority: "low" } }, "api.shop@web.shop/api")).toBe("ewma");
  expect(balancing({ balancing: { balancing: "round-robin" } }, "api.shop@web.shop/api")).toBe("round-robin");
  const both = { call: { tryTimeoutMs: 9 }, balancing: { balancing: "round-robin" }, retriesMax: 1 };
  expect(policy(both, "api.shop@web.shop/api")).toMatchObject({
    responseTimeoutMs: 9,
    retry: { retriesMax: 1, onTimeout: true },
    balancing: "round-robin",
  });
});
