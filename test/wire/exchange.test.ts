import { expect, test } from "vitest";
import { LOCAL, answering, cluster, get, ok, rawServer, rig, until } from "./kit.ts";

test("a request travels with what the next hop needs, and its answer comes back", async () => {
  await using server = await rawServer(answering(() => ok("hello", "x-app: 1\r\n")));
  await using edge = await rig([server.port]);
  const answer = await edge.ask(
    get(
      "/a?b=c",
      "Connection: keep-alive\r\nX-Forwarded-For: 6.6.6.6\r\nX-Gilliam-From: admin\r\nX-Mine: 2\r\n",
    ),
    "hello",
  );
  expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\ncontent-length: 5\r\nx-app: 1\r\ndate: .* GMT\r\n\r\nhello$/);
  expect(server.received[0]).toMatch(
    /^GET \/a\?b=c HTTP\/1\.1\r\nhost: shop\.test\r\nX-Mine: 2\r\nx-forwarded-for: 127\.0\.0\.1\r\nx-forwarded-proto: http\r\nx-gilliam-from: edge\r\nvia: 1\.1 edge\r\nx-forwarded-host: shop\.test\r\nx-request-id: [0-9a-f]{16}-1\r\n\r\n$/,
  );
});

test("a local listener names its caller, and passes forwarded fields on", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using mesh = await rig([], {
    clusters: [cluster("api.shop", [server.port])],
    routes: [],
    listener: LOCAL,
  });
  await mesh.ask(
    "GET / HTTP/1.1\r\nHost: localhost:7001\r\nX-Forwarded-For: 6.6.6.6\r\ntraceparent: 00-a-b-01\r\nX-Request-Id: r1\r\n\r\n",
    "hello",
  );
  expect(server.received[0]).toContain("X-Forwarded-For: 6.6.6.6\r\ntraceparent: 00-a-b-01\r\n");
  expect(server.received[0]).toContain("x-gilliam-from: web.shop\r\n");
  expect(server.received[0]).toContain("x-request-id: r1\r\n");
});

test("requests of one connection share one upstream connection", async () => {
  await using server = await rawServer(answering((_, count) => ok(`answer ${count}`)));
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  for (let count = 0; count < 3; count += 1) {
    client.write(get());
    await client.untilText(`answer ${count}`);
  }
  expect(server.sockets).toHaveLength(1);
});

test("pipelined requests are answered in their order", async () => {
  await using server = await rawServer(answering((head) => ok(/GET (\S+)/.exec(head)![1]!)));
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write(Array.from({ length: 50 }, (_, index) => get(`/${index}/`)).join(""));
  await client.untilText("/49/");
  const order = client.text.match(/\/\d+\//g)!.map((path) => Number(path.slice(1, -1)));
  expect(order).toEqual(Array.from({ length: 50 }, (_, index) => index));
});

test("an unknown host is a 404 that says why, and the connection lives on", async () => {
  await using edge = await rig([], { clusters: [cluster("web.shop", [])] });
  await using client = await edge.client();
  client.write("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n");
  await client.untilText("next:");
  expect(client.text).toMatch(/^HTTP\/1\.1 404 Not Found\r\n/);
  expect(client.text).toContain("x-gilliam-reason: no_route\r\n");
  expect(client.ended).toBe(false);
  expect(edge.events).toMatchObject([{ status: 404, reason: "no_route", host: "nobody.test" }]);
});

test("bodies go both ways, chunked and with a length", async () => {
  await using server = await rawServer((socket) => {
    let text = "";
    socket.on("data", (bytes: Buffer) => {
      text += bytes.toString("latin1");
      if (text.endsWith("0\r\n\r\n")) {
        socket.write(
          "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nt: 1\r\n\r\n",
        );
      }
    });
  });
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write("POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
  await until(() => server.received[0]?.includes("hel") ?? false, "the first chunk");
  client.write("lo\r\n6;e=1\r\n world\r\n0\r\n\r\n");
  await client.untilText("0\r\n\r\n");
  expect(server.received[0]).toMatch(
    /transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n8\r\nlo world\r\n0\r\n\r\n$/,
  );
  expect(client.text).toMatch(/transfer-encoding: chunked\r\n.*\r\n7\r\nabcdefg\r\n0\r\n\r\n$/s);
});

test("a failing endpoint costs a retry, and the client sees nothing of it", async () => {
  await using good = await rawServer(answering(() => ok("good")));
  const dead = await rawServer(() => undefined);
  await dead[Symbol.asyncDispose]();
  await using edge = await rig([dead.port, good.port]);
  for (let count = 0; count < 8; count += 1) {
    expect(await edge.ask(get(), "good")).toContain("200 OK");
  }
  expect(edge.events.every(({ status }) => status === 200)).toBe(true);
  expect(edge.events.some(({ retries }) => retries === 1)).toBe(true);
});
