import { expect, test } from "vitest";
import { seededRandom } from "../base/random.ts";
import { Cluster } from "../model/mesh.ts";
import { Lease } from "./balancer.ts";
import { ClusterState, type EndpointState } from "./cluster.ts";
import { SmoothSplit } from "./split.ts";

function state(count: number, more: Record<string, unknown> = {}) {
  const events: string[] = [];
  const clock = { nowMs: 0 };
  const spec = (size: number, extra: Record<string, unknown> = more) =>
    Cluster.parse({
      name: "api.shop",
      protocol: "http",
      endpoints: Array.from({ length: size }, (_, index) => ({
        id: `i${index}`,
        host: "10.0.0.1",
        port: 80 + index,
        release: 1,
      })),
      ...extra,
    });
  const cluster = new ClusterState(spec(count), {
    onEjected: ({ id }) => events.push(`ejected ${id}`),
    onPanic: (_, panicking) => events.push(panicking ? "panic" : "calm"),
    socketsLeft: true,
    onEmptied: ({ id }) => events.push(`emptied ${id}`),
    watch: (_, dueMs) => events.push(`watch ${dueMs}`),
    nowMs: () => clock.nowMs,
    wake: (name) => events.push(`wake ${name}`),
  });
  const random = seededRandom(1);
  const split = new SmoothSplit();
  const choose = (avoid?: EndpointState, key?: string) =>
    cluster.choose(split, undefined, avoid, random, key);
  return { clock, cluster, events, spec, choose };
}

const fail = (cluster: ClusterState, id: string, times: number, nowMs = 0) => {
  for (let count = 0; count < times; count += 1)
    cluster.noteFailure(cluster.endpoints.get(id)!, "reset", nowMs);
};

test("the less busy of two is chosen", () => {
  const { cluster, choose } = state(2);
  const leases = Array.from({ length: 3 }, () => new Lease());
  for (const lease of leases) lease.take(cluster.endpoints.get("i0")!);
  for (let count = 0; count < 20; count += 1) expect(choose()?.id).toBe("i1");
});

test("round robin takes turns", () => {
  const { choose } = state(3, { policy: { balancing: "round-robin" } });
  expect(Array.from({ length: 6 }, () => choose()?.id)).toEqual(["i0", "i1", "i2", "i0", "i1", "i2"]);
});

test("where an attempt failed is avoided, unless there is nothing else", () => {
  const { cluster, choose } = state(2);
  for (let count = 0; count < 20; count += 1) expect(choose(cluster.endpoints.get("i0"))?.id).toBe("i1");
  const alone = state(1);
  expect(alone.choose(alone.cluster.endpoints.get("i0"))?.id).toBe("i0");
});

test("an ejected endpoint gets nothing until its time is over", () => {
  const { cluster, events, choose } = state(3);
  fail(cluster, "i1", 5, 1000);
  expect(events).toEqual(["watch 6000", "ejected i1"]);
  for (let count = 0; count < 50; count += 1) expect(choose()?.id).not.toBe("i1");
  expect(cluster.onTick(5999)).toBe(6000);
  expect(cluster.onTick(6000)).toBe(Infinity);
  expect(new Set(Array.from({ length: 50 }, () => choose()?.id))).toContain("i1");
});

test("no more are ejected than the policy allows", () => {
  const { cluster, events } = state(4);
  for (const id of ["i0", "i1", "i2", "i3"]) fail(cluster, id, 10);
  expect(events.filter((event) => event.startsWith("ejected"))).toEqual(["ejected i0", "ejected i1"]);
});

test("the only endpoint left is dead and the other ejected for errors: the ejected one is tried", () => {
  const { cluster, events, choose } = state(2);
  fail(cluster, "i0", 5);
  const dead = cluster.endpoints.get("i1")!;
  expect(choose()?.id).toBe("i1");
  expect(choose(dead)?.id).toBe("i0");
  for (let count = 0; count < 5; count += 1) cluster.noteFailure(dead, "ECONNREFUSED", 0, true);
  expect(events.filter((event) => event.startsWith("ejected"))).toEqual(["ejected i0", "ejected i1"]);
  expect(choose()?.id).toBe("i0");
  // Both unreachable: they do not take turns in being ejected.
  for (let count = 0; count < 20; count += 1) {
    cluster.noteFailure(cluster.endpoints.get("i0")!, "ECONNREFUSED", 0, true);
  }
  expect(events.filter((event) => event.startsWith("ejected"))).toHaveLength(2);
});

test("when all are ejected all are used, and it is said", () => {
  const { cluster, events, choose } = state(2, { policy: { outlier: { ejectedPercentMax: 100 } } });
  fail(cluster, "i0", 5);
  fail(cluster, "i1", 5);
  expect(events).toContain("panic");
  expect(new Set(Array.from({ length: 50 }, () => choose()?.id)).size).toBe(2);
  cluster.onTick(60_000);
  expect(events).toContain("calm");
});

test("a changed configuration keeps endpoints that stayed, and tells of those that left when they are done", () => {
  const { cluster, events, spec } = state(2);
  const stayed = cluster.endpoints.get("i0")!;
  const leaving = cluster.endpoints.get("i1")!;
  const lease = new Lease();
  lease.take(leaving);
  expect(cluster.change(spec(1))).toEqual([leaving]);
  expect(cluster.endpoints.get("i0")).toBe(stayed);
  expect([leaving.removed, leaving.inFlight, events]).toEqual([true, 1, []]);
  lease[Symbol.dispose]();
  lease[Symbol.dispose]();
  expect([leaving.inFlight, events]).toEqual([0, ["emptied i1"]]);
});

test("an instance that comes back under another address is another endpoint", () => {
  const { cluster, spec } = state(1);
  const before = cluster.endpoints.get("i0");
  const moved = spec(1, { endpoints: [{ id: "i0", host: "10.0.0.9", port: 80, release: 1 }] });
  expect(cluster.change(moved)).toEqual([before]);
  expect(cluster.endpoints.get("i0")).not.toBe(before);
});

test("an endpoint whose connections are all in use is passed over", () => {
  const { cluster, choose } = state(2, { policy: { connectionsPerEndpointMax: 1 } });
  cluster.endpoints.get("i0")!.connections = 1;
  for (let count = 0; count < 20; count += 1) expect(choose()?.id).toBe("i1");
  cluster.endpoints.get("i1")!.connections = 1;
  expect(choose()).toBeUndefined();
});

test.for([
  ["10.0.0.1", 443, ""],
  ["::1", 80, ""],
  ["localhost", 80, ""],
  ["api.stripe.com", 80, "api.stripe.com"],
  ["api.stripe.com", 8443, "api.stripe.com:8443"],
] as const)("declared egress to %s:%i needs the Host %j", ([host, port, field]) => {
  const { cluster } = state(0, { endpoints: [{ id: "x", host, port, release: 0 }] });
  expect(cluster.endpoints.get("x")!.hostField).toBe(field);
});

test("the one that answers faster gets more, and one that got slow loses at once", () => {
  const { cluster, choose } = state(2, { policy: { balancing: "ewma" } });
  const [a, b] = [...cluster.endpoints.values()];
  a!.ewma.observe(10, 1);
  b!.ewma.observe(50, 1);
  for (let count = 0; count < 20; count += 1) expect(choose()?.id).toBe("i0");
  a!.ewma.observe(200, 2);
  for (let count = 0; count < 20; count += 1) expect(choose()?.id).toBe("i1");
});

test("a key stays with its endpoint, moves while that one is out, and comes back", () => {
  const { cluster, choose } = state(5, {
    policy: { balancing: "maglev", hash: { by: "header", name: "x-user" } },
  });
  const home = choose(undefined, "ann")!;
  expect(choose(undefined, "ann")).toBe(home);
  const other = choose(home, "ann")!;
  expect(other).not.toBe(home);
  fail(cluster, home.id, 5);
  expect(choose(undefined, "ann")).toBe(other);
  cluster.onTick(1e6);
  expect(choose(undefined, "ann")).toBe(home);
  const users = Array.from({ length: 50 }, () => choose()?.id); // Without a key: any.
  expect(new Set(users).size).toBe(5);
});

test("a new endpoint's share grows evenly; those from the beginning have theirs", () => {
  const policy = { balancing: "round-robin", slowStartMs: 10_000 };
  const { clock, cluster, spec, choose } = state(1, { policy });
  const share = () => {
    const ids = Array.from({ length: 2000 }, () => choose()?.id);
    return ids.filter((id) => id === "i1").length / 2000;
  };
  clock.nowMs = 1000;
  cluster.change(spec(2, { policy }));
  expect(share()).toBeCloseTo(0.05, 1);
  clock.nowMs = 6000;
  expect(share()).toBeCloseTo(0.25, 1);
  clock.nowMs = 11_000;
  expect(share()).toBe(0.5);
});

test("a hold ends by itself and wakes who waits; the same one never begins twice", () => {
  const { clock, cluster, events, spec } = state(1);
  const hold = (id: string) => ({ pause: { kind: "hold", id, forMs: 5000 } });
  clock.nowMs = 1000;
  cluster.change(spec(1, hold("a")));
  expect(cluster.pause).toEqual({ kind: "hold", untilMs: 6000 });
  clock.nowMs = 3000;
  cluster.change(spec(1, hold("a")));
  expect(cluster.pause).toEqual({ kind: "hold", untilMs: 6000 });
  expect(cluster.onTick(5999)).toBe(6000);
  expect(cluster.onTick(6000)).toBe(Infinity);
  expect(cluster.pause).toBeUndefined();
  expect(events).toEqual(["watch 6000", "wake api.shop"]);
  cluster.change(spec(1, hold("a")));
  expect(cluster.pause).toBeUndefined();
  clock.nowMs = 7000;
  cluster.change(spec(1, hold("b")));
  expect(cluster.pause).toEqual({ kind: "hold", untilMs: 12_000 });
  cluster.change(spec(1, {}));
  expect(cluster.pause).toBeUndefined();
});
