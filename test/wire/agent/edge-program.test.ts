import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Cluster, type MeshConfig } from "../../../model/mesh.ts";
import { type ControlDouble, startControlDouble } from "./control-double.ts";
import { type Program, endPrograms, get, longestOutage, memoryOf, startProgram } from "./program.ts";

let folder = "";
let control: ControlDouble;
let upstream: http.Server;
let slowArrived = 0;
let finishSlow = Promise.withResolvers<void>();
beforeEach(async () => {
  slowArrived = 0;
  finishSlow = Promise.withResolvers();
  folder = mkdtempSync(join(tmpdir(), "edge-"));
  control = await startControlDouble();
  upstream = http.createServer((request, response) => {
    if (request.url === "/very-slow") {
      slowArrived += 1;
      void finishSlow.promise.then(() => response.end("very slow answer"));
    } else if (request.url === "/slow") setTimeout(() => response.end("slow answer"), 500);
    else response.end("from the shop");
  });
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
});
afterEach(async () => {
  await endPrograms();
  await control.stop();
  upstream.close();
  upstream.closeAllConnections();
  rmSync(folder, { recursive: true });
});

function shop(epoch: number, host = "shop.localhost"): MeshConfig {
  const { port } = upstream.address() as AddressInfo;
  return {
    epoch,
    clusters: [
      Cluster.parse({
        name: "web.shop",
        protocol: "http",
        endpoints: [{ id: "shop-web-r1-abcde", host: "127.0.0.1", port, release: 1 }],
      }),
    ],
    edges: [],
    routes: [{ id: host, host, path: "/", cluster: "web.shop" }],
  };
}

function startEdge(environment: Record<string, string> = {}): Program {
  return startProgram("proxy/main.ts", {
    GILLIAM_STATE: folder,
    GILLIAM_CONTROL_URL: control.url,
    GILLIAM_HOST_TOKEN: control.token,
    GILLIAM_HOST_ID: "host-1",
    GILLIAM_INSTANCE: "gilliam-edge-1",
    GILLIAM_EDGE_LISTEN: "127.0.0.1:0",
    GILLIAM_EDGE_ADMIN: "127.0.0.1:0",
    ...environment,
  });
}

const reported = (epoch: number) =>
  vi.waitFor(() => expect(control.reports.at(-1)?.epoch).toBe(epoch), { timeout: 10_000, interval: 20 });

test("follows the feed from nothing, serves, and acknowledges what is on disk", async () => {
  const edge = startEdge();
  await edge.waitForLog("the edge is ready");
  expect(await get(edge.address("public"), "/", "shop.localhost")).toMatchObject({
    status: 503,
    headers: { "x-gilliam-reason": "no_configuration" },
  });
  control.send({ kind: "config", config: shop(3) });
  await reported(3);
  expect(await get(edge.address("public"), "/", "shop.localhost")).toMatchObject({
    status: 200,
    body: "from the shop",
  });
  expect(control.opened).toEqual(["/v1/feed/gilliam-edge-1?epoch=0&kind=edge&host=host-1"]);
  expect(control.reports.at(-1)).toMatchObject({
    kind: "edge",
    hostId: "host-1",
    epoch: 3,
    metricsUrl: `http://${edge.address("admin")}/metrics`,
  });
  const nothing = { clusters: [], edges: [], routes: [] };
  const { routes } = shop(4, "new.localhost");
  const remove = { clusters: [], edges: [], routes: ["shop.localhost"] };
  control.send({ kind: "delta", delta: { epoch: 4, base: 3, set: { ...nothing, routes }, remove } });
  await reported(4);
  expect(await get(edge.address("public"), "/", "new.localhost")).toMatchObject({ status: 200 });
  expect(await get(edge.address("public"), "/", "shop.localhost")).toMatchObject({ status: 404 });
}, 20_000);

test("its admin pages tell its state and no secret", async () => {
  control.config = shop(3);
  const edge = startEdge();
  await edge.waitForLog("the edge is ready");
  await reported(3);
  const admin = edge.address("admin");
  expect(await get(admin, "/healthz")).toMatchObject({ status: 200 });
  const config = await get(admin, "/config");
  expect(JSON.parse(config.body)).toMatchObject({
    epoch: 3,
    clusters: [{ name: "web.shop", endpoints: [{ id: "shop-web-r1-abcde", ejected: null }] }],
  });
  const metrics = await get(admin, "/metrics");
  expect(metrics.body).toMatch(/^gilliam_feed_epoch{.*} 3$/m);
  expect(metrics.body).toMatch(/^gilliam_feed_connected{.*} 1$/m);
  expect(config.body + metrics.body + JSON.stringify(edge.lines)).not.toContain(control.token);
  expect((await get(admin, "/secrets")).status).toBe(404);
}, 20_000);

test("restarted while control is away it serves the saved epoch at once, and says so", async () => {
  control.config = shop(3);
  const first = startEdge();
  await first.waitForLog("the edge is ready");
  await reported(3);
  first.child.kill("SIGTERM");
  expect(await first.exited).toBe(0);
  await control.stop();
  const second = startEdge();
  await second.waitForLog("the edge is ready");
  await second.waitForLog("serving the saved epoch");
  expect(await get(second.address("public"), "/", "shop.localhost")).toMatchObject({ status: 200 });
  expect(await get(second.address("admin"), "/healthz")).toMatchObject({ status: 200 });
  await second.waitForLog("control is away; serving on");
  await control.start();
  await second.waitForLog("following control");
  expect(control.opened.at(-1)).toContain("epoch=3");
}, 30_000);

test("kill -9 of the worker and of the keeper while control is away: back within a second", async () => {
  control.config = shop(3);
  const edge = startEdge();
  await edge.waitForLog("the edge is ready");
  await reported(3);
  await edge.warmUp();
  await control.stop();
  const address = edge.address("public");
  const fetchShop = () =>
    get(address, "/", "shop.localhost").then(
      ({ status }) => status === 200,
      () => false,
    );
  const worker = await longestOutage(fetchShop, async () => {
    process.kill(edge.workerPid(), "SIGKILL");
    await edge.waitForLog("worker serves", 3);
  });
  const keeper = await longestOutage(fetchShop, async () => {
    edge.child.kill("SIGKILL");
    await startEdge({ GILLIAM_EDGE_LISTEN: address }).waitForLog("the edge is ready");
  });
  console.log(`longest outage after kill -9 of the worker: ${worker} ms, of the keeper: ${keeper} ms`);
  expect(worker).toBeLessThan(2_000); // Under a second on a machine that is not busy; the test must hold on one that is.
  expect(keeper).toBeLessThan(3_000);
}, 30_000);

test("SIGTERM finishes what is in flight, SIGHUP replaces the worker, and exit is 0", async () => {
  control.config = shop(3);
  const edge = startEdge();
  await edge.waitForLog("the edge is ready");
  await reported(3);
  const before = edge.workerPid();
  const bootId = control.reports.at(-1)?.bootId;
  const slow = get(edge.address("public"), "/slow", "shop.localhost");
  edge.child.kill("SIGHUP");
  await edge.waitForLog("worker serves", 2);
  expect(await slow).toMatchObject({ status: 200, body: "slow answer" });
  expect(edge.workerPid()).not.toBe(before);
  await vi.waitFor(() => expect(control.reports.at(-1)?.bootId).not.toBe(bootId), { timeout: 5_000 });
  expect(control.reports.at(-1)?.epoch).toBe(3);
  const slower = get(edge.address("public"), "/slow", "shop.localhost");
  await get(edge.address("public"), "/", "shop.localhost");
  edge.child.kill("SIGTERM");
  expect(await slower).toMatchObject({ status: 200 });
  expect(await edge.exited).toBe(0);
}, 30_000);

test("while a replaced worker drains, what it has in flight is reported, and an epoch counts when both have it", async () => {
  control.config = shop(3);
  const edge = startEdge();
  await edge.waitForLog("the edge is ready");
  await reported(3);
  let answered = false;
  const slow = get(edge.address("public"), "/very-slow", "shop.localhost").then((answer) => {
    answered = true;
    return answer;
  });
  await vi.waitFor(() => expect(slowArrived).toBe(1), { timeout: 5_000 });
  edge.child.kill("SIGHUP");
  await edge.waitForLog("worker serves", 2);
  control.send({ kind: "config", config: { ...shop(4), clusters: [], routes: [] } });
  await reported(4);
  expect(answered).toBe(false);
  const { length } = control.reports;
  expect(control.reports.at(-1)?.busy).toEqual({ "shop-web-r1-abcde": 1 });
  finishSlow.resolve();
  expect(await slow).toMatchObject({ status: 200, body: "very slow answer" });
  await vi.waitFor(() => expect(control.reports.at(-1)?.busy).toEqual({}), { timeout: 5_000 });
  expect(control.reports.slice(length - 1).every(({ epoch }) => epoch === 4)).toBe(true);
  await edge.waitForLog("drained");
}, 30_000);

test("two workers are one proxy: one scrape, one report, an epoch counts when both have it, kill -9 of one", async () => {
  control.config = shop(3);
  const edge = startEdge({ GILLIAM_EDGE_WORKERS: "2" });
  await edge.waitForLog("the edge is ready");
  await edge.waitForLog("worker serves", 2);
  await reported(3);
  const address = edge.address("public");
  const counted = async () => {
    const { body } = await get(edge.address("admin"), "/metrics");
    return Number(/^gilliam_requests_total{[^}]*code="200"[^}]*} (\d+)$/m.exec(body)?.[1]);
  };
  for (let count = 0; count < 40; count += 1) await get(address, "/", "shop.localhost");
  expect(await counted()).toBe(40);
  const workers = edge.lines.filter(({ msg }) => msg === "worker serves").map(({ pid }) => pid as number);
  for (const [index, victim] of workers.entries()) {
    process.kill(victim, "SIGKILL");
    const refused = await Promise.allSettled(
      Array.from({ length: 10 }, () => get(address, "/", "shop.localhost")),
    );
    const codes = refused.flatMap((one) =>
      one.status === "rejected" ? [(one.reason as NodeJS.ErrnoException).code] : [],
    );
    expect(codes).not.toContain("ECONNREFUSED");
    await edge.waitForLog("worker serves", 3 + index);
    expect(await counted()).toBeGreaterThanOrEqual(40); // Whoever died, what it had counted stays.
  }
  control.send({ kind: "config", config: shop(4, "new.localhost") });
  await reported(4);
  for (let count = 0; count < 20; count += 1) {
    expect(await get(address, "/", "new.localhost")).toMatchObject({ status: 200 });
    expect(await get(address, "/", "shop.localhost")).toMatchObject({ status: 404 });
  }
  await vi.waitFor(
    () => {
      const traffic = control.reports.at(-1)!.traffic.filter(({ to }) => to === "web.shop");
      expect(traffic[0]?.requests).toBeGreaterThanOrEqual(20);
    },
    { timeout: 5_000 },
  );
  edge.child.kill("SIGTERM");
  expect(await edge.exited).toBe(0);
}, 40_000);

test("what keeps it from starting is said in one piece", async () => {
  const wrong = startEdge({ GILLIAM_EDGE_LISTEN: "nowhere", GILLIAM_EDGE_DRAIN: "soon" });
  expect(await wrong.exited).toBe(2);
  expect(wrong.errors.join("")).toMatch(/GILLIAM_EDGE_LISTEN must be[^]*GILLIAM_EDGE_DRAIN must be/);
  const tokenless = startEdge({ GILLIAM_HOST_TOKEN: "" });
  expect(await tokenless.exited).toBe(1);
  expect(tokenless.errors.join("")).toContain("Set GILLIAM_HOST_TOKEN, or GILLIAM_HOST_TOKEN_FILE");
  writeFileSync(join(folder, "host-token"), "wrong\n");
  const distrusted = startEdge({ GILLIAM_HOST_TOKEN: "" });
  await distrusted.waitForLog("the edge is ready");
  await vi.waitFor(() =>
    expect(JSON.stringify(distrusted.lines)).toContain("control answered 401: wrong token"),
  );
  expect(await get(distrusted.address("admin"), "/healthz")).toMatchObject({ status: 503 });
}, 30_000);

test("its memory", async () => {
  control.config = shop(3);
  const edge = startEdge();
  await edge.waitForLog("the edge is ready");
  await reported(3);
  await edge.warmUp();
  const keeper = memoryOf(edge.child.pid ?? 0);
  const worker = memoryOf(edge.workerPid());
  console.log(`edge: keeper ${JSON.stringify(keeper)}, worker ${JSON.stringify(worker)}`);
  expect(keeper.privateMiB).toBeLessThan(40);
  expect(worker.residentMiB).toBeLessThan(150);
}, 30_000);
