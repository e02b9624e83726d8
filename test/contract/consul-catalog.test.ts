import { Resolver } from "node:dns/promises";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { CatalogNode, CatalogService } from "../../control/catalog.ts";
import { ConsulCatalog } from "../../control/registry/consul-catalog.ts";
import { ConsulClient } from "../../control/registry/consul-client.ts";
import { consulPolicy } from "../../model/consul-policy.ts";
import { ConsulCluster } from "../tools/consul.ts";

/** What Consul's own users see: the catalog, its DNS, and the questions that Prometheus asks. */
let cluster: ConsulCluster;
let client: ConsulClient;
let number = 0;
let prefix = "";
let catalog: ConsulCatalog;

beforeAll(async () => {
  cluster = await ConsulCluster.start({ acl: true });
  await cluster.allowAnonymous(`service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`);
}, 60_000);
afterAll(() => cluster.stop());

beforeEach(async () => {
  prefix = `g${number++}`;
  const { secret } = await cluster.token(consulPolicy({ prefix }));
  client = new ConsulClient({ url: cluster.url, token: () => secret });
  catalog = new ConsulCatalog(client, prefix);
});

const service = (id: string, changes: Partial<CatalogService> = {}): CatalogService => ({
  id,
  name: `api-${prefix}`,
  address: "10.1.2.3",
  port: 8081,
  tags: [prefix, "release-3"],
  meta: { formation: prefix, service: "api", release: "3", instance: id, version: "0123456789ab" },
  status: "passing",
  output: "",
  ...changes,
});
const node = (...services: CatalogService[]): CatalogNode => ({
  hostId: "h1",
  address: "127.0.0.1",
  services,
});
const always = () => true;

interface HealthItem {
  readonly Node: { readonly Node: string };
  readonly Service: {
    readonly ID: string;
    readonly Address: string;
    readonly Port: number;
    readonly Tags: string[];
  };
  readonly Checks: readonly { readonly Status: string; readonly Output: string }[];
}
const health = (name: string, query = "") =>
  cluster.first.ask<HealthItem[]>("GET", `/health/service/${name}${query}`);
const dns = () => {
  const resolver = new Resolver({ timeout: 2_000, tries: 3 });
  resolver.setServers([`127.0.0.1:${cluster.first.ports.dns}`]);
  return resolver;
};

test("instances are services with metadata, tags and a check, under the rights of the policy", async () => {
  const first = service("shop-api-1");
  const second = service("shop-api-2", {
    address: "10.1.2.4",
    status: "critical",
    output: "draining: scale",
  });
  expect(await catalog.sync([node(first, second)], always)).toEqual({ registered: 2, deregistered: 0 });
  const found = await health(`api-${prefix}`);
  expect(found.map(({ Service }) => Service)).toMatchObject([
    { ID: "shop-api-1", Address: "10.1.2.3", Port: 8081, Tags: first.tags, Meta: first.meta },
    { ID: "shop-api-2", Address: "10.1.2.4" },
  ]);
  expect(found[0]?.Node.Node).toBe(`${prefix}-h1`);
  expect(found[1]?.Checks).toMatchObject([{ Status: "critical", Output: "draining: scale" }]);
  expect(await health(`api-${prefix}`, "?passing")).toHaveLength(1);
});

test("DNS gives the addresses of those that are well, and SRV their ports", async () => {
  const ill = service("c", { address: "10.1.2.5", status: "critical" });
  const unsure = service("b", { address: "10.1.2.4", status: "warning" });
  await catalog.sync([node(service("a"), unsure, ill)], always);
  const name = `api-${prefix}.service.consul`;
  expect((await dns().resolve4(name)).sort()).toEqual(["10.1.2.3", "10.1.2.4"]);
  expect((await dns().resolveSrv(name)).map(({ port }) => port)).toEqual([8081, 8081]);
  expect(await dns().resolve4(`release-3.${name}`)).toHaveLength(2);
});

test("Prometheus finds every metrics address with the questions it asks", async () => {
  const metrics = service("metrics-edge-1", {
    name: `${prefix}-metrics`,
    address: "127.0.0.1",
    port: 7030,
    tags: ["edge"],
    meta: { part: "edge", host: "h1", metrics_path: "/metrics" },
  });
  await catalog.sync([node(service("a"), metrics)], always);
  // discovery/consul: Catalog().Services, then Health().ServiceMultipleTags of each, with ?stale and a wait.
  const ask = async (path: string) => (await fetch(`${cluster.url}/v1${path}`)).json();
  expect(await ask("/catalog/services?stale=&wait=1000ms")).toMatchObject({
    [`${prefix}-metrics`]: ["edge"],
  });
  const found = await ask(`/health/service/${prefix}-metrics?stale=&tag=edge`);
  expect(found).toMatchObject([
    { Service: { Address: "127.0.0.1", Port: 7030, Meta: { metrics_path: "/metrics", part: "edge" } } },
  ]);
});

test("only differences are written, and what somebody else changed is put right", async () => {
  const wanted = [node(service("a"), service("b"))];
  await catalog.sync(wanted, always);
  const before = client.calls;
  expect(await catalog.sync(wanted, always)).toEqual({ registered: 0, deregistered: 0 });
  expect(client.calls).toBe(before);
  await cluster.first.ask("PUT", "/catalog/deregister", { Node: `${prefix}-h1`, ServiceID: "b" });
  catalog.forget();
  expect(await catalog.sync(wanted, always)).toEqual({ registered: 1, deregistered: 0 });
  expect(await health(`api-${prefix}`)).toHaveLength(2);
});

test("ghosts of a control that was killed go, as far as they may, and with the last service its node", async () => {
  await catalog.sync([node(service("a"), service("ghost"), service("unsure"))], always);
  const next = new ConsulCatalog(client, prefix);
  const mayGo = (_host: string, id: string) => id !== "unsure" && id !== "";
  expect(await next.sync([node(service("a"))], mayGo)).toEqual({ registered: 0, deregistered: 1 });
  expect((await health(`api-${prefix}`)).map(({ Service }) => Service.ID).sort()).toEqual(["a", "unsure"]);
  await next.sync([], always);
  expect(await health(`api-${prefix}`)).toEqual([]);
  const nodes = await cluster.first.ask<unknown[]>("GET", `/catalog/nodes?node-meta=gilliam:${prefix}`);
  expect(nodes).toEqual([]);
});

test("the nodes and services of others are left alone", async () => {
  const other = { Node: "theirs", Address: "10.9.9.9", Service: { Service: "mainframe", Port: 9000 } };
  await cluster.first.ask("PUT", "/catalog/register", other);
  await catalog.sync([node(service("a"))], always);
  await catalog.sync([], always);
  expect(await health("mainframe")).toHaveLength(1);
});
