import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import net, { type AddressInfo } from "node:net";
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
  upstream.on("upgrade", (_, socket) => {
    socket.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
    socket.on("error", () => undefined);
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
});
afterEach(async () => {
  await endPrograms();
  await control.stop();
  upstream.close();
  upstream.closeAllConnections();
  rmSync(folder, { recursive: true });
}, 60_000);

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
  vi.waitFor(() => expect(control.reports.at(-1)?.epoch).toBe(epoch), { timeout: 30_000, interval: 20 });

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
}, 90_000);

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
}, 90_000);

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
}, 90_000);

test("kill -9 of the worker while control is away: back within a second or two", async () => {
  control.config = shop(3);
  const edge = startEdge();
  await edge.waitForLog("the edge is ready");
  await reported(3);
  await edge.warmUp();
  await control.stop();
  const address = edge.address("public");
  const worker = await longestOutage(
    () =>
      get(address, "/", "shop.localhost").then(
        ({ status }) => status === 200,
        () => false,
      ),
    async () => {
      process.kill(edge.workerPid(), "SIGKILL");
      await edge.waitForLog("worker serves", 3);
    },
  );
  console.log(`longest outage after kill -9 of the worker: ${worker} ms`);
  await vi.waitFor(async () =>
    expect(await get(address, "/", "shop.localhost")).toMatchObject({ status: 200 }),
  );
}, 90_000);

test.for([
  ["kill -9 of the keeper", "SIGKILL", "1"],
  ["an upgrade (SIGQUIT, then the next)", "SIGQUIT", "2"],
] as const)(
  "%s under load: nobody is refused, nothing fails, what is under way goes on",
  { timeout: 150_000 },
  async ([, signal, workers]) => {
    control.config = shop(3);
    const first = startEdge({ GILLIAM_EDGE_WORKERS: workers });
    await first.waitForLog("the edge is ready");
    await first.waitForLog("worker serves", Number(workers));
    await reported(3);
    const address = first.address("public");
    const admin = first.address("admin");
    const port = Number(address.split(":")[1]);
    const failures: string[] = [];
    const answered = { fresh: 0, kept: 0, h2: 0 };
    const running = { value: true };
    const session = { current: http2.connect(`http://${address}`), goaways: 0 };
    const dial = () => {
      session.current = http2.connect(`http://${address}`);
      session.current.on("error", (error) => failures.push(`h2 ${error.message}`));
      session.current.on("goaway", (code) => {
        session.goaways += 1;
        if (code !== 0) failures.push(`goaway ${code}`);
      });
    };
    session.current.destroy();
    dial();
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const ask = {
      fresh: async () => (await get(address, "/", "shop.localhost")).status,
      kept: () =>
        new Promise<number>((resolve, reject) => {
          http
            .get({ host: "127.0.0.1", port, agent, headers: { host: "shop.localhost" } }, (response) => {
              response.resume().on("end", () => resolve(response.statusCode ?? 0));
            })
            .on("error", reject);
        }),
      // As a well-behaved client: a connection that said GOAWAY gets no more requests.
      h2: async () => {
        if (session.current.closed || session.current.destroyed) dial();
        const stream = session.current.request({ ":authority": "shop.localhost" });
        const [head] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
        stream.resume();
        return Number(head[":status"]);
      },
    };
    const lane = async (kind: keyof typeof ask) => {
      while (running.value) {
        await ask[kind]().then(
          (status) => {
            if (status === 200) answered[kind] += 1;
            else failures.push(`${kind} ${status}`);
          },
          (error: NodeJS.ErrnoException) => {
            // RFC 9112 9.3.1: a kept connection may close just as a request leaves; a client sends it again.
            if (kind === "kept" && error.code === "ECONNRESET") return;
            // RFC 9113 8.7: it was not looked at, and a client sends it again. nghttp2 acknowledges the PING of a GOAWAY
            // before it sends the requests that it has queued.
            if (kind === "h2" && error.message.includes("REFUSED_STREAM")) return;
            failures.push(`${kind} ${error.code ?? ""} ${error.message}`);
          },
        );
      }
    };
    const lanes = [lane("fresh"), lane("fresh"), lane("kept"), lane("h2")];
    const slow = get(address, "/very-slow", "shop.localhost");
    await vi.waitFor(() => expect(slowArrived).toBe(1), { timeout: 20_000 });
    const socket = net.connect(port, "127.0.0.1");
    socket.write(
      "GET /chat HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    const chat = { text: "" };
    socket.on("data", (bytes: Buffer) => (chat.text += String(bytes)));
    await vi.waitFor(() => expect(chat.text).toContain("101 Switching"), { timeout: 20_000 });
    first.child.kill(signal);
    expect(await first.exited).toBe(signal === "SIGQUIT" ? 0 : "SIGKILL");
    const before = answered.fresh;
    await vi.waitFor(() => expect(answered.fresh).toBeGreaterThan(before + 3), { timeout: 30_000 }); // Without a keeper.
    control.send({
      kind: "config",
      config: { ...shop(4), routes: [...shop(4).routes, ...shop(4, "b.localhost").routes] },
    });
    const next = startEdge({
      GILLIAM_EDGE_WORKERS: workers,
      GILLIAM_EDGE_LISTEN: address,
      GILLIAM_EDGE_ADMIN: admin,
    });
    await next.waitForLog("the edge is ready");
    await next.waitForLog("worker serves", Number(workers));
    await reported(4);
    await vi.waitFor(() => expect(session.goaways).toBeGreaterThan(0), { timeout: 30_000 });
    await vi.waitFor(() => expect(answered.h2).toBeGreaterThan(0), { timeout: 20_000 });
    // The old worker drains: what it has under way goes on, and is in the report.
    chat.text = "";
    socket.write("still there");
    await vi.waitFor(() => expect(chat.text).toBe("still there"), { timeout: 20_000 });
    finishSlow.resolve();
    expect(await slow).toMatchObject({ status: 200, body: "very slow answer" });
    socket.end();
    running.value = false;
    await Promise.all(lanes);
    session.current.destroy();
    agent.destroy();
    console.log(`${signal}: ${JSON.stringify(answered)}`);
    expect(failures).toEqual([]);
    await first.waitForLog("drained", 1).catch(() => undefined);
    expect(readdirSync(join(folder, "edge")).filter((name) => name.startsWith("orphan"))).toEqual([]);
    next.child.kill("SIGTERM");
    expect(await next.exited).toBe(0);
  },
);

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
  await vi.waitFor(() => expect(control.reports.at(-1)?.bootId).not.toBe(bootId), { timeout: 20_000 });
  expect(control.reports.at(-1)?.epoch).toBe(3);
  const slower = get(edge.address("public"), "/slow", "shop.localhost");
  await get(edge.address("public"), "/", "shop.localhost");
  edge.child.kill("SIGTERM");
  expect(await slower).toMatchObject({ status: 200 });
  expect(await edge.exited).toBe(0);
}, 90_000);

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
  await vi.waitFor(() => expect(slowArrived).toBe(1), { timeout: 20_000 });
  edge.child.kill("SIGHUP");
  await edge.waitForLog("worker serves", 2);
  control.send({ kind: "config", config: { ...shop(4), clusters: [], routes: [] } });
  await reported(4);
  expect(answered).toBe(false);
  const { length } = control.reports;
  expect(control.reports.at(-1)?.busy).toEqual({ "shop-web-r1-abcde": 1 });
  finishSlow.resolve();
  expect(await slow).toMatchObject({ status: 200, body: "very slow answer" });
  await vi.waitFor(() => expect(control.reports.at(-1)?.busy).toEqual({}), { timeout: 20_000 });
  expect(control.reports.slice(length - 1).every(({ epoch }) => epoch === 4)).toBe(true);
  await edge.waitForLog("drained");
}, 90_000);

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
    { timeout: 20_000 },
  );
  edge.child.kill("SIGTERM");
  expect(await edge.exited).toBe(0);
}, 90_000);

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
}, 90_000);

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
}, 90_000);
