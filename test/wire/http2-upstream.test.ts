import { once } from "node:events";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { buffer, text } from "node:stream/consumers";
import { expect, test } from "vitest";
import type { ListenerSpec } from "../../proxy/engine.ts";
import { EMPTY_SETTINGS, frame } from "../../proxy/http2/test-kit.ts";
import { LOCAL, cluster, get, rawServer, rig, until } from "./kit.ts";
import type { Rig } from "./kit.ts";

/** Clusters whose instances speak HTTP/2: gRPC through local ports, HTTP/1.1 clients in front of HTTP/2 services. */

interface Http2Server extends AsyncDisposable {
  readonly port: number;
  readonly sessions: http2.ServerHttp2Session[];
}

type Handler = (stream: http2.ServerHttp2Stream, head: http2.IncomingHttpHeaders) => void;

async function startServer(handle: Handler, settings: http2.Settings = {}): Promise<Http2Server> {
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
    sessions,
    [Symbol.asyncDispose]: async () => {
      for (const session of sessions) session.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function connect(port: number): Promise<http2.ClientHttp2Session & AsyncDisposable> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on("error", () => undefined);
  await once(session, "connect");
  return Object.assign(session, {
    [Symbol.asyncDispose]: async () => {
      if (session.destroyed) return;
      session.destroy();
      await once(session, "close");
    },
  });
}

const GRPC: ListenerSpec = { ...LOCAL, protocol: "grpc" };
const mesh = (ports: readonly number[], more: Record<string, unknown> = {}): Promise<Rig> =>
  rig([], {
    clusters: [cluster("api.shop", ports, { protocol: "grpc", ...more })],
    routes: [],
    listener: GRPC,
  });

/** An echo in the manner of a unary gRPC call: the status comes in trailers. */
const echoCall: Handler = (stream, head) => {
  stream.respond(
    { ":status": 200, "content-type": "application/grpc", "x-path": head[":path"] },
    { waitForTrailers: true },
  );
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0", "grpc-message": "fine" }));
  stream.pipe(stream);
};

async function call(session: http2.ClientHttp2Session, path: string, body: Buffer) {
  const request = session.request({ ":method": "POST", ":path": path, te: "trailers" });
  request.end(body);
  const trailers = once(request, "trailers") as Promise<[http2.IncomingHttpHeaders]>;
  const [head] = (await once(request, "response")) as [http2.IncomingHttpHeaders];
  return { head, body: await buffer(request), trailers: (await trailers)[0] };
}

test("a gRPC call goes through with its trailers, its caller named", async () => {
  let seen: http2.IncomingHttpHeaders = {};
  await using server = await startServer((stream, head) => {
    seen = head;
    echoCall(stream, head);
  });
  await using port = await mesh([server.port]);
  await using session = await connect(port.port);
  const { head, body, trailers } = await call(session, "/shop.Cart/Add", Buffer.from("message"));
  expect(head).toMatchObject({ "content-type": "application/grpc", "x-path": "/shop.Cart/Add" });
  expect(body.toString()).toBe("message");
  expect(trailers).toMatchObject({ "grpc-status": "0", "grpc-message": "fine" });
  expect(seen).toMatchObject({ te: "trailers", "x-gilliam-from": "web.shop", ":method": "POST" });
  expect(seen["x-request-id"]).toBeDefined();
  await until(() => port.events.length === 1, "the access event");
  expect(port.events[0]).toMatchObject({ status: 200, bytesIn: 7, bytesOut: 7, reason: "" });
});

test("an answer that is trailers alone stays so", async () => {
  await using server = await startServer((stream) =>
    stream.respond({ ":status": 200, "grpc-status": "12" }, { endStream: true }),
  );
  await using port = await mesh([server.port]);
  await using session = await connect(port.port);
  const request = session.request({ ":method": "POST" }).end("x");
  const [head, flags] = (await once(request, "response")) as [http2.IncomingHttpHeaders, number];
  expect(head["grpc-status"]).toBe("12");
  expect(head["content-length"]).toBeUndefined();
  expect(flags & http2.constants.NGHTTP2_FLAG_END_STREAM).toBe(1);
  request.resume();
});

test("requests of one client connection are balanced one by one, over one connection for each endpoint", async () => {
  const counts = [0, 0];
  const count = (index: number) =>
    startServer((stream, head) => {
      counts[index]! += 1;
      echoCall(stream, head);
    });
  await using first = await count(0);
  await using second = await count(1);
  await using port = await mesh([first.port, second.port]);
  await using session = await connect(port.port);
  const calls = Array.from({ length: 100 }, (_, index) =>
    call(session, `/${index}`, Buffer.from(`${index}`)),
  );
  const answers = await Promise.all(calls);
  expect(answers.map(({ body }) => body.toString())).toEqual(answers.map((_, index) => String(index)));
  expect(Math.min(...counts)).toBeGreaterThan(30);
  expect([first.sessions.length, second.sessions.length]).toEqual([1, 1]);
});

test("large messages pass in both directions within the windows", async () => {
  await using server = await startServer(echoCall);
  await using port = await mesh([server.port]);
  await using session = await connect(port.port);
  const body = Buffer.alloc(2_000_000, "m");
  const answer = await call(session, "/big", body);
  expect(answer.body.equals(body)).toBe(true);
});

test("more calls than the server takes at once wait for further connections", async () => {
  await using server = await startServer(echoCall, { maxConcurrentStreams: 10 });
  await using port = await mesh([server.port]);
  await using session = await connect(port.port);
  await call(session, "/first", Buffer.from("x"));
  const calls = Array.from({ length: 45 }, (_, index) => call(session, `/${index}`, Buffer.from("x")));
  expect((await Promise.all(calls)).length).toBe(45);
  expect(server.sessions.length).toBeGreaterThan(1);
});

test.for([
  [
    "with a body of unknown length",
    (stream: http2.ServerHttp2Stream) => stream.respond({ ":status": 200 }) ?? stream.end("hello"),
    /transfer-encoding: chunked\r\n[^]*hello\r\n0\r\n\r\n$/,
  ],
  [
    "with a body of known length",
    (stream: http2.ServerHttp2Stream) =>
      stream.respond({ ":status": 200, "content-length": 5 }) ?? stream.end("hello"),
    /content-length: 5\r\n[^]*\r\n\r\nhello$/,
  ],
  [
    "without a body",
    (stream: http2.ServerHttp2Stream) => stream.respond({ ":status": 200 }, { endStream: true }),
    /transfer-encoding: chunked\r\n\r\n0\r\n\r\n$/,
  ],
  [
    "that has none",
    (stream: http2.ServerHttp2Stream) => stream.respond({ ":status": 204 }, { endStream: true }),
    /^HTTP\/1\.1 204 No Content\r\n(?![^]*transfer-encoding)[^]*\r\n\r\n$/,
  ],
] as [string, (stream: http2.ServerHttp2Stream) => unknown, RegExp][])(
  "an HTTP/1.1 client gets an answer %s",
  async ([, respond, expected]) => {
    await using server = await startServer((stream) => void respond(stream));
    await using edge = await rig([], {
      clusters: [cluster("web.shop", [server.port], { protocol: "http2" })],
    });
    await using client = await edge.client();
    client.write(get());
    await client.until(({ text }) => expected.test(text), "the answer");
    client.write(get("/again"));
    await client.until(({ text }) => text.match(/HTTP\/1\.1 20/g)?.length === 2, "the next answer");
    expect(server.sessions.length).toBe(1);
  },
);

test("a stream refused by a server that goes away is sent again elsewhere, whatever its method", async () => {
  let refused = 0;
  await using server = await startServer((stream, head) => {
    if (refused === 0) {
      refused += 1;
      stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
      return;
    }
    echoCall(stream, head);
  });
  await using port = await mesh([server.port]);
  await using session = await connect(port.port);
  const { body } = await call(session, "/once", Buffer.from("x"));
  expect(body.toString()).toBe("x");
});

test("a stream the server breaks is a 502 that may have been executed, so it is not sent again", async () => {
  let calls = 0;
  await using server = await startServer((stream) => {
    calls += 1;
    stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
  });
  await using port = await mesh([server.port]);
  await using session = await connect(port.port);
  const request = session.request({ ":method": "POST" }).end("x");
  const [head] = (await once(request, "response")) as [http2.IncomingHttpHeaders];
  expect(head).toMatchObject({ ":status": 502, "x-gilliam-reason": "upstream_closed" });
  expect(await text(request)).toContain("INTERNAL_ERROR");
  expect(calls).toBe(1);
});

test("a graceful GOAWAY loses nothing: what runs ends, what comes takes a new connection", async () => {
  let finish: (() => void) | undefined;
  await using server = await startServer((stream, head) => {
    if (head[":path"] === "/slow") finish = () => echoCall(stream, head);
    else echoCall(stream, head);
  });
  await using port = await mesh([server.port]);
  await using session = await connect(port.port);
  const slow = call(session, "/slow", Buffer.from("slow"));
  await until(() => finish !== undefined, "the slow call");
  server.sessions[0]!.close();
  const next = await call(session, "/next", Buffer.from("next"));
  expect(next.body.toString()).toBe("next");
  finish!();
  expect((await slow).body.toString()).toBe("slow");
  expect(server.sessions.length).toBe(2);
});

test("an upstream that does not speak HTTP/2 is a 502 that says so", async () => {
  await using server = await rawServer((socket) => {
    socket.once("data", () => socket.end("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"));
  });
  await using port = await mesh([server.port], { policy: { retry: { retriesMax: 0 } } });
  const answer = await port.ask(get(), "next:");
  expect(answer).toContain("502");
  expect(answer).toMatch(/first frame is not SETTINGS|longer than announced/);
});

test("a malformed response never reaches the client", async () => {
  await using server = await rawServer((socket) => {
    const block = Buffer.concat([
      Buffer.from([0x88, 0x00, 0x01]),
      Buffer.from("A"),
      Buffer.from([0x01]),
      Buffer.from("b"),
    ]);
    socket.once("data", () => socket.write(Buffer.concat([EMPTY_SETTINGS, frame(1, 5, 1, block)])));
  });
  await using port = await mesh([server.port]);
  const answer = await port.ask(get(), "next:");
  expect(answer).toContain("x-gilliam-reason: bad_response");
});

test("nobody there is a 502, and tried again within the budget", async () => {
  const server = await rawServer(() => undefined);
  const { port: closedPort } = server;
  await server[Symbol.asyncDispose]();
  await using port = await mesh([closedPort]);
  const answer = await port.ask(get(), "next:");
  expect(answer).toContain("x-gilliam-reason: connect_failed");
  await until(() => port.events.length === 1, "the access event");
  expect(port.events[0]!.retries).toBe(2);
});

test("a client that leaves cancels the stream, not the connection", async () => {
  let closed = 0;
  await using server = await startServer((stream, head) => {
    if (head[":path"] !== "/wait") return echoCall(stream, head);
    stream.once("close", () => (closed = stream.rstCode));
  });
  await using port = await mesh([server.port]);
  await using session = await connect(port.port);
  const request = session.request({ ":path": "/wait" });
  request.on("error", () => undefined);
  await until(() => server.sessions.length === 1, "the call");
  await call(session, "/other", Buffer.from("x"));
  request.close(http2.constants.NGHTTP2_CANCEL);
  await until(() => closed === http2.constants.NGHTTP2_CANCEL, "the upstream's stream to close");
  await call(session, "/other", Buffer.from("x"));
  expect(server.sessions.length).toBe(1);
});

test("an endpoint that leaves the configuration finishes its calls, then its connection is closed", async () => {
  let finish: (() => void) | undefined;
  await using server = await startServer((stream, head) => {
    finish = () => echoCall(stream, head);
  });
  await using port = await mesh([server.port]);
  await using session = await connect(port.port);
  const slow = call(session, "/slow", Buffer.from("slow"));
  await until(() => finish !== undefined, "the call");
  const empty = cluster("api.shop", [], { protocol: "grpc" });
  expect(port.engine.apply({ epoch: 2, clusters: [empty], edges: [], routes: [] })).toEqual({ ok: true });
  expect(port.engine.report().busy).toEqual({ i0: 1 });
  const over = once(server.sessions[0]!, "close");
  finish!();
  expect((await slow).body.toString()).toBe("slow");
  await over;
  expect(port.engine.report().busy).toEqual({});
});
