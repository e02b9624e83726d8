import { Resolver } from "node:dns/promises";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { consulPolicy } from "../../model/consul-policy.ts";
import { ConsulCluster } from "../tools/consul.ts";
import { kill, Platform, ROOT, until } from "./platform.ts";

/** The platform with its state in a real Consul, under exactly the rights that `gilliam consul policy` prints. */
let consul: ConsulCluster;
let platform: Platform;
let token: Awaited<ReturnType<ConsulCluster["token"]>>;
const folder = mkdtempSync(join(tmpdir(), "gilliam-e2e-consul-"));
const tokenFile = join(folder, "token");

beforeAll(async () => {
  consul = await ConsulCluster.start({ acl: true });
  token = await consul.token(consulPolicy({ prefix: "gilliam" }));
  writeFileSync(tokenFile, `${token.secret}\n`);
  platform = await Platform.start({ formation: join(ROOT, "examples/shop") });
});

afterAll(async () => {
  await platform?.remove();
  await consul?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const appPids = () => [...platform.pidsOf("server.js"), ...platform.pidsOf("server.py")];
const alarms = async () => (await platform.status())?.alarms.join("\n") ?? "";

test("moving from the embedded registry to Consul restarts no instance and loses nothing", async () => {
  await platform.settled();
  const before = {
    pids: appPids(),
    releases: await platform.mustCli("releases", "--formation", "shop", "--json"),
  };
  expect(before.pids.length).toBeGreaterThan(2);
  const ran = await platform.up([
    "--formation",
    "none",
    "--consul",
    consul.url,
    "--consul-token-file",
    tokenFile,
  ]);
  expect(ran.code, ran.stderr).toBe(0);
  await until(
    "control to use Consul",
    60_000,
    async () => (await platform.status())?.registry.includes(consul.url) === true,
  );
  await platform.settled();
  expect(appPids()).toEqual(before.pids);
  expect(await platform.mustCli("releases", "--formation", "shop", "--json")).toBe(before.releases);
  await platform.order();
  const kept = await consul.first.ask<{ Value: string }[]>("GET", "/kv/gilliam/formations/shop");
  expect(JSON.parse(Buffer.from(kept[0]?.Value ?? "", "base64").toString())).toMatchObject({ name: "shop" });
});

interface Health {
  readonly Service: { readonly ID: string; readonly Address: string; readonly Port: number };
}
const passing = (name: string) => consul.first.ask<Health[]>("GET", `/health/service/${name}?passing`);
const inCatalog = async () => (await passing("api-shop")).map(({ Service }) => Service.ID).sort();
const readyNow = async () => (await platform.instances("api")).map(({ id }) => id).sort();

test("instances and metrics addresses are in the catalog, DNS included, and kill -9 leaves no ghosts", async () => {
  await consul.allowAnonymous(`service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`);
  await until("the catalog", 30_000, async () => (await inCatalog()).length === 2);
  expect(await inCatalog()).toEqual(await readyNow());
  const resolver = new Resolver();
  resolver.setServers([`127.0.0.1:${consul.first.ports.dns}`]);
  const addresses = (await platform.instances("api")).map(({ address }) => address?.split(":")[0]);
  expect((await resolver.resolve4("api-shop.service.consul")).sort()).toEqual(
    [...new Set(addresses)].sort((a = "", b = "") => a.localeCompare(b)),
  );
  for (const { Service } of await passing("gilliam-metrics")) {
    const answer = await fetch(`http://${Service.Address}:${Service.Port}/metrics`);
    expect(answer.status, Service.ID).toBe(200);
  }
  expect((await passing("gilliam-metrics")).length).toBe(4);
  kill(platform.pidsOf("control/main.ts"));
  kill(platform.pidsOf("server.py").slice(0, 1));
  await platform.mustCli("scale", "api=1", "--formation", "shop").catch(() => undefined);
  await until("control to be back", 60_000, async () => (await platform.status()) !== undefined);
  await platform.mustCli("scale", "api=1", "--formation", "shop");
  await platform.settled();
  await until("the ghosts to go", 60_000, async () => {
    const [all, ready] = [
      await consul.first.ask<Health[]>("GET", "/health/service/api-shop"),
      await readyNow(),
    ];
    return all.length === 1 && all[0]?.Service.ID === ready[0];
  });
});

test("a backup is everything, and importing it changes nothing that is there", async () => {
  const pids = appPids();
  const file = join(folder, "backup.json");
  await platform.mustCli("registry", "export", file);
  expect(await platform.mustCli("registry", "import", file)).toMatch(/^0 entries written/);
  expect(appPids()).toEqual(pids);
});

test("without Consul traffic goes on, writes are refused with the reason, and it recovers by itself", async () => {
  const pids = appPids();
  await consul.first.kill();
  const refused = await platform.cli("scale", "web=3", "--formation", "shop");
  expect(refused.code).toBe(1);
  expect(refused.stderr).toContain(`Consul at ${consul.url} cannot be reached`);
  await platform.order();
  await until("the alarm", 30_000, async () => (await alarms()).includes("cannot be reached"));
  const doctor = await platform.cli("doctor");
  expect([doctor.code, doctor.stdout]).toEqual([
    1,
    expect.stringMatching(/registry +Consul at .* cannot be reached/),
  ]);
  consul.start(consul.first);
  await consul.ready();
  await until("the alarm to end", 30_000, async () => !(await alarms()).includes("Consul"));
  await platform.mustCli("scale", "web=3", "--formation", "shop");
  await platform.settled();
  expect(appPids()).toEqual(expect.arrayContaining(pids));
});

test("a token that is not accepted is said, and a new one counts without a restart", async () => {
  const pids = appPids();
  await token.revoke();
  await until("the alarm", 30_000, async () => (await alarms()).includes("does not accept the token"));
  expect((await platform.cli("scale", "web=2", "--formation", "shop")).stderr).toContain(
    "gilliam consul policy",
  );
  await platform.order();
  token = await consul.token(consulPolicy({ prefix: "gilliam" }));
  writeFileSync(join(platform.state, "consul/token"), token.secret);
  await until("the alarm to end", 30_000, async () => !(await alarms()).includes("Consul"));
  await platform.mustCli("scale", "web=2", "--formation", "shop");
  await platform.settled();
  expect(pids).toEqual(expect.arrayContaining(appPids()));
});

test("a wiped Consul is filled again, and nothing stops meanwhile", async () => {
  const pids = appPids();
  await consul.first.kill();
  consul.first.wipe();
  consul.start(consul.first);
  await consul.ready();
  token = await consul.token(consulPolicy({ prefix: "gilliam" }));
  writeFileSync(join(platform.state, "consul/token"), token.secret);
  await until("the state to be there again", 60_000, async () => {
    const found = await consul.first.ask<unknown[]>("GET", "/kv/gilliam/formations/shop").catch(() => []);
    return found.length === 1;
  });
  await platform.settled();
  await platform.order();
  await platform.mustCli("scale", "web=1", "--formation", "shop");
  await platform.settled();
  expect(pids).toEqual(expect.arrayContaining(appPids()));
});
