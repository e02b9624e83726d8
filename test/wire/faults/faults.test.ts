import { once } from "node:events";
import http2 from "node:http2";
import net from "node:net";
import { expect, test, vi } from "vitest";
import { ManualClock } from "../../../base/manual-clock.ts";
import type { Pressure, PressureLevel } from "../../../proxy/pressure.ts";
import { LOCAL, answering, cluster, get, ok, rawServer, rig, until, untilMetric } from "../kit.ts";

/** One test a row of the table of faults in proxy/README.md. */

test("fault: a slow upstream times out, and other routes answer meanwhile", async () => {
  const clock = new ManualClock();
  await using slow = await rawServer(() => undefined);
  await using quick = await rawServer(answering(() => ok("quick")));
  await using edge = await rig([], {
    clock,
    clusters: [
      cluster("slow.shop", [slow.port], { policy: { responseTimeoutMs: 5_000 } }),
      cluster("web.shop", [quick.port]),
    ],
    routes: [
      { id: "s", host: "slow.test", path: "/", cluster: "slow.shop" },
      { id: "w", host: "shop.test", path: "/", cluster: "web.shop" },
    ],
  });
  await using stuck = await edge.client();
  stuck.write("GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n");
  await until(() => slow.received.some((text) => text !== ""), "the slow request");
  for (let count = 0; count < 20; count += 1) expect(await edge.ask(get(), "quick")).toContain("200 OK");
  expect(stuck.text).toBe("");
  await clock.advance(5_100);
  await stuck.untilText("x-gilliam-reason: response_timeout\r\n");
});

test("fault: a half-open HTTP/2 connection is found within 30 s", async () => {
  const clock = new ManualClock();
  const server = http2.createServer();
  server.on("stream", (stream) => stream.on("error", () => undefined));
  server.on("session", (session) => session.on("error", () => undefined));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  let silent = false;
  // Between the two a wire that stops carrying anything, and says nothing about it.
  await using chaos = await rawServer((socket) => {
    const behind = net.connect(port, "127.0.0.1");
    behind.on("error", () => undefined);
    socket.on("data", (bytes: Buffer) => silent || behind.write(bytes));
    behind.on("data", (bytes: Buffer) => silent || socket.write(bytes));
    socket.on("close", () => behind.destroy());
  });
  const grpc = cluster("api.shop", [chaos.port], {
    protocol: "grpc",
    policy: { responseTimeoutMs: 0, answerTimeoutMs: 0 },
  });
  await using mesh = await rig([], { clock, clusters: [grpc], routes: [], listener: LOCAL });
  await using client = await mesh.client();
  client.write("POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 0\r\n\r\n");
  await until(() => chaos.received.some((text) => text.length > 100), "the request");
  silent = true;
  for (let seconds = 0; seconds < 30; seconds += 1) {
    await clock.advance(1_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await client.untilText("x-gilliam-reason: upstream_closed\r\n");
  await untilMetric(mesh, 'gilliam_connections{side="upstream"', 0);
  server.close();
});

test("fault: a reset in the middle of a body is not sent again, and the client sees that it is cut", async () => {
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", () => socket.resetAndDestroy());
    });
  });
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write(get());
  await client.untilEnd();
  expect(server.sockets).toHaveLength(1);
  expect(client.text === "" || !/\r\n\r\n.{100}/s.test(client.text)).toBe(true);
  expect(edge.events).toHaveLength(1);
  expect(edge.events[0]!.reason).toBe("upstream_closed");
});

test.for([
  ["always", () => true],
  ["every second time", (count: number) => count % 2 === 0],
] as const)(
  "fault: instances that answer 500 %s are ejected, and never more than half of all",
  async ([, fails]) => {
    const healthy = await Promise.all([1, 2, 3].map(() => rawServer(answering(() => ok("fine")))));
    const broken = await Promise.all(
      [1, 2, 3].map(() =>
        rawServer(
          answering((_, count) =>
            fails(count) ? "HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno" : ok("fine"),
          ),
        ),
      ),
    );
    const ports = [...healthy, ...broken].map(({ port }) => port);
    await using edge = await rig(ports);
    await using client = await edge.client();
    for (let count = 1; count <= 600; count += 1) {
      client.write(get());
      await client.until(({ text }) => text.split("HTTP/1.1 ").length - 1 === count, "an answer");
    }
    const ejected = Object.keys(edge.engine.report().ejected);
    expect(ejected.toSorted()).toEqual(["i3", "i4", "i5"]);
    for (const server of [...healthy, ...broken]) await server[Symbol.asyncDispose]();
  },
);

test("fault: when all instances are ejected all are used, and status and metric say so", async () => {
  await using one = await rawServer(answering(() => "HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno"));
  await using two = await rawServer(answering(() => "HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno"));
  const policy = { outlier: { ejectedPercentMax: 100, consecutiveFailuresMax: 2 } };
  await using edge = await rig([], { clusters: [cluster("web.shop", [one.port, two.port], { policy })] });
  await using client = await edge.client();
  for (let count = 1; count <= 20; count += 1) {
    client.write(get());
    await client.until(
      ({ text }) => text.split("HTTP/1.1 500").length - 1 === count,
      "an answer of the service's own",
    );
  }
  expect(await edge.metric("gilliam_panic")).toBe(1);
  const reasons = Object.values(edge.engine.report().ejected);
  expect(reasons).toHaveLength(2);
  for (const reason of reasons) expect(reason).toContain("used all the same");
});

test("fault: when everybody answers 503, attempts are at most 1.2 times the requests and the burst", async () => {
  let attempts = 0;
  const refusing = (): Promise<Awaited<ReturnType<typeof rawServer>>> =>
    rawServer(
      answering(() => {
        attempts += 1;
        return "HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno";
      }),
    );
  await using one = await refusing();
  await using two = await refusing();
  await using edge = await rig([one.port, two.port]);
  await using client = await edge.client();
  for (let count = 1; count <= 500; count += 1) {
    client.write(get());
    await client.until(({ text }) => text.split("HTTP/1.1 503").length - 1 === count, "an answer");
  }
  expect(attempts).toBeGreaterThan(500);
  expect(attempts).toBeLessThanOrEqual(500 * 1.2 + 10);
});

test.for([
  [
    "a trailer field without chunks",
    "GET / HTTP/1.1\r\nHost: shop.test\r\nTrailer: x\r\n\r\n",
    ok("fine"),
    "200",
  ],
  ["an upstream status 099", get(), "HTTP/1.1 099 No\r\ncontent-length: 0\r\n\r\n", "502"],
] as const)("fault: %s costs one request at most", async ([, request, answer, status]) => {
  await using server = await rawServer(answering(() => answer));
  await using edge = await rig([server.port]);
  await using other = await edge.client();
  expect(await edge.ask(request, `HTTP/1.1 ${status}`)).toContain(status);
  other.write(get());
  await other.untilText(`HTTP/1.1 ${status}`);
  expect(await edge.metric("gilliam_faults_total")).toBe(0);
});

test("fault: without a free local port the answer is a quick 503, and no instance is blamed", async () => {
  await using server = await rawServer(answering(() => ok("fine")));
  await using edge = await rig([server.port, server.port]);
  await using client = await edge.client();
  let dialed = 0;
  const connect = vi.spyOn(net.Socket.prototype, "connect").mockImplementation(function (this: net.Socket) {
    dialed += 1;
    process.nextTick(() => this.destroy(Object.assign(new Error("no port"), { code: "EADDRNOTAVAIL" })));
    return this;
  });
  try {
    for (let count = 1; count <= 10; count += 1) {
      client.write(get());
      await client.until(
        ({ text }) => text.split("x-gilliam-reason: sockets_exhausted").length - 1 === count,
        "a 503",
      );
    }
  } finally {
    connect.mockRestore();
  }
  expect(dialed).toBe(10);
  expect(edge.engine.report().ejected).toEqual({});
  client.write(get());
  await client.untilText("fine");
});

test("fault: an exception while a request is read costs its connection and no other", async () => {
  await using server = await rawServer(answering(() => ok("fine")));
  let armed = false;
  const pressure: Pressure = {
    get level(): PressureLevel {
      if (armed) {
        armed = false;
        throw new Error("boom");
      }
      return 0;
    },
  };
  await using edge = await rig([server.port], { pressure });
  await using other = await edge.client();
  other.write(get("/1"));
  await other.untilText("fine");
  await using hit = await edge.client();
  armed = true;
  hit.write(get("/boom"));
  await hit.untilEnd();
  expect(hit.text).toBe("");
  other.write(get("/2"));
  await other.until(({ text }) => text.split("fine").length === 3, "the second answer");
  expect(await edge.metric("gilliam_faults_total")).toBe(1);
});

test("fault: an access callback that throws is counted, and costs nobody anything", async () => {
  await using server = await rawServer(answering(() => ok("fine")));
  await using edge = await rig([server.port], {
    onAccess: () => {
      throw new Error("boom");
    },
  });
  await using client = await edge.client();
  for (let count = 1; count <= 3; count += 1) {
    client.write(get());
    await client.until(({ text }) => text.split("fine").length - 1 === count, "an answer");
  }
  await untilMetric(edge, "gilliam_faults_total", 3);
});
