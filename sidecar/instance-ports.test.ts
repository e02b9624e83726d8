import { expect, test, vi } from "vitest";
import { UserError } from "../base/errors.ts";
import { ManualClock } from "../base/manual-clock.ts";
import type { LocalPortsRequest } from "../model/local-ports.ts";
import type { ListenerPlan } from "../proxy/agent/messages.ts";
import { InstancePorts, type InstancePortsOptions, type InstanceRecord } from "./instance-ports.ts";
import type { BoundPort } from "./open-ports.ts";

const taken = () => new UserError("Port taken", { code: "port_taken", status: 409 });

/** A host on paper: which sockets are open, in which namespace, and what a disk would hold. */
function paperHost(options: Partial<InstancePortsOptions> = {}) {
  const host = {
    open: new Set<BoundPort["handle"]>(),
    listeners: new Map<string, { plan: ListenerPlan; handle: BoundPort["handle"] }>(),
    namespaces: new Map([["/run/netns/one", "1"]]),
    takenPorts: new Set<number>(),
    saved: [] as readonly InstanceRecord[],
    entered: 0,
    nextPort: 40_000,
    clock: new ManualClock(),
  };
  const socket = (address: BoundPort["host"], port: number): BoundPort => {
    const handle = { close: () => void host.open.delete(handle) };
    host.open.add(handle);
    return { host: address, port, handle };
  };
  const both = (port: number) => {
    if (host.takenPorts.has(port)) throw taken();
    return [socket("127.0.0.1", port), socket("::1", port)];
  };
  const ports = new InstancePorts({
    openListener: (plan, handle) => {
      host.listeners.set(plan.id, { plan, handle });
      return Promise.resolve({ host: "127.0.0.1", port: 1 });
    },
    closeListener: (id) => {
      host.listeners.get(id)?.handle.close();
      host.listeners.delete(id);
      return Promise.resolve();
    },
    openInNamespace: (path, wanted) => {
      host.entered += 1;
      if (!host.namespaces.has(path))
        return Promise.reject(new UserError("gone", { code: "namespace_failed" }));
      return Promise.resolve(wanted.flatMap(both));
    },
    openOnLoopback: (wanted) => both(wanted ?? host.nextPort++),
    namespaceIdentity: (path) => host.namespaces.get(path),
    save: (records) => {
      host.saved = records;
    },
    clock: host.clock,
    log: { info: vi.fn(), warn: vi.fn(), error: vi.fn() },
    instancesMax: 3,
    ...options,
  });
  return { host, ports };
}

const request = (change: Partial<LocalPortsRequest> = {}): LocalPortsRequest => ({
  instanceId: "shop-web-r1-abcde",
  formation: "shop",
  service: "web",
  release: 1,
  namespace: "/run/netns/one",
  ports: [
    { dependency: "api", port: 7001, protocol: "http" },
    { dependency: "ledger.bank", port: 7002, protocol: "tcp" },
  ],
  ...change,
});
const shared = request({ namespace: null });

test("inside a namespace the ports are the declared ones, on both loopback addresses", async () => {
  const { host, ports } = paperHost();
  expect(await ports.put(request())).toEqual({
    instanceId: "shop-web-r1-abcde",
    ports: [
      { dependency: "api", host: "127.0.0.1", port: 7001 },
      { dependency: "ledger.bank", host: "127.0.0.1", port: 7002 },
    ],
  });
  expect([...host.listeners.keys()].sort()).toEqual([
    "shop-web-r1-abcde/api/4",
    "shop-web-r1-abcde/api/6",
    "shop-web-r1-abcde/ledger.bank/4",
    "shop-web-r1-abcde/ledger.bank/6",
  ]);
  expect(host.listeners.get("shop-web-r1-abcde/api/4")?.plan).toMatchObject({
    from: "web.shop",
    cluster: "api.shop",
  });
  expect(host.listeners.get("shop-web-r1-abcde/ledger.bank/6")?.plan).toMatchObject({
    cluster: "ledger.bank",
  });
  expect(host.entered).toBe(1);
});

test("the same request again changes nothing; another one replaces the ports", async () => {
  const { host, ports } = paperHost();
  const first = await ports.put(request());
  expect(await ports.put(request())).toEqual(first);
  expect(host.entered).toBe(1);
  await ports.put(request({ ports: [{ dependency: "api", port: 7005, protocol: "http" }] }));
  expect(host.open.size).toBe(2);
  expect(host.saved).toHaveLength(1);
});

test("a namespace made anew at the same path gets new sockets", async () => {
  const { host, ports } = paperHost();
  await ports.put(request());
  host.namespaces.set("/run/netns/one", "2");
  await ports.put(request());
  expect(host.entered).toBe(2);
  expect(host.open.size).toBe(4);
});

test("on a shared loopback each instance has free ports of its own, kept over a change where possible", async () => {
  const { host, ports } = paperHost();
  const first = await ports.put(shared);
  const other = await ports.put({ ...shared, instanceId: "shop-web-r1-zzzzz" });
  const numbers = [...first.ports, ...other.ports].map(({ port }) => port);
  expect(new Set(numbers).size).toBe(4);
  const changed = await ports.put({ ...shared, release: 2 });
  expect(changed).toEqual(first);
  host.takenPorts.add(first.ports[0]!.port);
  const moved = await ports.put({ ...shared, release: 3 });
  expect(moved.ports[0]!.port).not.toBe(first.ports[0]!.port);
  expect(moved.ports[1]).toEqual(first.ports[1]);
});

test("when one port cannot be opened none stays open, and nothing is remembered", async () => {
  const { host, ports } = paperHost();
  host.takenPorts.add(7002);
  await expect(ports.put(request())).rejects.toMatchObject({ code: "port_taken" });
  expect(ports.list().instances).toEqual([]);
  expect(host.saved).toEqual([]);
});

test("when a worker cannot listen all sockets are closed again", async () => {
  const { host, ports } = paperHost({ openListener: () => Promise.reject(taken()) });
  await expect(ports.put(shared)).rejects.toMatchObject({ code: "port_taken" });
  expect(ports.list().instances).toEqual([]);
  expect(host.listeners.size).toBe(0);
});

test("ports that a restart would lose are not given out", async () => {
  const { host, ports } = paperHost({
    save: () => {
      throw new Error("ENOSPC");
    },
  });
  await expect(ports.put(request())).rejects.toMatchObject({ code: "state_not_saved", status: 507 });
  expect(host.open.size).toBe(0);
});

test("more instances than the limit are refused, a known one is not", async () => {
  const { ports } = paperHost();
  for (const instanceId of ["a", "b", "c"]) await ports.put({ ...shared, instanceId });
  await expect(ports.put({ ...shared, instanceId: "d" })).rejects.toMatchObject({
    code: "too_many_instances",
  });
  await ports.put({ ...shared, instanceId: "a", release: 2 });
  await ports.delete("b");
  await ports.put({ ...shared, instanceId: "d" });
});

test("delete closes and forgets; a second time there is nothing to close", async () => {
  const { host, ports } = paperHost();
  await ports.put(request());
  expect(await ports.delete("shop-web-r1-abcde")).toBe(true);
  expect(host.open.size).toBe(0);
  expect(host.saved).toEqual([]);
  expect(await ports.delete("shop-web-r1-abcde")).toBe(false);
});

test("put and delete at the same time end as if asked one after the other", async () => {
  const { host, ports } = paperHost();
  await Promise.all([ports.put(request()), ports.delete("shop-web-r1-abcde"), ports.put(request())]);
  expect(host.open.size).toBe(4);
  await Promise.all([ports.put(shared), ports.delete("shop-web-r1-abcde")]);
  expect(host.open.size).toBe(0);
});

test("after a restart the same ports are open; one taken meanwhile is told, and tried until it is free", async () => {
  const before = paperHost();
  const answer = await before.ports.put(shared);
  const { host, ports } = paperHost();
  host.takenPorts.add(answer.ports[0]!.port);
  await ports.restore(before.host.saved);
  expect(ports.list().instances).toMatchObject([{ ...answer, state: "failed", reason: "Port taken" }]);
  expect(host.open.size).toBe(0);
  host.takenPorts.clear();
  await host.clock.advance(2_000);
  expect(ports.list().instances).toMatchObject([{ ...answer, state: "open", reason: "" }]);
  expect(await ports.put(shared)).toEqual(answer);
});

test("a namespace that stays away is let go of, one that was missed only for a moment is not", async () => {
  const { host, ports } = paperHost();
  await ports.put(request());
  await ports.restore([]);
  host.namespaces.clear();
  await host.clock.advance(4_000);
  host.namespaces.set("/run/netns/one", "1");
  await host.clock.advance(2_000);
  expect(host.open.size).toBe(4);
  host.namespaces.clear();
  await host.clock.advance(6_000);
  expect(host.open.size).toBe(0);
  expect(host.saved).toEqual([]);
});

test("two dependencies on one port are refused before anything is opened", async () => {
  const { host, ports } = paperHost();
  const twice = request().ports.map((port) => ({ ...port, port: 7001 }));
  await expect(ports.put(request({ ports: twice }))).rejects.toMatchObject({ code: "port_twice" });
  expect(host.entered).toBe(0);
});
