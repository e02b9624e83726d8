import { expect, test } from "vitest";
import { createMetrics } from "../../base/metrics.ts";
import { MeshConfig } from "../../model/mesh.ts";
import { LOCAL, RawClient, answering, cluster, get, ok, rawServer, rig, until } from "./kit.ts";

const config = (epoch: number, clusters: unknown[], routes: unknown[] = []) =>
  MeshConfig.parse({ epoch, clusters, edges: [], routes });

test("a split is exact over every hundred requests", async () => {
  await using server = await rawServer(answering(() => ok("old")));
  await using canary = await rawServer(answering(() => ok("new")));
  const split = cluster("web.shop", [], {
    endpoints: [
      { id: "a", host: "127.0.0.1", port: server.port, release: 3 },
      { id: "b", host: "127.0.0.1", port: canary.port, release: 4 },
    ],
    split: [
      { release: 3, weight: 93 },
      { release: 4, weight: 7 },
    ],
  });
  await using edge = await rig([], { clusters: [split] });
  await using client = await edge.client();
  for (let count = 1; count <= 300; count += 1) {
    client.write(get());
    await client.until(
      ({ text }) => text.split("HTTP/1.1 200").length - 1 === count && /(old|new)$/.test(text),
      "answer",
    );
  }
  const answers = client.text.match(/old|new/g)!;
  for (let from = 0; from + 100 <= 300; from += 1) {
    expect(answers.slice(from, from + 100).filter((answer) => answer === "new")).toHaveLength(7);
  }
});

test("a request for a cluster that is not known yet waits for it", async () => {
  await using server = await rawServer(answering(() => ok("late")));
  await using mesh = await rig([], { clusters: [], routes: [], listener: LOCAL });
  await using client = await mesh.client();
  const metrics = createMetrics("test", { defaults: false });
  mesh.engine.registerMetrics(metrics);
  client.write(get());
  while (!(await metrics.metrics()).includes('gilliam_waiting{part="test"} 1'))
    await new Promise(setImmediate);
  mesh.engine.apply(config(2, [cluster("api.shop", [])]));
  expect(client.text).toBe("");
  mesh.engine.apply(config(3, [cluster("api.shop", [server.port])]));
  await client.untilText("late");
  expect(mesh.engine.epoch).toBe(3);
});

test("a request for a cluster that stays unknown is refused with the reason", async () => {
  await using mesh = await rig([], {
    clusters: [],
    routes: [],
    listener: LOCAL,
    limits: { pendingTimeoutMs: 100 },
  });
  const answer = await mesh.ask(get(), "next:");
  expect(answer).toMatch(/^HTTP\/1\.1 503 /);
  expect(answer).toContain("x-gilliam-reason: no_cluster\r\n");
});

test("an endpoint that left keeps its request, is busy until it ends, and gets nothing new", async () => {
  let answer: () => void = () => undefined;
  await using old = await rawServer((socket) => {
    socket.once("data", () => {
      answer = () => socket.write(ok("from old"));
    });
  });
  await using fresh = await rawServer(answering(() => ok("from new")));
  await using mesh = await rig([], {
    clusters: [cluster("api.shop", [old.port])],
    routes: [],
    listener: LOCAL,
  });
  const emptied: number[] = [];
  mesh.engine.onBusyEmptied(() => emptied.push(1));
  await using first = await mesh.client();
  first.write(get());
  await until(() => (old.received[0] ?? "") !== "", "the request");
  const moved = cluster("api.shop", [], {
    endpoints: [{ id: "n", host: "127.0.0.1", port: fresh.port, release: 2 }],
  });
  expect(mesh.engine.apply(config(2, [moved]))).toEqual({ ok: true });
  expect(mesh.engine.report().busy).toEqual({ i0: 1 });
  await mesh.ask(get(), "from new");
  expect(emptied).toEqual([]);
  answer();
  await first.untilText("from old");
  expect(emptied).toEqual([1]);
  expect(mesh.engine.report().busy).toEqual({});
  await until(() => old.sockets[0]!.readableEnded, "the end of a connection that nobody may use again");
});

test("a bad configuration is refused whole, and the old one stays", async () => {
  await using server = await rawServer(answering(() => ok("still")));
  await using edge = await rig([server.port]);
  const bad = config(2, [], [{ id: "r", host: "shop.test", path: "/", cluster: "gone.shop" }]);
  expect(edge.engine.apply(bad)).toEqual({ ok: false, reason: expect.stringContaining("gone.shop") });
  expect(edge.engine.epoch).toBe(1);
  await edge.ask(get(), "still");
});

test("bytes of a TCP listener go both ways, and each side ends on its own", async () => {
  await using server = await rawServer((socket) => {
    socket.on("data", (bytes) => socket.write(`echo ${bytes.toString()}`));
    socket.on("end", () => socket.end("bye"));
  });
  const tcp = cluster("api.shop", [server.port], { protocol: "tcp" });
  await using mesh = await rig([], { clusters: [tcp], routes: [], listener: { ...LOCAL, protocol: "tcp" } });
  await using client = await mesh.client();
  client.write("hi");
  await client.untilText("echo hi");
  client.socket.end();
  await client.untilEnd();
  expect(client.text).toBe("echo hibye");
  await until(() => mesh.events.length > 0, "the record");
  expect(mesh.events).toMatchObject([{ kind: "tcp", bytesIn: 2, bytesOut: 10, reason: "" }]);
});

test("a WebSocket is carried, early bytes included", async () => {
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\nfirst",
      );
      socket.on("data", (bytes: Buffer) => socket.write(bytes));
    });
  });
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write(get("/", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"));
  await client.untilText("first");
  expect(client.text).toMatch(/^HTTP\/1\.1 101 Switching Protocols\r\n/);
  client.write("ping");
  await client.untilText("ping");
  expect(server.received[0]).toMatch(/connection: upgrade\r\nupgrade: websocket\r\n\r\nping$/);
});

test("a drain lets the request in flight finish, and cuts what outlives it", async () => {
  await using server = await rawServer((socket) => {
    socket.once("data", () => setTimeout(() => socket.write(ok("slow")), 300));
  });
  await using stuck = await rawServer(() => undefined);
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write(get());
  await until(() => (server.received[0] ?? "") !== "", "the request");
  const drained = edge.engine.drain(5_000);
  await client.untilEnd();
  expect(client.text).toContain("connection: close\r\n");
  expect(client.text).toContain("slow");
  expect(await drained).toBe(0);
  await expect(RawClient.connect(edge.port)).rejects.toThrow("ECONNREFUSED");

  await using other = await rig([stuck.port]);
  await using patient = await other.client();
  patient.write(get());
  await until(() => (stuck.received[0] ?? "") !== "", "the request");
  expect(await other.engine.drain(50)).toBe(1);
});

test("a drain ends a TCP connection once its server has answered, and not while an answer is owed", async () => {
  let answer = () => {};
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      answer = () => socket.write("answer");
    });
  });
  const tcp = cluster("api.shop", [server.port], { protocol: "tcp" });
  await using mesh = await rig([], { clusters: [tcp], routes: [], listener: { ...LOCAL, protocol: "tcp" } });
  await using asking = await mesh.client();
  asking.write("question");
  await until(() => server.received[0] === "question", "the question");
  await using unused = await mesh.client();
  await until(() => server.received.length === 2, "the second connection");

  const drained = mesh.engine.drain(20_000);
  await unused.untilEnd(); // Its quiet time is over; that of the other counts only from the answer.
  await until(() => mesh.events.length > 0, "its record");
  expect(mesh.events).toHaveLength(1);
  answer();
  await asking.untilEnd();
  expect(asking.text).toBe("answer");
  expect(await drained).toBe(0);
});

test("an endpoint that fails again and again is ejected, and the report says why", async () => {
  await using good = await rawServer(answering(() => ok("good")));
  await using bad = await rawServer(answering(() => "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"));
  await using edge = await rig([good.port, bad.port]);
  await using client = await edge.client();
  for (let count = 1; count <= 60; count += 1) {
    client.write(get());
    await client.until(
      ({ text }) => text.split("HTTP/1.1 ").length - 1 === count && /\r\n\r\n(good)?$/.test(text),
      "it",
    );
  }
  expect(edge.engine.report().ejected).toEqual({ i1: expect.stringContaining("status 500") });
  expect(client.text.match(/500 Oops/g)).toHaveLength(5);
});
