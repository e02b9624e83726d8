import { mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Excuse } from "./history.ts";
import { kill, Platform, run, slowness, until } from "./platform.ts";
import { orderSums, SHOP, underLoad } from "./shop.ts";

/** What is killed, stopped or filled up while the shop is under constant load. The tests build on one another. */
describe("faults under load", () => {
  let platform: Platform;
  beforeAll(async () => {
    platform = await Platform.start({ formation: SHOP });
  });
  afterAll(() => platform?.remove());

  const stopControl = () => kill(platform.pidsOf("control/main.ts"), "SIGSTOP");
  const resumeControl = () => kill(platform.pidsOf("control/main.ts"), "SIGCONT");
  const controlAnswers = async () => (await platform.status()) !== undefined;
  const ready = async (service: string, count: number) =>
    until(`${count} ready instances of ${service}`, 60_000, async () => {
      const instances = await platform.instances(service);
      return instances.filter(({ phase }) => phase === "ready").length === count;
    });

  test("kill -9 of control, twice: nothing fails, and it is back within ten seconds", async () => {
    const instances = (await platform.instances()).map(({ id }) => id).sort();
    await underLoad(platform, async () => {
      for (let round = 0; round < 2; round += 1) {
        const pids = platform.pidsOf("control/main.ts");
        kill(pids);
        await until("control to be back", 10_000, async () => {
          const now = platform.pidsOf("control/main.ts");
          return now.every((pid) => !pids.includes(pid)) && (await controlAnswers());
        });
        await sleep(1000);
      }
      await platform.settled();
    });
    expect((await platform.instances()).map(({ id }) => id).sort()).toEqual(instances);
  });

  test("kill -9 of the executor: every instance runs on and is adopted, none twice", async () => {
    const pidsBefore = platform.pidsOf("server.py");
    await underLoad(platform, async () => {
      const pids = platform.pidsOf("executor/main.ts");
      kill(pids);
      await until("the executor to be back", 10_000, () => {
        const now = platform.pidsOf("executor/main.ts");
        return now.length > 0 && now.every((pid) => !pids.includes(pid));
      });
      await sleep(3000);
      await platform.settled();
    });
    expect(platform.pidsOf("server.py")).toEqual(pidsBefore);
    expect((await platform.instances()).every(({ restarts }) => restarts === 0)).toBe(true);
  });

  test("kill -9 of one instance of two: only orders under way on it may fail", async () => {
    for (const script of ["server.js", "server.py"]) {
      await underLoad(platform, async () => {
        await sleep(500);
        const [pid] = platform.pidsOf(script);
        const fromMs = performance.now();
        kill(pid === undefined ? [] : [pid]);
        const toMs = performance.now();
        await sleep(1000);
        await ready(script === "server.py" ? "api" : "web", 2);
        await platform.settled();
        return [
          {
            why: "orders under way on the killed instance",
            fromMs,
            toMs: toMs + 50, // Until its sockets are closed and everybody knows.
            covers: ({ kind }) => kind === "order",
            countMax: 6,
          } satisfies Excuse,
        ];
      });
    }
  });

  const parts = [
    { part: "edge worker", script: "agent/edge-worker.ts", loses: true },
    { part: "edge keeper", script: "proxy/main.ts", loses: false }, // Its worker serves on.
    { part: "sidecar worker", script: "sidecar/worker.ts", loses: true },
    { part: "sidecar keeper", script: "sidecar/main.ts", loses: false },
  ].flatMap((one) => [true, false].map((withControl) => Object.assign({ withControl }, one)));

  test.for(parts)(
    "kill -9 of the $part (control there: $withControl): it serves again within a second, from its last epoch",
    async ({ script, withControl, loses }) => {
      const limitMs = 1000 * (await slowness());
      if (!withControl) stopControl();
      try {
        await underLoad(platform, async () => {
          await sleep(500);
          const fromMs = performance.now();
          kill(platform.pidsOf(script));
          await sleep(limitMs + 1000);
          const why = "what the killed proxy carried, and what came until it was back";
          if (!loses) return [];
          return [{ why, fromMs, toMs: fromMs + limitMs, covers: () => true, countMax: Infinity }];
        });
      } finally {
        if (!withControl) resumeControl();
        await until("the shop to answer", 30_000, async () => (await platform.get("/orders")).status === 200);
      }
      await until("control to answer", 10_000, controlAnswers);
      await platform.settled();
    },
  );

  test("control stopped for a minute: traffic goes on, a crashed instance is restarted, gilliam says that control is away", async () => {
    await underLoad(platform, async () => {
      stopControl();
      const stoppedMs = performance.now();
      try {
        await sleep(2000);
        const before = platform.pidsOf("server.js");
        const fromMs = performance.now();
        kill(before.slice(0, 1));
        await until("the executor to restart it", 15_000, () => {
          const now = platform.pidsOf("server.js");
          return now.length === before.length && now.some((pid) => !before.includes(pid));
        });
        const said = await platform.cli("status", "--formation", "shop");
        expect(said.code).toBe(1);
        expect(said.stderr).toMatch(/control/i);
        await sleep(60_000 - (performance.now() - stoppedMs));
        return [
          {
            why: "orders on the killed instance",
            fromMs,
            toMs: fromMs + 50,
            covers: ({ kind }) => kind === "order",
            countMax: 6,
          },
        ];
      } finally {
        resumeControl();
      }
    });
    await until("control to answer", 15_000, controlAnswers);
    await platform.settled();
  });

  test("orders survive a restart of everything, at the same addresses", async () => {
    const before = await orderSums(platform);
    const addresses = platform.addresses;
    expect((await platform.down()).code).toBe(0);
    const ran = await platform.up(["--formation", SHOP]);
    expect(ran.stderr).not.toContain("bug");
    expect(ran.code).toBe(0);
    expect(platform.addresses).toEqual(addresses);
    await platform.settled();
    expect(await orderSums(platform)).toEqual(before);
    expect(before.count).toBeGreaterThan(0);
  });

  test.runIf(process.getuid?.() === 0)(
    "a full disk under the registry: writes are refused in plain words, traffic goes on, nothing is lost",
    async () => {
      const folder = join(platform.state, "control");
      expect((await platform.down()).code).toBe(0);
      const saved = `${folder}.saved`;
      renameSync(folder, saved);
      mkdirSync(folder);
      const mounted = await run("mount", ["-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", folder]);
      expect(mounted.code, mounted.stderr).toBe(0);
      try {
        expect((await run("cp", ["-a", `${saved}/.`, folder])).code).toBe(0);
        expect((await platform.up(["--formation", SHOP])).code).toBe(0);
        await platform.settled();
        await underLoad(platform, async () => {
          await run("dd", ["if=/dev/zero", `of=${join(folder, "ballast")}`, "bs=64k"]);
          const refused = await platform.cli("scale", "web=3", "--formation", "shop");
          expect(refused.code).toBe(1);
          expect(refused.stderr).toMatch(/disk|space|full/i);
          rmSync(join(folder, "ballast"));
          await platform.mustCli("scale", "web=3", "--formation", "shop");
          await platform.mustCli("scale", "web=2", "--formation", "shop");
          await platform.settled();
        });
      } finally {
        expect((await platform.down()).code).toBe(0);
        await run("umount", [folder]);
        rmSync(folder, { recursive: true });
        renameSync(saved, folder);
      }
      expect((await platform.up(["--formation", SHOP])).code).toBe(0);
    },
  );

  test("no zombie is left of all that", () => {
    const supervisor = readFileSync(join(platform.state, "supervise/pid"), "utf8").trim();
    const children = readFileSync(`/proc/${supervisor}/task/${supervisor}/children`, "utf8")
      .trim()
      .split(" ");
    const states = children
      .filter(Boolean)
      .map((pid) => readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.[0]);
    expect(states).not.toContain("Z");
  });
});
