import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { systemClock } from "../../base/clock.ts";
import { seededRandom } from "../../base/random.ts";
import { bindShared, bindTcp } from "./handles.ts";
import { Keeper, type KeeperOptions } from "./keeper.ts";
import { defaultKeeperPolicy } from "./keeper-policy.ts";
import type { SocketAddress } from "./messages.ts";

const log = { info: vi.fn(), warn: vi.fn(), error: vi.fn() };
const keepers: Keeper[] = [];
afterEach(async () => {
  await Promise.all(keepers.splice(0).map((keeper) => keeper.stop(0)));
});

function startKeeper(options: Partial<KeeperOptions> = {}): Keeper {
  const keeper = new Keeper({
    command: {
      entry: join(import.meta.dirname, "testing/echo-worker.ts"),
      execArgv: [],
      environment: {
        PATH: process.env["PATH"] ?? "",
        NODE_COMPILE_CACHE: join(tmpdir(), "gilliam-test-compile-cache"),
      },
      prefix: [],
    },
    settings: {},
    policy: defaultKeeperPolicy,
    clock: systemClock,
    random: seededRandom(1),
    log,
    drainMs: 5_000,
    folder: tmpdir(),
    ...options,
  });
  keepers.push(keeper);
  keeper.start();
  return keeper;
}

async function openOne(keeper: Keeper, id = "one"): Promise<SocketAddress> {
  return keeper.open({ kind: "edge", id }, bindTcp({ host: "127.0.0.1", port: 0 }).handle);
}

interface Told {
  pid: number;
  leading: boolean;
}

function get({ host, port }: SocketAddress, path = "/pid", agent: http.Agent | false = false): Promise<Told> {
  return new Promise((resolve, reject) => {
    http
      .get({ host, port, path, agent }, (response) => {
        let body = "";
        response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
        response.on("end", () => resolve(JSON.parse(body) as Told)).on("error", reject);
      })
      .on("error", reject);
  });
}

/** Opens connections one after the other on `lanes` lanes until told to stop; returns what failed. */
function load(address: SocketAddress, lanes: number) {
  const running = { value: true };
  let answered = 0;
  const failures: string[] = [];
  const slowestMs = { value: 0 };
  const lane = async () => {
    while (running.value) {
      const startMs = systemClock.nowMs();
      await get(address).then(
        () => {
          answered += 1;
          slowestMs.value = Math.max(slowestMs.value, systemClock.nowMs() - startMs);
        },
        (error: NodeJS.ErrnoException) => failures.push(error.code ?? error.message),
      );
    }
  };
  const done = Promise.all(Array.from({ length: lanes }, lane));
  return {
    async stop() {
      running.value = false;
      await done;
      return { answered, failures, slowestMs: slowestMs.value };
    },
  };
}

const until = (condition: () => Promise<boolean> | boolean) =>
  vi.waitFor(async () => expect(await condition()).toBe(true), { timeout: 10_000, interval: 20 });

/** Resolves when so many workers have answered. */
async function allServe(address: SocketAddress, count: number): Promise<void> {
  const seen = new Set<number>();
  await until(async () => seen.add((await get(address)).pid).size === count);
}

test("a worker killed with -9 under load: nobody is refused, only what was in flight is lost", async () => {
  const keeper = startKeeper();
  const address = await openOne(keeper);
  const traffic = load(address, 4);
  const kills = 3;
  for (let kill = 0; kill < kills; kill++) {
    const { pid } = await get(address);
    process.kill(pid, "SIGKILL");
    await until(async () => (await get(address).catch(() => ({ pid }))).pid !== pid);
  }
  const { answered, failures, slowestMs } = await traffic.stop();
  console.log(
    `kill -9: ${answered} answered, lost in flight: ${failures.length}, slowest ${Math.round(slowestMs)} ms`,
  );
  expect(failures).not.toContain("ECONNREFUSED");
  expect(failures.length).toBeLessThanOrEqual(kills * 5);
  expect(slowestMs).toBeLessThan(3_000);
  expect(keeper.facts().deaths).toBe(kills);
}, 30_000);

test("a hot restart under load loses nothing, and the lead passes on", async () => {
  const keeper = startKeeper();
  const address = await openOne(keeper);
  const before = await get(address);
  expect(before.leading).toBe(true);
  const traffic = load(address, 4);
  keeper.restart("test");
  await until(async () => (await get(address)).pid !== before.pid);
  await until(() => keeper.workerPids.length === 1);
  const { answered, failures } = await traffic.stop();
  expect(failures).toEqual([]);
  expect(answered).toBeGreaterThan(0);
  const after = await get(address);
  expect(after).toEqual({ pid: keeper.workerPids[0], leading: true });
  expect(keeper.facts()).toMatchObject({ deaths: 0, hangs: 0, hotRestarts: 1 });
}, 30_000);

test("several workers share a port: each gets its part, and kill -9 of one is no pause for the others", async () => {
  const keeper = startKeeper({ workers: 2 });
  const bound = bindShared({ host: "127.0.0.1", port: 0 }, 2);
  const { address } = bound;
  await keeper.open({ kind: "edge", id: "one" }, ...bound.handles);
  await allServe(address, 2);
  const [leader = 0, other = 0] = keeper.workerPids;
  for (const victim of [other, leader]) {
    // A connection to the worker that lives on, kept over the death of the other.
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    let kept = await get(address, "/pid", agent);
    while (kept.pid === victim) {
      agent.destroy();
      kept = await get(address, "/pid", agent);
    }
    const traffic = load(address, 2);
    process.kill(victim, "SIGKILL");
    await until(() => !keeper.workerPids.includes(victim));
    for (let count = 0; count < 20; count += 1)
      expect((await get(address, "/pid", agent)).pid).toBe(kept.pid);
    await until(async () => {
      const { pid } = await get(address);
      return pid !== kept.pid;
    });
    const { failures } = await traffic.stop();
    expect(failures).not.toContain("ECONNREFUSED");
    expect(failures.length).toBeLessThanOrEqual(3); // What the killed one had accepted.
    agent.destroy();
  }
  expect(keeper.facts()).toMatchObject({ deaths: 2, hangs: 0 });
}, 30_000);

test("while a worker of two stands still the other accepts for it", async () => {
  const keeper = startKeeper({
    workers: 2,
    policy: { ...defaultKeeperPolicy, pingMs: 150, startMsMax: 60_000 },
  });
  const bound = bindShared({ host: "127.0.0.1", port: 0 }, 2);
  await keeper.open({ kind: "edge", id: "one" }, ...bound.handles);
  await allServe(bound.address, 2);
  const { pid } = await get(bound.address, "/hang?ms=60000");
  await until(() => keeper.facts().hangs === 1);
  // Whichever socket the kernel chooses.
  for (let count = 0; count < 20; count += 1) expect((await get(bound.address)).pid).not.toBe(pid);
  await until(() => keeper.workerPids.length === 2 && !keeper.workerPids.includes(pid));
}, 30_000);

test("a hot restart replaces several workers one after the other and loses nothing", async () => {
  const keeper = startKeeper({ workers: 2 });
  const bound = bindShared({ host: "127.0.0.1", port: 0 }, 2);
  await keeper.open({ kind: "edge", id: "one" }, ...bound.handles);
  await allServe(bound.address, 2);
  const before = keeper.workerPids;
  const traffic = load(bound.address, 4);
  keeper.restart("test");
  await until(
    () => keeper.workerPids.length === 2 && keeper.workerPids.every((pid) => !before.includes(pid)),
  );
  const { answered, failures } = await traffic.stop();
  expect(failures).toEqual([]);
  expect(answered).toBeGreaterThan(0);
}, 30_000);

test("a worker that stands still is replaced; one that only stutters is not", async () => {
  const keeper = startKeeper({ policy: { ...defaultKeeperPolicy, pingMs: 150 } });
  const address = await openOne(keeper);
  const { pid } = await get(address);
  await get(address, "/hang?ms=200");
  expect((await get(address)).pid).toBe(pid);
  await get(address, "/hang?ms=60000");
  expect((await get(address)).pid).not.toBe(pid);
  await until(() => keeper.workerPids.length === 1);
  expect(keeper.workerPids).not.toContain(pid);
  expect(keeper.facts()).toMatchObject({ hangs: 1, deaths: 0 });
  expect(await get(address)).toMatchObject({ leading: true });
}, 30_000);

test("stop lets what is in flight finish and refuses what is new", async () => {
  const keeper = startKeeper();
  const address = await openOne(keeper);
  const slow = get(address, "/slow");
  await get(address);
  const stopped = keeper.stop();
  await until(() =>
    get(address).then(
      () => false,
      (error: NodeJS.ErrnoException) => error.code === "ECONNREFUSED",
    ),
  );
  expect(await slow).toMatchObject({ pid: expect.any(Number) as number });
  await stopped;
  expect(keeper.workerPids).toEqual([]);
  await expect(openOne(keeper)).rejects.toThrow("stopping");
});

test("a worker that cannot start is tried again, more and more slowly, and opening says so", async () => {
  const keeper = startKeeper({ settings: { dieAtOnce: true }, openMsMax: 1_500 });
  await expect(openOne(keeper)).rejects.toMatchObject({ code: "listen_timeout" });
  const { deaths } = keeper.facts();
  expect(deaths).toBeGreaterThanOrEqual(2);
  expect(deaths).toBeLessThan(15);
});

test("a closed listener refuses, the others go on", async () => {
  const keeper = startKeeper();
  const [one, two] = [await openOne(keeper, "one"), await openOne(keeper, "two")];
  await keeper.close("one");
  await expect(get(one)).rejects.toMatchObject({ code: "ECONNREFUSED" });
  expect(await get(two)).toMatchObject({ leading: true });
});

test("a port somebody else listens on is told as taken", async () => {
  const other = http.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => other.once("listening", resolve));
  const { port } = other.address() as { port: number };
  expect(() => bindTcp({ host: "127.0.0.1", port })).toThrow(
    `Port taken: another process already uses 127.0.0.1:${port}`,
  );
  other.close();
});
