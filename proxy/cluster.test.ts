import { expect, test } from "vitest";
import { seededRandom } from "../base/random.ts";
import { Cluster } from "../model/mesh.ts";
import { Lease } from "./balancer.ts";
import { ClusterState, type EndpointState } from "./cluster.ts";
import { SmoothSplit } from "./split.ts";

function state(count: number, more: Record<string, unknown> = {}) {
  const events: string[] = [];
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
  });
  const random = seededRandom(1);
  const split = new SmoothSplit();
  const choose = (avoid?: EndpointState) => cluster.choose(split, undefined, avoid, random);
  return { cluster, events, spec, choose };
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
