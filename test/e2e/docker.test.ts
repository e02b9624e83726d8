import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LABELS } from "../../executor/drivers/docker/container-options.ts";
import { startTestEngine, type TestEngine } from "../tools/docker.ts";
import { kill, Platform, until } from "./platform.ts";
import { SHOP, underLoad } from "./shop.ts";

/** The shop on a real engine, under constant load. The tests build on one another. */
describe.skipIf(process.getuid?.() !== 0)("the shop on Docker", () => {
  let docker: TestEngine;
  let platform: Platform;
  beforeAll(async () => {
    docker = await startTestEngine();
    const flags = ["--driver", "docker", "--docker-socket", docker.socketPath];
    platform = await Platform.start({ formation: SHOP, flags });
  }, 300_000);
  afterAll(async () => {
    await platform?.remove();
    await docker?.remove();
  }, 120_000);

  const apps = async () =>
    (await docker.engine.list({ [LABELS.part]: "app" })).map(({ id, name }) => `${name} ${id}`).sort();

  test("web and api are containers, two each; an order goes through both and the database", async () => {
    expect(await apps()).toHaveLength(4);
    expect((await platform.order()).servedBy).toContain("shop-api");
  });

  test("kill -9 of the executor: every container runs on and is adopted, none twice", async () => {
    const before = await apps();
    await underLoad(platform, async () => {
      const pids = platform.pidsOf("executor/main.ts");
      kill(pids);
      await until("the executor to be back", 20_000, () => {
        const now = platform.pidsOf("executor/main.ts");
        return now.length > 0 && now.every((pid) => !pids.includes(pid));
      });
      await sleep(2_000);
      await platform.settled();
    });
    expect(await apps()).toEqual(before);
  });

  test("kill -9 of dockerd with live restore: no request fails, and nothing is started anew", async () => {
    const before = await apps();
    await underLoad(platform, async () => {
      await docker.stop("SIGKILL");
      await sleep(1_000);
      await docker.start();
      await platform.settled();
    });
    expect(await apps()).toEqual(before);
    expect((await platform.instances()).every(({ restarts }) => restarts === 0)).toBe(true);
  });

  test("exec runs inside, as the user of the instance", async () => {
    const output = await platform.mustCli("exec", "--formation", "shop", "web", "--", "id", "-u");
    expect(Number(output)).toBeGreaterThan(200_000);
  });
});
