import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { ControlEvent, FormationView, InstanceView, PlatformView, Problem } from "../model/api.ts";
import { UserError } from "../base/errors.ts";
import { FakeHost, SHOP, TestBed, statusOf } from "./doubles.ts";

let bed: TestBed;
let host: FakeHost;
beforeEach(async () => {
  bed = new TestBed();
  await bed.start();
  host = new FakeHost(bed);
  await host.connect();
});
afterEach(() => bed.cleanUp());

const formation = () => bed.read(FormationView, "/v1/formations/shop");
const instances = () => bed.read(z.array(InstanceView), "/v1/formations/shop/instances");

test("a deploy is placed, started, fed and acknowledged", async () => {
  expect((await bed.deploy()).body).toMatchObject({ release: 1, created: true });
  await host.settle();
  expect(await formation()).toMatchObject({ settled: true, state: "up", current: 1 });
  expect((await instances()).map(({ service, inTraffic }) => [service, inTraffic])).toEqual([
    ["api", true],
    ["db", true],
    ["web", true],
    ["web", true],
  ]);
  expect(host.edge.endpoints("web.shop")).toHaveLength(2);
  expect(host.sidecar.endpoints("api.shop")).toHaveLength(1);
  expect(host.edge.endpoints("api.shop")).toEqual([]); // Nothing public leads there.
});

test("secrets reach the instance and its callers, and nobody else", async () => {
  await bed.deploy();
  await host.settle();
  const db = host.executor.list.find(({ spec }) => spec.service === "db");
  const web = host.executor.list.find(({ spec }) => spec.service === "web");
  const password = db?.spec.secrets["POSTGRES_PASSWORD"] ?? "";
  expect(password).toMatch(/^[\w-]{32}$/);
  expect(web?.spec.dependencies.find(({ name }) => name === "db")?.url).toContain(password);
  for (const url of ["", "/instances", "/releases", "/routes", "/env?service=db", "/env?service=web"]) {
    expect(JSON.stringify((await bed.ask("GET", `/v1/formations/shop${url}`)).body)).not.toContain(password);
  }
  const shown = await bed.ask("GET", "/v1/formations/shop/env?service=web&reveal=true");
  expect(JSON.stringify(shown.body)).toContain(password);
});

test("a new release replaces the old one, and nothing stops before every proxy let go of it", async () => {
  await bed.deploy();
  await host.settle();
  const old = (await instances()).filter(({ service }) => service === "api").map(({ id }) => id);
  host.sidecar.busy = { [old[0] ?? ""]: 1 };
  await bed.deploy(SHOP, { version: "2" });
  await host.settle(20);
  expect(host.sidecar.endpoints("api.shop")).not.toContain(old[0]);
  expect(host.executor.stopped).not.toContain(old[0]); // A request is in flight.
  host.sidecar.busy = {};
  await host.settle();
  expect(host.executor.stopped).toContain(old[0]);
  expect(await formation()).toMatchObject({ settled: true, current: 2 });
  const receipts = await bed.read(z.array(ControlEvent), "/v1/formations/shop/receipts");
  expect(receipts.some(({ text }) => text.startsWith(`${old[0]} may stop`))).toBe(true);
  expect((await instances()).filter(({ service }) => service === "db")).toMatchObject([{ release: 1 }]);
});

test("a release that never becomes ready gets no traffic and is explained; rollback brings the old one back", async () => {
  await bed.deploy();
  await host.settle();
  const serving = host.edge.endpoints("web.shop");
  host.executor.broken = ({ spec }) => spec.release === 2;
  await bed.deploy(SHOP, { version: "2" });
  await host.settle();
  expect(host.edge.endpoints("web.shop")).toEqual(serving);
  const told = await formation();
  expect(told.settled).toBe(false);
  expect(told.services.find(({ name }) => name === "web")?.explanation).not.toBe("");
  await bed.ask("POST", "/v1/formations/shop/rollback", {});
  await host.settle();
  expect(await formation()).toMatchObject({ settled: true, current: 1 });
  expect(host.edge.endpoints("web.shop")).toEqual(serving);
});

test("down stops everything and keeps it; up brings it back; delete forgets it", async () => {
  await bed.deploy();
  await host.settle();
  await bed.ask("POST", "/v1/formations/shop/down");
  await host.settle();
  expect(await instances()).toEqual([]);
  expect(await formation()).toMatchObject({ state: "down" });
  await bed.ask("POST", "/v1/formations/shop/up");
  await host.settle();
  expect(await instances()).toHaveLength(4);
  expect((await bed.ask("DELETE", "/v1/formations/shop")).status).toBe(202);
  await host.settle(15);
  expect((await bed.ask("GET", "/v1/formations/shop")).status).toBe(404);
  expect((await bed.control.parts.store.registry.list("secrets/")).entries).toEqual([]);
  expect((await bed.control.parts.store.registry.list("releases/")).entries).toEqual([]);
});

test("a full disk refuses changes and says so; what runs goes on, and with space everything does", async () => {
  await bed.deploy();
  await host.settle();
  const { registry } = bed.control.parts.store;
  const write = registry.write.bind(registry);
  registry.write = async () => {
    throw new UserError("The disk is full", { code: "registry_full", status: 507, next: "Free some space." });
  };
  expect(await bed.deploy(SHOP, { version: "2" })).toMatchObject({
    status: 507,
    body: { code: "registry_full" },
  });
  host.executor.statuses.set("gilliam-control-1", {
    ...statusOf("gilliam-control-1", "ready"),
    boot: bootSpec("control"),
  });
  await host.settle(3);
  expect((await formation()).settled).toBe(true);
  expect((await bed.read(PlatformView, "/v1/status")).alarms[0]).toContain("The disk is full");
  registry.write = write;
  expect((await bed.deploy(SHOP, { version: "2" })).status).toBe(200);
  await host.settle(20);
  expect(await formation()).toMatchObject({ settled: true, current: 2 });
  expect((await bed.read(PlatformView, "/v1/status")).alarms).toEqual([]);
});

test("a host that is drained has nothing left, and gets no more until it is in use again", async () => {
  await bed.deploy(SHOP.replace(/auxiliary:\n.*\n/, "").replace(", db: 5432", ""));
  await host.settle();
  expect((await bed.ask("POST", "/v1/hosts/h1/drain", {})).body).toMatchObject({ state: "draining" });
  await host.settle();
  expect((await formation()).services.map(({ state }) => state)).not.toContain("failing");
  expect((await bed.ask("POST", "/v1/hosts/h1/drain", { undo: true })).body).toMatchObject({ state: "up" });
  await host.settle();
  expect(await formation()).toMatchObject({ settled: true });
});

describe("adoption", () => {
  test("the boot formation is shown, and refused to be changed", async () => {
    host.executor.statuses.set("gilliam-control-1", {
      ...statusOf("gilliam-control-1", "ready", { host: "127.0.0.1", port: 7000 }),
      boot: bootSpec("control"),
    });
    await host.settle(2);
    const { body } = await bed.ask("GET", "/v1/formations/gilliam");
    expect(body).toMatchObject({ boot: true, current: 1 });
    expect(JSON.stringify((await bed.control.parts.store.registry.list("")).entries)).not.toContain("hush");
    for (const [verb, request] of [
      ["down", undefined],
      ["scale", { counts: { control: 2 } }],
      ["rollback", {}],
    ] as const) {
      const answer = await bed.ask("POST", `/v1/formations/gilliam/${verb}`, request);
      expect(answer).toMatchObject({ status: 409, body: { code: "refused" } });
      expect(Problem.parse(answer.body).detail).toContain("Gilliam itself");
    }
    expect(host.executor.list).toEqual([]); // The executor runs it by itself.
    host.executor.statuses.clear();
    await host.settle(2);
    expect((await bed.ask("GET", "/v1/formations/gilliam/instances")).body).toEqual([]);
  });

  test("an instance the registry forgot is taken back when its release is known", async () => {
    await bed.deploy();
    await host.settle();
    const before = await instances();
    const { store } = bed.control.parts;
    await store.write(before.map(({ id }) => ({ kind: "delete", key: `instances/${id}` })));
    await host.settle();
    expect((await instances()).map(({ id }) => id).sort()).toEqual(before.map(({ id }) => id).sort());
    expect(host.executor.stopped).toEqual([]);
  });

  test("one of which nothing is known is left alone, with an alarm", async () => {
    host.executor.statuses.set("bank-ledger-r3-abcde", statusOf("bank-ledger-r3-abcde", "ready"));
    await host.settle(3);
    expect(host.executor.statuses.has("bank-ledger-r3-abcde")).toBe(true);
    const { alarms } = await bed.read(PlatformView, "/v1/status");
    expect(alarms.some((text) => text.includes("bank-ledger-r3-abcde"))).toBe(true);
  });
});

function bootSpec(service: string) {
  return {
    formation: "gilliam",
    service,
    release: 1,
    image: { kind: "platform" as const },
    command: `node ${service}/main.ts`,
    port: 7000,
    protocol: "http" as const,
    health: { kind: "tcp" as const },
    resources: {},
    environment: {},
    secrets: { TOKEN: "hush" },
    dependencies: [],
    stop: { signal: "SIGTERM" as const, graceMs: 5_000 },
  };
}
