import { once } from "node:events";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { expect, test } from "vitest";
import { acceptOf } from "../../proxy/websocket.ts";
import { GET, HELLO, frame, headers } from "../../proxy/http2/test-kit.ts";
import { LOCAL, answering, cluster, get, ok, rawServer, rig, until } from "./kit.ts";
import type { Rig } from "./kit.ts";

/** Where HTTP/1.1 and HTTP/2 meet: trailers, WebSocket over either, events that must not wait, going away. */

async function connect(port: number): Promise<http2.ClientHttp2Session & AsyncDisposable> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on("error", () => undefined);
  await Promise.all([once(session, "connect"), once(session, "remoteSettings")]);
  return Object.assign(session, {
    [Symbol.asyncDispose]: async () => {
      if (session.destroyed) return;
      session.destroy();
      await once(session, "close");
    },
  });
}

type Handler = (stream: http2.ServerHttp2Stream, head: http2.IncomingHttpHeaders) => void;

async function http2Server(handle: Handler, settings: http2.Settings = {}) {
  const sessions: http2.ServerHttp2Session[] = [];
  const server = http2.createServer({ settings });
  server.on("session", (session) => {
    sessions.push(session);
    session.on("error", () => undefined);
  });
  server.on("stream", (stream, head) => {
    stream.on("error", () => undefined);
    handle(stream, head);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      for (const session of sessions) session.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A local listener whose cluster speaks HTTP/2. */
const toHttp2 = (port: number): Promise<Rig> =>
  rig([], {
    clusters: [cluster("api.shop", [port], { protocol: "http2" })],
    routes: [],
    listener: { ...LOCAL, protocol: "http2" },
  });

const CHUNKED_ANSWER = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
const POST_CHUNKED = "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n";

test("trailers of HTTP/1.1 travel both ways, without what a head decides", async () => {
  await using server = await rawServer((socket) => {
    socket.on("data", (bytes: Buffer) => {
      if (!bytes.includes("x-sum: 1")) return;
      socket.write(`${CHUNKED_ANSWER}X-Check: \t ok \r\nSet-Cookie: a=b\r\nX-Gilliam-From: admin\r\n\r\n`);
    });
  });
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write(`${POST_CHUNKED}TE: trailers\r\nConnection: TE\r\n\r\n3\r\nabc\r\n0\r\n`);
  client.write("X-Sum: 1\r\nAuthorization: Basic x\r\nX_Forwarded_For: 6.6.6.6\r\nCookie: a\r\n\r\n");
  await client.untilText("0\r\nx-check: ok\r\n\r\n");
  expect(client.text).not.toMatch(/set-cookie|x-gilliam-from/i);
  expect(server.received[0]).toMatch(/connection: te\r\nte: trailers\r\n/);
  expect(server.received[0]!.endsWith("3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n")).toBe(true);
  // The connection serves on, on both sides.
  client.text = "";
  client.write(`${POST_CHUNKED}\r\n0\r\nX-Sum: 1\r\n\r\n`);
  await client.untilText("0\r\n\r\n");
  expect(client.text).not.toContain("x-check"); // It did not say that it understands them.
  expect(server.sockets).toHaveLength(1);
});

test.for([
  ["te", "trailers"],
  ["Host", "elsewhere"],
  ["Upgrade", "websocket"],
])("a trailer that speaks of framing or routing is refused: %s", async ([name, value]) => {
  await using server = await rawServer(answering(() => ok("x")));
  await using edge = await rig([server.port]);
  const answer = await edge.ask(`${POST_CHUNKED}\r\n0\r\n${name}: ${value}\r\n\r\n`);
  expect(answer).toContain("x-gilliam-reason: bad_chunk");
  expect(server.received).toEqual([]);
});

test("an upstream's trailer that speaks of framing costs its answer", async () => {
  await using server = await rawServer(answering(() => `${CHUNKED_ANSWER}Content-Length: 5\r\n\r\n`));
  await using edge = await rig([server.port]);
  expect(await edge.ask(get("/", "TE: trailers\r\n"), "\r\n\r\n")).toContain("bad_response");
});

test("trailers cross from HTTP/2 to HTTP/1.1 and back", async () => {
  await using server = await rawServer((socket) => {
    socket.on("data", (bytes: Buffer) => {
      if (bytes.includes("0\r\nx-sum: 42\r\n\r\n")) socket.write(`${CHUNKED_ANSWER}X-Check: ok\r\n\r\n`);
    });
  });
  await using edge = await rig([server.port]);
  await using session = await connect(edge.port);
  const request = session.request(
    { ":method": "POST", ":authority": "shop.test" },
    { waitForTrailers: true, endStream: false },
  );
  request.on("wantTrailers", () => request.sendTrailers({ "x-sum": "42", authorization: "x" }));
  request.end("abc");
  const trailers = once(request, "trailers") as Promise<[http2.IncomingHttpHeaders]>;
  expect(await text(request)).toBe("hello");
  expect((await trailers)[0]).toMatchObject({ "x-check": "ok" });
  expect(server.received[0]).not.toContain("authorization");
});

test("trailers cross from HTTP/1.1 to HTTP/2 and back", async () => {
  const seen = Promise.withResolvers<http2.IncomingHttpHeaders>();
  await using server = await http2Server((stream) => {
    stream.on("trailers", (trailers) => seen.resolve(trailers));
    stream.resume().on("end", () => {
      stream.respond({ ":status": 200 }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-check": "ok" }));
      stream.end("hello");
    });
  });
  await using sidecar = await toHttp2(server.port);
  await using client = await sidecar.client();
  client.write(`${POST_CHUNKED}TE: trailers\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n`);
  await client.untilText("5\r\nhello\r\n0\r\nx-check: ok\r\n\r\n");
  expect(await seen.promise).toMatchObject({ "x-sum": "1" });
});

/** Answers an upgrade as RFC 6455 asks for, then echoes. */
function webSocketServer(accept: (key: string) => string = acceptOf) {
  return rawServer((socket) => {
    socket.once("data", (bytes: Buffer) => {
      const key = /sec-websocket-key: (\S+)/i.exec(bytes.toString("latin1"))?.[1] ?? "";
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ${accept(key)}\r\nsec-websocket-protocol: chat\r\n\r\n`,
      );
      socket.pipe(socket);
    });
  });
}

const CONNECT = {
  ":method": "CONNECT",
  ":protocol": "websocket",
  ":path": "/chat",
  ":authority": "shop.test",
};

/** Sends `words` one after the other, each when the one before came back. */
async function echo(stream: http2.ClientHttp2Stream, words: readonly string[]): Promise<void> {
  for (const word of words) {
    stream.write(word);
    let back = "";
    while (back.length < word.length) back += String(((await once(stream, "data")) as [Buffer])[0]);
    expect(back).toBe(word);
  }
}

test("a WebSocket over HTTP/2 reaches a server that speaks HTTP/1.1 (RFC 8441)", async () => {
  await using server = await webSocketServer();
  await using edge = await rig([server.port]);
  await using session = await connect(edge.port);
  expect(session.remoteSettings.enableConnectProtocol).toBe(true);
  const stream = session.request({ ...CONNECT, "sec-websocket-protocol": "chat" }, { endStream: false });
  const [head] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
  expect(head).toMatchObject({ ":status": 200, "sec-websocket-protocol": "chat" });
  expect(head).not.toHaveProperty("sec-websocket-accept");
  await echo(stream, ["hello", "x".repeat(300_000), "bye"]);
  expect(server.received[0]).toMatch(
    /^GET \/chat HTTP\/1\.1\r\n[^]*sec-websocket-key: [\w+/]{22}==\r\n[^]*connection: upgrade\r\nupgrade: websocket\r\n/,
  );
  const closed = once(stream, "close");
  stream.end();
  await closed;
  await until(() => edge.events.length === 1, "the access event");
  expect(edge.events[0]).toMatchObject({ kind: "upgrade", status: 101, bytesIn: 300_008, bytesOut: 300_008 });
  expect(session.closed).toBe(false);
});

test("a WebSocket's key is new each time, and a wrong answer to it is no upgrade", async () => {
  await using server = await webSocketServer(() => "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
  await using edge = await rig([server.port]);
  await using session = await connect(edge.port);
  for (let count = 0; count < 2; count += 1) {
    const stream = session.request(CONNECT, { endStream: false });
    const [head] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
    expect(head).toMatchObject({ ":status": 502, "x-gilliam-reason": "bad_response" });
    stream.close();
  }
  const keys = server.received.map((one) => /sec-websocket-key: (\S+)/.exec(one)?.[1]);
  expect(new Set(keys).size).toBe(2);
});

test("a WebSocket of HTTP/1.1 reaches a server that speaks HTTP/2", async () => {
  const heads: http2.IncomingHttpHeaders[] = [];
  await using server = await http2Server(
    (stream, head) => {
      heads.push(head);
      stream.respond({ ":status": 200 });
      stream.pipe(stream);
    },
    { enableConnectProtocol: true },
  );
  await using sidecar = await toHttp2(server.port);
  await using client = await sidecar.client();
  const key = "dGhlIHNhbXBsZSBub25jZQ==";
  client.write(get("/chat", `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ${key}\r\n`));
  await client.untilText("\r\n\r\n");
  expect(client.text).toMatch(/^HTTP\/1\.1 101 /);
  expect(client.text).toContain("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"); // RFC 6455 1.3.
  client.text = "";
  client.write("hello");
  await client.until(({ text: received }) => received === "hello", "the echo");
  expect(heads[0]).toMatchObject({ ":method": "CONNECT", ":protocol": "websocket", ":path": "/chat" });
  expect(heads[0]).not.toHaveProperty("sec-websocket-key");
  client.socket.end();
  await client.untilEnd();
  await until(() => sidecar.events.length === 1, "the access event");
});

test("a WebSocket crosses two HTTP/2 connections, and a reset crosses too", async () => {
  const codes: number[] = [];
  await using server = await http2Server(
    (stream) => {
      stream.respond({ ":status": 200 });
      stream.pipe(stream);
      stream.on("close", () => codes.push(stream.rstCode));
    },
    { enableConnectProtocol: true },
  );
  await using sidecar = await toHttp2(server.port);
  await using session = await connect(sidecar.port);
  const stream = session.request(CONNECT, { endStream: false });
  await once(stream, "response");
  await echo(stream, ["hello"]);
  stream.close(http2.constants.NGHTTP2_CANCEL);
  await until(() => codes.length === 1, "the end of the stream");
  expect(codes).toEqual([http2.constants.NGHTTP2_CANCEL]);
});

test("an HTTP/2 server without RFC 8441 gets no WebSocket, and is not blamed", async () => {
  await using server = await http2Server((stream) => {
    stream.respond({ ":status": 200 });
    stream.end("plain");
  });
  await using sidecar = await toHttp2(server.port);
  for (let count = 0; count < 6; count += 1) {
    const upgrade = get("/", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n");
    expect(await sidecar.ask(upgrade, "\r\n\r\n")).toMatch(/^HTTP\/1\.1 501 [^]*upgrade_unsupported/);
  }
  expect(await sidecar.ask(get(), "plain")).toContain("200 OK");
  expect(sidecar.engine.report().ejected).toEqual({});
});

test.for([
  ["another protocol", { ...CONNECT, ":protocol": "raw" }, 400],
  ["CONNECT without one", { ":method": "CONNECT", ":authority": "shop.test:443" }, 405],
] as const)("an extended CONNECT with %s is refused", async ([, fields, status]) => {
  await using server = await webSocketServer();
  await using edge = await rig([server.port]);
  await using session = await connect(edge.port);
  const stream = session.request(fields, { endStream: false });
  const [head] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
  expect(head[":status"]).toBe(status);
  expect(server.received).toEqual([]);
});

test("each server-sent event arrives alone, over HTTP/1.1 and over HTTP/2", async () => {
  let send = (_event: string): void => undefined;
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      socket.write(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
      );
      send = (event) => void socket.write(`${event.length.toString(16)}\r\n${event}\r\n`);
    });
  });
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write(get("/events"));
  await client.untilText("\r\n\r\n");
  for (const event of ["data: 1\n\n", "data: 22\n\n"]) {
    client.text = "";
    send(event);
    await client.untilText(event); // Nothing follows: whoever waited for more would wait for ever.
  }
  await using session = await connect(edge.port);
  const stream = session.request({ ":authority": "shop.test" });
  await once(stream, "response");
  for (const event of ["data: 1\n\n", "data: 22\n\n"]) {
    const arrived = once(stream, "data") as Promise<[Buffer]>;
    send(event);
    expect(String((await arrived)[0])).toBe(event);
  }
});

test("requests of HTTP/2 that are refused before they are exchanges are told like all others", async () => {
  await using server = await rawServer(answering(() => ok("x")));
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  const malformed = [...GET, "Upper", "1"];
  const hostless = [...GET.slice(0, 6), ":authority", "a b"];
  const unheard = [":method", "TRACE", ":scheme", "http", ":path", "/t", ":authority", "shop.test"];
  client.socket.write(
    Buffer.concat([HELLO, headers(1, malformed), headers(3, hostless), headers(5, unheard)]),
  );
  await until(() => edge.events.length === 3, "three access events");
  expect(edge.events.map(({ status, reason, method }) => ({ status, reason, method }))).toEqual([
    { status: 400, reason: "bad_request", method: "" },
    { status: 400, reason: "bad_request", method: "" },
    { status: 405, reason: "method_refused", method: "TRACE" },
  ]);
  expect(edge.events.every(({ requestId }) => requestId !== "")).toBe(true);
});

test("a drain says GOAWAY in two steps: what is on its way is served (RFC 9113 6.8)", async () => {
  const finish = Promise.withResolvers<void>();
  await using server = await rawServer((socket) => {
    socket.on("data", (bytes: Buffer) => {
      if (bytes.includes("GET /slow")) void finish.promise.then(() => socket.write(ok("slow")));
      else socket.write(ok("late"));
    });
  });
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  const to = (path: string) => [...GET.slice(0, 4), ":path", path, ":authority", "shop.test"];
  client.socket.write(Buffer.concat([HELLO, headers(1, to("/slow"))]));
  await until(() => server.received[0]?.includes("/slow") ?? false, "the request");
  const drained = edge.engine.drain(10_000);
  const goaway = (lastId: number) =>
    frame(7, 0, 0, `${lastId.toString(16).padStart(8, "0")}00000000`).toString("latin1");
  await client.untilText(goaway(0x7fff_ffff));
  client.socket.write(headers(3, to("/late"))); // Sent before it could know.
  await client.untilText("late");
  const ping = client.text.indexOf(frame(6, 0, 0, Buffer.alloc(8)).toString("latin1", 0, 9)) + 9;
  const answer = Buffer.from(client.text.slice(ping, ping + 8), "latin1");
  client.socket.write(frame(6, 1, 0, answer)); // A round trip: from here on it knows.
  await client.untilText(goaway(3));
  finish.resolve();
  await client.untilText("slow");
  await client.untilEnd();
  expect(await drained).toBe(0);
});
