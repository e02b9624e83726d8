import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { countReleases } from "./load.ts";
import { Platform, until } from "./platform.ts";
import { loadOn, SHOP, SHOP_V2, shopVariant, underLoad } from "./shop.ts";

/** The life of a release, under constant load: nothing of it may cost a request. The tests build on one another. */
describe("releases of the shop", () => {
  let platform: Platform;
  beforeAll(async () => {
    platform = await Platform.start({ formation: SHOP });
  });
  afterAll(() => platform?.remove());

  const releaseOf = async (service: string) =>
    (await platform.formation())?.services.find(({ name }) => name === service)?.release;

  test("a new release takes over; what did not change keeps its instances", async () => {
    const before = (await platform.instances("api")).map(({ id }) => id).sort();
    await underLoad(platform, async () => {
      await platform.deploy(SHOP_V2);
      await platform.settled();
    });
    expect(await releaseOf("web")).toBe(2);
    expect((await platform.instances("api")).map(({ id }) => id).sort()).toEqual(before);
    expect((await platform.get("/", { accept: "text/html" })).body).toContain("The evening shop");
  });

  test("the same deploy again is no release", async () => {
    await platform.deploy(SHOP_V2);
    expect((await platform.formation())?.current).toBe(2);
  });

  test("rollback brings the old page back", async () => {
    await underLoad(platform, async () => {
      await platform.mustCli("rollback", "--formation", "shop");
      await platform.settled();
    });
    expect((await platform.get("/", { accept: "text/html" })).body).toContain("<h1>The shop</h1>");
  });

  test("canary 0, 10, 50, 100: exact shares of every thousand requests, then promoted", async () => {
    await underLoad(platform, async () => {
      for (const weight of [0, 10, 50, 100]) {
        await platform.mustCli(
          "canary",
          "web",
          "--release",
          "2",
          "--weight",
          String(weight),
          "--formation",
          "shop",
        );
        await platform.settled();
        const counts = await countReleases(loadOn(platform), 1000);
        expect(counts.get(0)).toBeUndefined();
        const share = counts.get(2) ?? 0;
        // The constant load takes turns with these requests, so a share may be off by what it takes.
        expect(Math.abs(share - weight * 10), `${share} of 1000 at ${weight} %`).toBeLessThanOrEqual(
          weight === 0 || weight === 100 ? 0 : 20,
        );
      }
      await platform.mustCli("promote", "web", "--formation", "shop");
      await platform.settled();
    });
    expect(await releaseOf("web")).toBe(2);
  });

  test("without other requests a share is exact to the request", async () => {
    await platform.mustCli("canary", "web", "--release", "1", "--weight", "10", "--formation", "shop");
    await platform.settled();
    expect(await countReleases(loadOn(platform), 1000)).toEqual(
      new Map([
        [2, 900],
        [1, 100],
      ]),
    );
    await platform.mustCli("rollback", "--release", "2", "--formation", "shop");
    await platform.settled();
    expect(await countReleases(loadOn(platform), 100)).toEqual(new Map([[2, 100]]));
  });

  test("a canary of api has its share on the local ports of web", async () => {
    using variant = shopVariant((text) =>
      text.replace("port: 8081", "port: 8081\n    environment: { KIND: new }"),
    );
    await platform.deploy(variant.folder, "--stage");
    const release = Math.max(
      ...(
        (await platform.ask(
          { parse: (value) => value as { number: number }[] },
          "/v1/formations/shop/releases",
        )) ?? []
      ).map(({ number }) => number),
    );
    await underLoad(platform, async () => {
      await platform.mustCli(
        "canary",
        "api",
        "--release",
        String(release),
        "--weight",
        "25",
        "--formation",
        "shop",
      );
      await platform.settled();
      await sleep(1000);
    });
    // An order makes exactly one call to api. Each web deals its own calls exactly, so two may be off by one together.
    let served = 0;
    for (let at = 0; at < 100; at += 1) {
      const { servedBy } = await platform.order();
      if (servedBy.endsWith(` release ${release}`)) served += 1;
    }
    expect(Math.abs(served - 25)).toBeLessThanOrEqual(1);
    await platform.mustCli("rollback", "--release", "2", "--formation", "shop");
    await platform.settled();
  });

  test("scale 2, 6, 1", async () => {
    await underLoad(platform, async () => {
      for (const count of [6, 1]) {
        await platform.mustCli("scale", `web=${count}`, "--formation", "shop");
        await platform.settled();
        await until(
          `${count} instances`,
          40_000,
          async () => (await platform.instances("web")).length === count,
        );
      }
    });
    await platform.mustCli("scale", "web=2", "--formation", "shop");
    await platform.settled();
  });

  test.for([
    {
      name: "that never becomes healthy",
      from: "node server.js",
      to: "sleep 1000",
      says: /does not listen|not ready|listen/,
    },
    {
      name: "whose command is missing",
      from: "node server.js",
      to: "nodde server.js",
      says: /nodde|not found|127/,
    },
    {
      name: "whose Python is missing",
      from: "python3 server.py",
      to: "python9 server.py",
      says: /python9|not found|127/,
    },
  ])("a release $name stays out of traffic, and status says why", async ({ from, to, says }) => {
    const before = await platform.formation();
    using variant = shopVariant((text) => text.replace(from, to));
    await underLoad(platform, async () => {
      await platform.deploy(variant.folder, "--detach");
      await until("status to say why", 60_000, async () =>
        says.test((await platform.cli("status", "--formation", "shop")).stdout),
      );
      await sleep(1000);
      await platform.mustCli("rollback", "--release", String(before?.current), "--formation", "shop");
      await platform.settled();
    });
    expect(await releaseOf("web")).toBe(2);
  });
});
