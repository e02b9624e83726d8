import { expect, test } from "vitest";
import { createMetrics } from "../../base/metrics.ts";
import { MeshConfig } from "../../model/mesh.ts";
import { LOCAL, RawClient, answering, cluster, get, ok, rawServer, rig, until } from "./kit.ts";

const TCP = { ...LOCAL, protocol: "tcp" as const };
const tcp = (ports: readonly number[], more: Record<string, unknown> = {}) =>
  cluster("api.shop", ports, { protocol: "tcp", ...more });

async function closedPort(): Promise<number> {
  const server = await rawServer(() => undefined);
  await server[Symbol.asyncDispose]();
  return server.port;
}

test("an endpoint that refuses is passed over before a byte is lost", async () => {
  await using server = await rawServer((socket) => socket.pipe(socket));
  const dead = await closedPort();
  await using mesh = await rig([], { clusters: [tcp([dead, server.port])], routes: [], listener: TCP });
  for (let count = 0; count < 10; count += 1) {
    await using client = await mesh.client();
    client.write("hello");
    await client.untilText("hello");
  }
  await until(() => mesh.events.length === 10, "the records");
  expect(mesh.events.some(({ retries }) => retries > 0)).toBe(true);
});

test("a connection that comes before its cluster waits for it", async () => {
  await using server = await rawServer((socket) => socket.write("welcome"));
  await using mesh = await rig([], { clusters: [], routes: [], listener: TCP });
  await using client = await mesh.client();
  mesh.engine.apply(MeshConfig.parse({ epoch: 2, clusters: [tcp([server.port])], edges: [], routes: [] }));
  await client.untilText("welcome");
});

test.for([
  { what: "no cluster", clusters: () => [], reason: "no_cluster" },
  { what: "no endpoint", clusters: () => [tcp([])], reason: "no_endpoint" },
  { what: "nobody accepts", clusters: (dead: number) => [tcp([dead])], reason: "connect_failed" },
])("$what: the connection is reset, and the record says why", async ({ clusters, reason }) => {
  const dead = await closedPort();
  const limits = { pendingTimeoutMs: 100 };
  await using mesh = await rig([], { clusters: clusters(dead), routes: [], listener: TCP, limits });
  await using client = await mesh.client();
  await client.until(({ closed }) => closed, "the end");
  expect(client.error).toBe("ECONNRESET");
  await until(() => mesh.events.length === 1, "the record");
  expect(mesh.events[0]).toMatchObject({ kind: "tcp", reason, cluster: "api.shop", from: "web.shop" });
});

test("a connection without a byte is closed after its idle time, not one that is used", async () => {
  await using server = await rawServer((socket) => socket.on("data", (bytes) => socket.write(bytes)));
  const policy = { idleTimeoutMs: 300 };
  await using mesh = await rig([], { clusters: [tcp([server.port], { policy })], routes: [], listener: TCP });
  await using idle = await mesh.client();
  await using used = await mesh.client();
  const beat = setInterval(() => used.write("x"), 50);
  await idle.untilEnd();
  clearInterval(beat);
  expect(used.ended).toBe(false);
});

test("an upstream's reset reaches the client as one", async () => {
  await using server = await rawServer((socket) => socket.once("data", () => socket.resetAndDestroy()));
  await using mesh = await rig([], { clusters: [tcp([server.port])], routes: [], listener: TCP });
  await using client = await mesh.client();
  client.write("hello");
  await client.until(({ closed }) => closed, "the end");
  expect(client.error).toBe("ECONNRESET");
});

test("an endpoint that left keeps its connections, and is busy as long as they live", async () => {
  await using server = await rawServer((socket) => socket.on("data", (bytes) => socket.write(bytes)));
  await using mesh = await rig([], { clusters: [tcp([server.port])], routes: [], listener: TCP });
  await using client = await mesh.client();
  client.write("one");
  await client.untilText("one");
  mesh.engine.apply(MeshConfig.parse({ epoch: 2, clusters: [tcp([])], edges: [], routes: [] }));
  expect(mesh.engine.report().busy).toEqual({ i0: 1 });
  client.write("two");
  await client.untilText("two");
  const emptied = new Promise<void>((resolve) => mesh.engine.onBusyEmptied(resolve));
  await client[Symbol.asyncDispose]();
  server.sockets[0]!.end();
  await emptied;
  expect(mesh.engine.report().busy).toEqual({});
});

test("what was counted can be scraped", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using mesh = await rig([], {
    clusters: [cluster("api.shop", [server.port])],
    routes: [],
    listener: LOCAL,
  });
  const metrics = createMetrics("sidecar", { defaults: false });
  mesh.engine.registerMetrics(metrics);
  for (let count = 0; count < 3; count += 1) await mesh.ask(get(), "hello");
  await mesh.ask("nonsense\r\n\r\n");
  const text = await metrics.metrics();
  const labels = 'from="web.shop",to="api.shop",release="1"';
  for (const line of [
    `gilliam_requests_total{${labels},code="200",part="sidecar"} 3`,
    `gilliam_request_duration_seconds_bucket{${labels},le="+Inf",part="sidecar"} 3`,
    `gilliam_request_duration_seconds_count{${labels},part="sidecar"} 3`,
    'gilliam_refusals_total{reason="bad_request",part="sidecar"} 1',
    'gilliam_in_flight{part="sidecar"} 0',
    'gilliam_epoch{part="sidecar"} 1',
  ]) {
    expect(text).toContain(`${line}\n`);
  }
  expect(mesh.engine.report().traffic).toMatchObject([
    { from: "web.shop", to: "api.shop", requests: 3, failures: 0 },
  ]);
});

test("an exception costs one connection at most, and is counted", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  const onAccess = () => {
    throw new Error("a bug in whoever listens");
  };
  await using mesh = await rig([server.port], { onAccess });
  const metrics = createMetrics("edge", { defaults: false });
  mesh.engine.registerMetrics(metrics);
  await using client = await RawClient.connect(mesh.port);
  for (let count = 1; count <= 3; count += 1) {
    client.write(get());
    await client.until(({ text }) => text.split("hello").length - 1 === count, "the answer");
  }
  expect(await metrics.metrics()).toContain('gilliam_faults_total{part="edge"} 3\n');
});
