import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { PlatformView } from "../model/api.ts";
import { FakeHost, SHOP, TestBed } from "./doubles.ts";

let bed: TestBed;
let host: FakeHost;
beforeEach(async () => {
  bed = new TestBed();
  await bed.start();
  host = new FakeHost(bed);
  await host.connect();
});
afterEach(() => bed.cleanUp());

const view = async () => (await bed.ask("GET", "/v1/formations/shop")).body;

/** As after kill -9 and a restart by the executor; hosts and proxies come back by themselves. */
async function restart(failpoint?: (step: string) => void): Promise<void> {
  await bed.kill();
  await bed.start(failpoint);
  await host.connect();
}

/** Throws at the nth time any step is reached, once. */
function killAt(nth: number): { failpoint: (step: string) => void; reached: () => string | undefined } {
  let count = 0;
  let reached: string | undefined;
  return {
    failpoint: (step) => {
      count += 1;
      if (reached === undefined && count < nth) return;
      reached ??= step;
      throw new Error(`killed at ${reached}`);
    },
    reached: () => reached,
  };
}

describe("control killed in the middle of a rollout", () => {
  // Each round passes decided, written, reserved, fed, assigned; a rollout takes several.
  const steps = [1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 25, 45];
  test.for(steps)(
    "at its step %i, it ends whole, and no instance is stopped while it may be called",
    async (nth) => {
      await bed.deploy();
      await host.settle();
      const old = host.edge.endpoints("web.shop");
      const { failpoint, reached } = killAt(nth);
      await bed.kill();
      await bed.start(failpoint);
      await host.connect();
      host.sidecar.busy = {};
      await bed.deploy(SHOP, { version: "2" });
      for (let second = 0; second < 30 && reached() === undefined; second++) {
        await host.settle(1);
        expectNothingStoppedInTraffic(host);
      }
      await restart();
      for (let second = 0; second < 20; second++) {
        await host.settle(1);
        expectNothingStoppedInTraffic(host);
        expect(host.edge.endpoints("web.shop").length).toBeGreaterThanOrEqual(2);
      }
      expect(await view()).toMatchObject({ settled: true, current: 2 });
      expect(host.executor.stopped).toEqual(expect.arrayContaining(old));
      expect(new Set(host.executor.stopped).size).toBe(host.executor.stopped.length);
      const running = host.executor.list.filter(({ want }) => want === "run");
      expect(running.map(({ spec }) => spec.service).sort()).toEqual(["api", "db", "web", "web"]);
    },
  );
});

function expectNothingStoppedInTraffic({ edge, sidecar, executor }: FakeHost): void {
  const called = new Set(
    ["web.shop", "api.shop", "db.shop"].flatMap((name) => [
      ...edge.endpoints(name),
      ...sidecar.endpoints(name),
    ]),
  );
  for (const id of executor.stopped)
    expect(called.has(id), `${id} was stopped while a proxy had it`).toBe(false);
}

test("a restarted control changes nothing that is settled", async () => {
  await bed.deploy();
  await host.settle();
  const before = { edge: host.edge.config, list: host.executor.list };
  await restart();
  await host.settle();
  expect(host.executor.stopped).toEqual([]);
  expect(host.executor.list).toEqual(before.list);
  expect(host.edge.config?.clusters).toEqual(before.edge?.clusters);
  expect(await view()).toMatchObject({ settled: true });
});

test("epochs never go back, even when no proxy tells the old ones", async () => {
  await bed.deploy();
  await host.settle();
  const epoch = bed.control.parts.hub.epoch;
  expect(epoch).toBeGreaterThan(0);
  await bed.kill();
  await bed.start();
  expect(bed.control.parts.hub.epoch).toBeGreaterThanOrEqual(epoch);
  await bed.kill();
  await bed.start();
  await host.connect();
  await host.settle();
  expect(host.edge.epochs).toEqual(host.edge.epochs.toSorted((a, b) => a - b));
});

test("after a restart, a proxy that is late is waited for before anything it may call is stopped", async () => {
  await bed.deploy();
  await host.settle();
  const old = host.sidecar.endpoints("api.shop");
  await bed.kill();
  await bed.start();
  await host.executor.report();
  host.executor.connect();
  await host.edge.report();
  host.edge.connect();
  await bed.deploy(SHOP, { version: "2" });
  for (let second = 0; second < 10; second++) {
    await host.executor.report();
    await host.edge.report(); // The sidecar is silent: it may still call the old instance.
    await bed.control.parts.controller.poke();
    await bed.clock.advance(1_000);
  }
  expect(host.executor.stopped).not.toContain(old[0]);
  await host.sidecar.report();
  host.sidecar.connect();
  await host.settle(20);
  expect(host.executor.stopped).toContain(old[0]);
  expect(await view()).toMatchObject({ settled: true, current: 2 });
});

test("after a restart without its executor, endpoints stay in the mesh", async () => {
  await bed.deploy();
  await host.settle();
  const serving = host.edge.endpoints("web.shop");
  await bed.kill();
  await bed.start();
  host.edge.connect();
  host.sidecar.connect();
  for (let second = 0; second < 12; second++) {
    await host.edge.report();
    await host.sidecar.report();
    await bed.control.parts.controller.poke();
    await bed.clock.advance(1_000);
  }
  expect(host.edge.endpoints("web.shop")).toEqual(serving);
  const { alarms } = await bed.read(PlatformView, "/v1/status");
  expect(alarms.some((text) => text.startsWith("Host h1 has been silent"))).toBe(true);
});

test("a wall clock that jumps a year makes nobody silent", async () => {
  await bed.deploy();
  await host.settle();
  const { clock } = bed;
  const wallMs = clock.wallMs.bind(clock);
  clock.wallMs = () => wallMs() + 365 * 86_400_000;
  await host.settle(3);
  expect(host.executor.stopped).toEqual([]);
  expect((await bed.read(PlatformView, "/v1/status")).alarms).toEqual([]);
});
