import { once } from "node:events";
import http2 from "node:http2";
import { expect, test } from "vitest";
import { ManualClock } from "../../../base/manual-clock.ts";
import { MeshConfig } from "../../../model/mesh.ts";
import { LOCAL, answering, cluster, get, ok, rawServer, rig, until, untilMetric } from "../kit.ts";
import type { Rig } from "../kit.ts";

/** How long a call may take: what the caller said, what the policy says, and what the next hop is told. */

const clock = (): ManualClock => new ManualClock();

function local(
  ports: readonly number[],
  time: ManualClock,
  policy: Record<string, unknown> = {},
): Promise<Rig> {
  const clusters = [cluster("api.shop", ports, { policy })];
  return rig([], { clusters, routes: [], listener: LOCAL, clock: time });
}

const call = (fields: string, method = "GET"): string =>
  `${method} / HTTP/1.1\r\nHost: api\r\nContent-Length: 0\r\n${fields}\r\n`;

test.for([
  { said: "x-request-deadline: 5000\r\n", policy: {}, told: "x-request-deadline: 5000\r\n" },
  { said: "grpc-timeout: 2S\r\n", policy: {}, told: "x-request-deadline: 2000\r\n" },
  {
    said: "x-request-deadline: 5000\r\nGrpc-Timeout: 9S\r\n",
    policy: {},
    told: "x-request-deadline: 5000\r\n",
  },
  {
    said: "x-request-deadline: 5000\r\n",
    policy: { requestTimeoutMs: 2000 },
    told: "x-request-deadline: 2000\r\n",
  },
  {
    said: "x-request-deadline: 1000\r\n",
    policy: { requestTimeoutMs: 2000 },
    told: "x-request-deadline: 1000\r\n",
  },
  { said: "", policy: { requestTimeoutMs: 2000 }, told: "x-request-deadline: 2000\r\n" },
])("'$said' with $policy tells the next hop $told", async ({ said, policy, told }) => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using mesh = await local([server.port], clock(), policy);
  await mesh.ask(call(said), "hello");
  expect(server.received[0]!.match(/^(?:x-request-deadline|grpc-timeout).*\r\n/gim)).toEqual([told]);
});

test("without a deadline nothing is told", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using mesh = await local([server.port], clock());
  await mesh.ask(call(""), "hello");
  expect(server.received[0]).not.toMatch(/deadline|timeout/i);
});

test("waiting and failed attempts count: the next hop is told what remains", async () => {
  const time = clock();
  await using dying = await rawServer((socket) => {
    socket.once("data", () => {
      void time.advance(200).then(() => socket.destroy());
    });
  });
  await using server = await rawServer(answering(() => ok("hello")));
  await using mesh = await local([], time);
  await using client = await mesh.client();
  client.write(call("x-request-deadline: 5000\r\n"));
  await untilMetric(mesh, "gilliam_waiting", 1);
  await time.advance(1_000);
  const config = (ports: readonly number[]) =>
    MeshConfig.parse({ epoch: 2, clusters: [cluster("api.shop", ports)], edges: [], routes: [] });
  mesh.engine.apply(config([dying.port, server.port]));
  await client.untilText("hello");
  const told = [...dying.received, ...server.received].map((text) => /deadline: (\d+)/.exec(text)?.[1]);
  expect(told).toEqual(dying.received.length === 0 ? ["4000"] : ["4000", "3800"]);
});

test("a request whose deadline has passed is refused, and no upstream sees it", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using mesh = await local([server.port], clock());
  const answer = await mesh.ask(call("x-request-deadline: 0\r\n"), "next:");
  expect(answer).toMatch(/^HTTP\/1\.1 504 .*x-gilliam-reason: deadline_exceeded\r\n/s);
  expect(server.sockets).toHaveLength(0);
});

test("a deadline passes while a request waits, and while its answer is under way", async () => {
  const time = clock();
  await using server = await rawServer((socket) => {
    socket.once("data", () => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin"));
  });
  await using empty = await local([], time);
  await using waiting = await empty.client();
  waiting.write(call("x-request-deadline: 500\r\n"));
  await untilMetric(empty, "gilliam_waiting", 1);
  await time.advance(600);
  await waiting.untilText("deadline_exceeded");
  await using mesh = await local([server.port], time);
  await using client = await mesh.client();
  client.write(call("x-request-deadline: 500\r\n"));
  await client.untilText("begin");
  await time.advance(600);
  await client.untilEnd(); // Cut: nobody takes it for the whole.
  expect(mesh.events).toMatchObject([{ status: 200, reason: "deadline_exceeded" }]);
});

test.for(["x-request-deadline: 1763820000000\r\n", "x-request-deadline: soon\r\n", "grpc-timeout: 5\r\n"])(
  "'%s' is refused inside the mesh, because a deadline that is not understood protects nobody",
  async (field) => {
    await using server = await rawServer(answering(() => ok("hello")));
    await using mesh = await local([server.port], clock());
    const answer = await mesh.ask(call(field));
    expect(answer).toMatch(/^HTTP\/1\.1 400 .*x-gilliam-reason: bad_deadline\r\n/s);
    expect(server.sockets).toHaveLength(0);
  },
);

test.for(["x-request-deadline: 0\r\n", "X_Request_Deadline: 0\r\n", "grpc-timeout: nonsense\r\n"])(
  "the edge takes no deadline from strangers: '%s'",
  async (field) => {
    await using server = await rawServer(answering(() => ok("hello")));
    await using edge = await rig([server.port]);
    expect(await edge.ask(get("/", field), "hello")).toContain("200 OK");
    expect(server.received[0]).not.toMatch(/deadline|timeout/i);
  },
);

test("server-sent events go on for hours, and end when the server falls silent", async () => {
  const time = clock();
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      socket.write(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
      );
    });
  });
  await using mesh = await local([server.port], time);
  await using client = await mesh.client();
  client.write(call(""));
  await client.untilText("event-stream");
  for (let count = 0; count < 40; count += 1) {
    await time.advance(290_000); // Just below streamIdleTimeoutMs; more than three hours in all.
    const event = `data: ${count}\n\n`;
    server.sockets[0]!.write(`${event.length.toString(16)}\r\n${event}\r\n`);
    await client.untilText(event);
  }
  await time.advance(301_000);
  await client.untilEnd();
  expect(mesh.events).toMatchObject([{ status: 200, reason: "response_timeout" }]);
});

test("a total that the manifest names cuts a response that has begun", async () => {
  const time = clock();
  await using server = await rawServer((socket) => {
    socket.once("data", () => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin"));
  });
  await using mesh = await local([server.port], time, { requestTimeoutMs: 10_000 });
  await using client = await mesh.client();
  client.write(call(""));
  await client.untilText("begin");
  await time.advance(10_100);
  await client.untilEnd();
  expect(mesh.events).toMatchObject([{ reason: "request_timeout" }]);
});

test.for([
  { method: "GET", attempts: 3, onTimeout: true },
  { method: "POST", attempts: 1, onTimeout: true }, // It may be at work on it still.
  { method: "GET", attempts: 1, onTimeout: false },
])("$method, tried again after the time of one attempt ($onTimeout): $attempts", async (row) => {
  const { method, attempts, onTimeout } = row;
  const time = clock();
  await using one = await rawServer(() => undefined);
  await using two = await rawServer(() => undefined);
  const policy = { responseTimeoutMs: 1_000, retry: { onTimeout } };
  await using mesh = await local([one.port, two.port], time, policy);
  await using client = await mesh.client();
  client.write(call("", method));
  const seen = (): number => [...one.received, ...two.received].filter((text) => text !== "").length;
  for (let count = 1; count <= attempts; count += 1) {
    await until(() => seen() === count, `attempt ${count}`);
    await time.advance(1_100);
    await time.advance(300); // The back-off.
  }
  await client.untilText("response_timeout");
  expect(mesh.events).toMatchObject([{ status: 504, retries: attempts - 1 }]);
});

test("all attempts together have a time of their own", async () => {
  const time = clock();
  await using server = await rawServer(() => undefined);
  const policy = {
    responseTimeoutMs: 1_000,
    answerTimeoutMs: 1_500,
    retry: { onTimeout: true, retriesMax: 9 },
  };
  await using mesh = await local([server.port], time, policy);
  await using client = await mesh.client();
  client.write(call(""));
  await until(() => server.received.length === 1, "the first attempt");
  await time.advance(1_600);
  await client.untilText("no response within 1500 ms, retries included");
});

test("a gRPC client is refused in its own language", async () => {
  await using server = await rawServer(() => undefined);
  const time = clock();
  await using mesh = await local([server.port], time);
  const session = http2.connect(`http://127.0.0.1:${mesh.port}`);
  const refused = async (fields: http2.OutgoingHttpHeaders): Promise<http2.IncomingHttpHeaders> => {
    const stream = session.request({
      ":method": "POST",
      ":path": "/shop.Cart/Add",
      ":authority": "api",
      "content-type": "application/grpc+proto",
      ...fields,
    });
    stream.end("ping");
    const [head] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
    stream.resume();
    await once(stream, "close");
    return head;
  };
  expect(await refused({ "grpc-timeout": "0m" })).toMatchObject({
    ":status": 200,
    "content-type": "application/grpc",
    "grpc-status": "4",
    "grpc-message": expect.stringMatching(
      /^504 deadline_exceeded: the caller gave it 0 ms%0Awhere: /,
    ) as string,
    "x-gilliam-reason": "deadline_exceeded",
  });
  mesh.engine.apply(
    MeshConfig.parse({ epoch: 2, clusters: [cluster("api.shop", [])], edges: [], routes: [] }),
  );
  const pending = refused({});
  await untilMetric(mesh, "gilliam_waiting", 1);
  await time.advance(2_100);
  expect(await pending).toMatchObject({
    ":status": 200,
    "grpc-status": "14",
    "grpc-retry-pushback-ms": "1000",
  });
  session.destroy();
});
