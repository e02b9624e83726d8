import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { seededRandom } from "../base/random.ts";
import {
  formation,
  host,
  instance,
  NOW_MS,
  proxy,
  release,
  SETTINGS,
  world,
} from "../test/fixtures/world.ts";
import { reconcile } from "./reconcile.ts";
import type { Action, World } from "./world.ts";

/** "place web r2 on a", "drain web-1", …: what a reader wants to know of a plan. */
function plan(state: World): string[] {
  return reconcile(state, seededRandom(1)).map((action) => {
    switch (action.kind) {
      case "place":
        return `place ${action.record.service} r${action.record.release} on ${action.record.hostId}`;
      case "drain":
      case "stop":
      case "forget":
      case "remember":
        return `${action.kind} ${action.instanceId}`;
    }
  });
}

function reasons(state: World): string[] {
  return reconcile(state, seededRandom(1)).flatMap((action: Action) =>
    action.kind === "drain" ? [action.reason] : action.kind === "stop" ? [action.receipt] : [],
  );
}

const ONE = release(1, { web: { instances: 2 } });
const TWO = release(2, { web: { instances: 2 } });
const UP = formation({ web: { release: 2 } });
const old = (id: string, more = {}) => instance(id, { phase: "ready", ...more });
const fresh = (id: string, more = {}) =>
  instance(id, { release: 2, phase: "ready", createdAtMs: NOW_MS - 1_000, ...more });

describe("a rolling replacement", () => {
  const rolling = (instances: World["instances"], proxies: World["proxies"]) =>
    plan(world({ formations: [UP], releases: [ONE, TWO], instances, proxies }));

  test("starts as many as the surge allows and drains none before", () => {
    expect(rolling([old("o1"), old("o2")], [proxy("p", ["o1", "o2"])])).toEqual(["place web r2 on a"]);
  });

  test.for([
    { name: "starts", proxies: [proxy("p", ["o1", "o2"])], phase: "starting" as const },
    {
      name: "is ready but not in every proxy",
      proxies: [
        proxy("p", ["o1", "o2", "n1"]),
        proxy("q", ["o1", "o2"], { wantedEndpoints: new Set(["o1", "o2", "n1"]) }),
      ],
      phase: "ready" as const,
    },
    {
      name: "may just be leaving a proxy again",
      proxies: [proxy("p", ["o1", "o2", "n1"], { sentEndpoints: new Set(["o1", "o2"]) })],
      phase: "ready" as const,
    },
    { name: "is ready but not even fed", proxies: [proxy("p", ["o1", "o2"])], phase: "ready" as const },
  ])("drains nothing while the new one $name", ({ proxies, phase }) => {
    expect(rolling([old("o1"), old("o2"), fresh("n1", { phase })], proxies)).toEqual([]);
  });

  test("drains one old instance for one new in traffic, the one that is not serving first", () => {
    const failing = old("o1", { phase: "failed" });
    const proxies = [proxy("p", ["o2", "n1"])];
    expect(rolling([failing, old("o2"), fresh("n1")], proxies)).toEqual(["drain o1", "place web r2 on a"]);
  });

  test("a gone proxy is not waited for", () => {
    const lost = proxy("q", ["o1"], {
      wantedEndpoints: new Set(["o1", "n1"]),
      lastSeenMs: NOW_MS - SETTINGS.proxyGoneMs,
    });
    expect(rolling([old("o1"), old("o2"), fresh("n1")], [proxy("p", ["o1", "o2", "n1"]), lost])).toEqual([
      "drain o2",
      "place web r2 on a",
    ]);
  });

  test("a release that never becomes ready costs no old instance", () => {
    const crashing = fresh("n1", { phase: "failed", createdAtMs: 0 });
    expect(rolling([old("o1"), old("o2"), crashing], [proxy("p", ["o1", "o2"])])).toEqual([]);
  });

  test("the release after a failed one starts at once in its place", () => {
    const three = release(3, { web: { instances: 2 } });
    const state = world({
      formations: [formation({ web: { release: 3 } })],
      releases: [ONE, TWO, three],
      instances: [old("o1"), old("o2"), fresh("n1", { phase: "failed" })],
      proxies: [proxy("p", ["o1", "o2"])],
    });
    expect(plan(state)).toEqual(["drain n1", "place web r3 on a"]);
  });

  test("an abandoned canary leaves at once, even while an instance of the stable release restarts", () => {
    const restarting = old("o1", { phase: "failed", address: { host: "10.0.0.1", port: 8080 } });
    const state = world({
      formations: [formation({ web: { release: 1 } })],
      releases: [ONE, TWO],
      instances: [restarting, old("o2"), fresh("n1")],
      proxies: [proxy("p", ["o2", "n1"])],
    });
    expect(plan(state)).toEqual(["drain n1"]);
  });

  test("nothing is in traffic while control has not heard from the proxies since it started", () => {
    const state = world({
      startedAtMs: NOW_MS - 1_000,
      formations: [UP],
      releases: [ONE, TWO],
      instances: [old("o1"), old("o2"), fresh("n1")],
      proxies: [proxy("p", ["o1", "o2", "n1"])],
    });
    expect(plan(state)).toEqual([]);
    expect(plan({ ...state, proxies: [...state.proxies, proxy("e", [], { kind: "edge" })] })).toContain(
      "drain o2",
    );
  });
});

describe("counts", () => {
  const scaled = (count: number, instances: World["instances"], more: Partial<World> = {}) =>
    plan(
      world({
        formations: [formation({ web: { release: 1, count } })],
        instances,
        proxies: [
          proxy(
            "p",
            instances.map(({ id }) => id),
          ),
        ],
        ...more,
        releases: [ONE],
      }),
    );

  test.for([
    { count: 2, plan: ["place web r1 on a", "place web r1 on a"] },
    { count: 0, plan: [] },
  ])("from nothing to $count", ({ count, plan }) => {
    expect(scaled(count, [])).toEqual(plan);
  });

  test("down drains the ones not serving, then the youngest", () => {
    const instances = [
      old("w1", { createdAtMs: 1 }),
      old("w2", { createdAtMs: 2, phase: "starting" }),
      old("w3", { createdAtMs: 3 }),
      old("w4", { createdAtMs: 4 }),
    ];
    expect(scaled(2, instances)).toEqual(["drain w2", "drain w4"]);
  });

  test("a crashed instance is the executor's to restart", () => {
    expect(scaled(2, [old("w1"), old("w2", { phase: "failed" })])).toEqual([]);
  });

  test("one that stopped unasked is replaced", () => {
    expect(scaled(2, [old("w1"), old("w2", { phase: "stopped" })])).toEqual([
      "drain w2",
      "place web r1 on a",
    ]);
  });

  test.for([
    { weight: 0, canaries: 1 },
    { weight: 10, canaries: 1 },
    { weight: 50, canaries: 2 },
    { weight: 100, canaries: 4 },
  ])("a canary at $weight % of 4 has $canaries beside a full stable", ({ weight, canaries }) => {
    const state = world({
      formations: [formation({ web: { release: 1, count: 4, canary: { release: 2, weight } } })],
      releases: [ONE, TWO],
    });
    const starts = plan(state);
    expect(starts.filter((step) => step.includes("r1"))).toHaveLength(4);
    expect(starts.filter((step) => step.includes("r2"))).toHaveLength(canaries);
  });

  test("a canary of the old release does not shrink a rollout that is not over", () => {
    const state = world({
      formations: [formation({ web: { release: 2, canary: { release: 1, weight: 0 } } })],
      releases: [ONE, TWO],
      instances: [old("o1"), old("o2"), fresh("n1", { phase: "starting" })],
      proxies: [proxy("p", ["o1", "o2"])],
    });
    expect(plan(state).filter((step) => step.startsWith("drain"))).toEqual([]);
  });

  test.for([
    { api: { db: 5432 }, order: ["db", "api", "web"] },
    { api: { db: 5432, web: 8080 }, order: ["db", "web", "api"] }, // A cycle: all the same, each once.
  ])("dependencies are placed first: $order", ({ api, order }) => {
    const shop = release(1, { web: { dependencies: { api: 7001 } }, api: { dependencies: api }, db: {} });
    const desire = { release: 1 };
    const state = world({
      formations: [formation({ web: desire, api: desire, db: desire })],
      releases: [shop],
    });
    expect(plan(state)).toEqual(order.map((service) => `place ${service} r1 on a`));
  });
});

describe("hosts", () => {
  const state = (hosts: World["hosts"], instances: World["instances"]) =>
    world({
      formations: [formation({ web: { release: 1 } })],
      releases: [ONE],
      hosts,
      instances,
      proxies: [
        proxy(
          "p",
          instances.map(({ id }) => id),
        ),
      ],
    });

  test("a draining host's instances are replaced elsewhere before they drain", () => {
    const hosts = [host("a", { draining: true }), host("b")];
    expect(plan(state(hosts, [old("w1"), old("w2", { hostId: "b" })]))).toEqual(["place web r1 on b"]);
    const replaced = [old("w1"), old("w2", { hostId: "b" }), old("w3", { hostId: "b" })];
    expect(plan(state(hosts, replaced))).toEqual(["drain w1"]);
    expect(reasons(state(hosts, replaced))).toEqual(["host a is draining"]);
  });

  test.for([
    { silentMs: SETTINGS.replaceMs, plan: [] },
    { silentMs: SETTINGS.replaceMs + 1, plan: ["place web r1 on b"] },
  ])("silent for $silentMs ms: $plan", ({ silentMs, plan: expected }) => {
    const hosts = [host("a", { lastSeenMs: NOW_MS - silentMs }), host("b")];
    expect(plan(state(hosts, [old("w1"), old("w2", { hostId: "b" })]))).toEqual(expected);
  });

  test("when it comes back, the surplus is drained", () => {
    const instances = [old("w1"), old("w2", { hostId: "b" }), old("w3", { hostId: "b", createdAtMs: 9 })];
    expect(plan(state([host("a"), host("b")], instances))).toEqual(["drain w3"]);
  });
});

describe("volumes", () => {
  const db = (number: number, image?: { kind: "source"; image: string; source: string }) =>
    release(number, { db: { spec: { volume: "data", ...(image === undefined ? {} : { image }) } } });
  const built = { kind: "source" as const, image: "sha256:i", source: "sha256:s" };
  const states = (more: Partial<Omit<World, "releases">>) =>
    world({
      formations: [formation({ db: { release: 2, count: 3 } })],
      releases: [db(1), db(2, built)],
      hosts: [host("a"), host("b")],
      volumes: new Map([["data", "b"]]),
      ...more,
    });
  const first = (more = {}) =>
    instance("d1", { service: "db", hostId: "b", phase: "ready", spec: { volume: "data" }, ...more });
  const build = (state: "ready" | "building" | "failed") =>
    new Map([
      [
        "sha256:i",
        new Map([["b", { image: "sha256:i", state, explanation: "", reason: "", lastLines: [] }]]),
      ],
    ]);

  test("one instance, where the volume is, whatever the count says", () => {
    expect(plan(states({}))).toEqual(["place db r2 on b"]);
  });

  test.for([
    { state: "building" as const, plan: [] },
    { state: "failed" as const, plan: [] },
    { state: "ready" as const, plan: ["drain d1"] },
  ])("with the new image $state: $plan", ({ state, plan: expected }) => {
    expect(plan(states({ instances: [first()], builds: build(state) }))).toEqual(expected);
  });

  test.for([
    { name: "draining", more: { want: "drain" as const, drainSinceMs: NOW_MS }, plan: ["stop d1"] },
    { name: "stopping", more: { want: "stop" as const, phase: "draining" as const }, plan: [] },
    {
      name: "stopped",
      more: { want: "stop" as const, phase: "stopped" as const },
      plan: ["forget d1", "place db r2 on b"],
    },
  ])("the old one is $name: $plan", ({ more, plan: expected }) => {
    expect(plan(states({ instances: [first(more)], builds: build("ready") }))).toEqual(expected);
  });

  test("it is not moved from a draining host", () => {
    const hosts = [host("a"), host("b", { draining: true })];
    expect(plan(states({ instances: [first()], builds: build("ready"), hosts }))).toEqual([]);
  });
});

describe("letting go", () => {
  const draining = (sinceMs: number) =>
    instance("w1", { phase: "ready", want: "drain", drainSinceMs: NOW_MS - sinceMs });
  const state = (sinceMs: number, proxies: World["proxies"], more: Partial<World> = {}) =>
    world({
      formations: [formation({}, { state: "down" })],
      instances: [draining(sinceMs)],
      proxies,
      ...more,
      releases: [],
    });

  test.for([
    { name: "acknowledges it", proxy: proxy("p", ["w1"]) },
    { name: "has a request in flight to it", proxy: proxy("p", [], { busy: { w1: 2 } }) },
    { name: "may apply it yet", proxy: proxy("p", [], { sentEndpoints: new Set(["w1"]) }) },
    { name: "has not said what it has", proxy: proxy("p", [], { acknowledgedEndpoints: undefined }) },
  ])("no stop while a proxy $name, until the drain timeout", ({ proxy }) => {
    expect(plan(state(SETTINGS.drainMsMax - 1, [proxy]))).toEqual([]);
    expect(plan(state(SETTINGS.drainMsMax, [proxy]))).toEqual(["stop w1"]);
  });

  test("the receipt names every proxy, its epoch and what was in flight", () => {
    const proxies = [proxy("edge-1", [], { epoch: 9 }), proxy("sidecar-a", [], { busy: { w2: 1 } })];
    expect(reasons(state(1_200, proxies))).toEqual([
      "Drained for 1s: edge-1 let go at epoch 9, 0 in flight; sidecar-a let go at epoch 7, 0 in flight.",
    ]);
    expect(reasons(state(30_000, [proxy("p", ["w1"], { busy: {}, wantedEpoch: 8 })]))).toEqual([
      "The drain timeout of 30s passed. Drained for 30s: p still at epoch 7 of 8, 0 in flight.",
    ]);
  });

  test("the drain timeout begins again when control does", () => {
    const started = NOW_MS - 20_000;
    expect(plan(state(60_000, [proxy("p", ["w1"])], { startedAtMs: started }))).toEqual([]);
  });
});

describe("missing is not nothing", () => {
  const full = world({
    formations: [UP],
    releases: [ONE, TWO],
    instances: [old("o1"), old("o2"), fresh("n1")],
    proxies: [proxy("p", ["o1", "o2", "n1"])],
  });

  test.for([
    { missing: "formations", state: { ...full, formations: [] } },
    { missing: "releases", state: { ...full, releases: new Map() } },
    { missing: "hosts", state: { ...full, hosts: [] } },
    { missing: "services", state: { ...full, formations: [formation({}, { current: 2 })] } },
  ])("no $missing: nothing is drained", ({ state }) => {
    expect(plan(state)).toEqual([]);
  });

  test("a service the current release does not have is drained", () => {
    const empty = release(3, { api: {} });
    const state = {
      ...full,
      formations: [formation({}, { current: 3 })],
      releases: new Map([["shop/3", empty]]),
    };
    expect(plan(state)).toEqual(["drain o1", "drain o2", "drain n1"]);
  });

  test("boot instances and formations are never touched", () => {
    const boot = [old("b1", { boot: true }), old("b2", { boot: true, want: "drain", drainSinceMs: 0 })];
    expect(plan({ ...full, instances: boot, formations: [{ ...UP, boot: true }] })).toEqual([]);
    expect(plan({ ...full, instances: boot, formations: [{ ...UP, state: "down" }] })).toEqual([]);
  });
});

test("an address is remembered once", () => {
  const unknown = instance("w1", { phase: "ready" });
  const { address: _address, ...record } = unknown;
  const state = (one: typeof record) =>
    world({ formations: [formation({ web: { release: 1, count: 1 } })], releases: [ONE], instances: [one] });
  expect(plan(state(record))).toEqual(["remember w1"]);
  expect(plan(state(unknown))).toEqual([]);
});

test("total and repeatable for any mixture of releases, wants and phases", () => {
  const records = fc.array(
    fc.record({
      release: fc.integer({ min: 1, max: 3 }),
      want: fc.constantFrom("run" as const, "drain" as const, "stop" as const),
      phase: fc.constantFrom("pending", "starting", "ready", "draining", "stopped", "failed", undefined),
      hostId: fc.constantFrom("a", "b", "gone"),
      drainSinceMs: fc.constantFrom(undefined, 0, NOW_MS),
    }),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(records, fc.nat(5), fc.constantFrom(undefined, 0, 30), (drawn, count, weight) => {
      const canary = weight === undefined ? {} : { canary: { release: 1, weight } };
      const state = world({
        formations: [formation({ web: { release: 2, count, ...canary } })],
        releases: [ONE, TWO],
        hosts: [host("a"), host("b", { draining: true })],
        instances: drawn.map(({ phase, drainSinceMs, ...more }, index) =>
          instance(`w${index}`, {
            ...more,
            ...(phase === undefined ? {} : { phase }),
            ...(drainSinceMs === undefined ? {} : { drainSinceMs }),
          }),
        ),
      });
      const actions = reconcile(state, seededRandom(3));
      expect(actions).toEqual(reconcile(state, seededRandom(3)));
      const named = actions.flatMap((action) => (action.kind === "place" ? [] : [action.instanceId]));
      const ended = actions.filter(({ kind }) => kind !== "remember" && kind !== "place");
      expect(new Set(ended.map((action) => (action.kind === "place" ? "" : action.instanceId))).size).toBe(
        ended.length,
      );
      for (const id of named) expect(state.instances.some((record) => record.id === id)).toBe(true);
    }),
  );
});
