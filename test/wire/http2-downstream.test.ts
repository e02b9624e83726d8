import { once } from "node:events";
import http2 from "node:http2";
import { text } from "node:stream/consumers";
import { expect, test } from "vitest";
import { PREFACE } from "../../proxy/http2/constants.ts";
import { EMPTY_SETTINGS, GET, HELLO, data, frame, headers } from "../../proxy/http2/test-kit.ts";
import { LOCAL, answering, cluster, get, ok, rawServer, rig, until } from "./kit.ts";

/** HTTP/2 with prior knowledge on a listener that also speaks HTTP/1.1; the upstreams speak HTTP/1.1. */

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

interface Answer {
  readonly head: http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader;
  readonly body: string;
}

async function ask(
  session: http2.ClientHttp2Session,
  fields: http2.OutgoingHttpHeaders = {},
  body?: string,
): Promise<Answer> {
  const request = session.request(
    { ":authority": "shop.test", ...fields },
    { endStream: body === undefined },
  );
  if (body !== undefined) request.end(body);
  const [head] = (await once(request, "response")) as [Answer["head"]];
  return { head, body: await text(request) };
}

const AUTHORITY = [...GET.slice(0, 6), ":authority", "shop.test"];

test("a request travels as in HTTP/1.1, and its answer comes back", async () => {
  await using server = await rawServer(answering(() => ok("hello", "X-App: 1\r\n")));
  await using edge = await rig([server.port]);
  await using session = await connect(edge.port);
  const fields = {
    ":path": "/a?b=c",
    "x-forwarded-for": "6.6.6.6",
    "x-gilliam-from": "admin",
    "x-mine": "2",
  };
  const { head, body } = await ask(session, fields);
  expect(head).toMatchObject({ ":status": 200, "x-app": "1", "content-length": "5" });
  expect(head["date"]).toMatch(/GMT$/);
  expect(body).toBe("hello");
  expect(server.received[0]).toMatch(
    /^GET \/a\?b=c HTTP\/1\.1\r\nhost: shop\.test\r\nx-mine: 2\r\nx-forwarded-for: 127\.0\.0\.1\r\nx-forwarded-proto: http\r\nx-gilliam-from: edge\r\nvia: 1\.1 edge\r\n/,
  );
  expect(server.received[0]).not.toContain("6.6.6.6");
  await until(() => edge.events.length === 1, "the access event");
  expect(edge.events[0]).toMatchObject({
    method: "GET",
    path: "/a?b=c",
    status: 200,
    bytesOut: 5,
    reason: "",
  });
});

test("many streams at once use connections of their own, and come back to the right stream", async () => {
  await using server = await rawServer(answering((head) => ok(/GET (\S+)/.exec(head)![1]!)));
  await using edge = await rig([server.port]);
  await using session = await connect(edge.port);
  const paths = Array.from({ length: 100 }, (_, index) => `/${index}`);
  const answers = await Promise.all(paths.map((path) => ask(session, { ":path": path })));
  expect(answers.map(({ body }) => body)).toEqual(paths);
});

test("content of known and of unknown length arrives whole", async () => {
  await using server = await rawServer((socket) => {
    let seen = "";
    socket.on("data", (bytes: Buffer) => {
      seen += bytes.toString("latin1");
      const done = seen.includes("content-length") ? seen.endsWith("end") : seen.endsWith("0\r\n\r\n");
      if (done) socket.write(ok("taken"));
      if (done) seen = "";
    });
  });
  await using edge = await rig([server.port]);
  await using session = await connect(edge.port);
  const body = `${"x".repeat(200_000)}end`;
  const known = await ask(session, { ":method": "POST", "content-length": String(body.length) }, body);
  expect(known.body).toBe("taken");
  const unknown = await ask(session, { ":method": "POST" }, body);
  expect(unknown.body).toBe("taken");
  expect(server.received.join("")).toContain("transfer-encoding: chunked");
});

test("an answer larger than every window arrives whole, as the client reads it", async () => {
  const size = 3_000_000;
  await using server = await rawServer(answering(() => ok("y".repeat(size))));
  await using edge = await rig([server.port]);
  await using session = await connect(edge.port);
  const { body } = await ask(session);
  expect(body.length).toBe(size);
});

test("a client that stops reading stops the upstream, not the proxy's memory", async () => {
  const piece = Buffer.alloc(1_000_000);
  let pieces = 0;
  await using server = await rawServer((socket) => {
    const pump = () => {
      while (pieces < 90 && socket.writable) {
        pieces += 1;
        if (!socket.write(piece)) return;
      }
    };
    socket.on("drain", pump);
    socket.once("data", () => {
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 90000000\r\n\r\n");
      pump();
    });
  });
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write(Buffer.concat([HELLO, headers(1, AUTHORITY)]).toString("latin1"));
  // The client's window is 64 KiB: the rest fills buffers, until nothing moves any more.
  let still = 0;
  let before = -1;
  await until(() => {
    still = pieces === before && pieces > 0 ? still + 1 : 0;
    before = pieces;
    return still === 50;
  }, "the upstream to stand still");
  expect(pieces).toBeLessThan(30);
  expect(client.text.length).toBeLessThan(70_000);
});

test("HTTP/1.1 and HTTP/2 share the listener, and the preface may come in pieces", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await rig([server.port]);
  expect(await edge.ask(get(), "hello")).toContain("200 OK");
  await using client = await edge.client();
  const hello = Buffer.concat([PREFACE, EMPTY_SETTINGS, headers(1, AUTHORITY)]).toString("latin1");
  for (const octet of hello) {
    client.write(octet);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await client.untilText("hello");
});

test.for([
  ["behind a request", get() + PREFACE.toString("latin1"), "version_unsupported"],
  ["that is not one", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "version_unsupported"],
])("a preface %s is refused as HTTP/1.1", async ([, bytes, reason]) => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await rig([server.port]);
  expect(await edge.ask(bytes!)).toContain(`x-gilliam-reason: ${reason}`);
});

test.for([
  ["no_route", 404, { ":authority": "nobody.test" }],
  ["method_refused", 405, { ":method": "TRACE" }],
  ["bad_framing", 400, { content_length: "5" }],
  ["bad_host", 400, { ":authority": "a b" }],
] as const)("a refusal says why: %s", async ([reason, status, fields]) => {
  await using edge = await rig([], { clusters: [cluster("web.shop", [])] });
  await using session = await connect(edge.port);
  const answered = ask(session, fields);
  if (reason === "bad_host") {
    await expect(answered).rejects.toThrow(); // RFC 9113 has it reset, before the engine sees it.
    return;
  }
  const { head, body } = await answered;
  expect(head).toMatchObject({ ":status": status, "x-gilliam-reason": reason });
  expect(body).toContain(reason);
});

test("a refused upload is told to stop, and the connection lives on", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  const other = [":method", "POST", ...AUTHORITY.slice(2, 6), ":authority", "nobody.test"];
  client.write(Buffer.concat([HELLO, headers(1, other, false), data(1, "abc")]).toString("latin1"));
  await client.untilText("no_route");
  await client.untilText(frame(3, 0, 1, "00000000").toString("latin1"));
  client.write(Buffer.concat([data(1, "late"), headers(3, AUTHORITY)]).toString("latin1"));
  await client.untilText("hello");
});

test("a client's reset gives up the upstream request and counts as gone", async () => {
  await using server = await rawServer(() => undefined);
  await using edge = await rig([server.port]);
  await using session = await connect(edge.port);
  const request = session.request({ ":authority": "shop.test" });
  request.on("error", () => undefined);
  await until(() => server.received[0] !== undefined && server.received[0].length > 0, "the request");
  request.close(http2.constants.NGHTTP2_CANCEL);
  await until(() => edge.events.length === 1, "the access event");
  expect(edge.events[0]).toMatchObject({ reason: "client_gone", status: 499 });
  await until(() => server.sockets[0]!.destroyed || server.sockets[0]!.readableEnded, "the upstream's end");
});

test("an upstream that breaks off resets the stream, not the connection", async () => {
  await using server = await rawServer((socket) => {
    socket.once("data", () =>
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", () => socket.destroy()),
    );
  });
  await using edge = await rig([server.port]);
  await using session = await connect(edge.port);
  const request = session.request({ ":authority": "shop.test" });
  const error = once(request, "error") as Promise<[Error]>;
  request.resume();
  expect((await error)[0].message).toContain("INTERNAL_ERROR");
  expect(session.closed).toBe(false);
});

test("closing the listener says goodbye, finishes what is in flight and loses nothing", async () => {
  let answer: (() => void) | undefined;
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      answer = () => socket.write(ok("late"));
    });
  });
  await using edge = await rig([server.port]);
  await using session = await connect(edge.port);
  const answered = ask(session);
  await until(() => answer !== undefined, "the request");
  const goaway = once(session, "goaway");
  const closed = edge.listener.close();
  await goaway;
  answer!();
  expect((await answered).body).toBe("late");
  await closed;
});

test("a client that ends its direction still gets its answer, and then the connection closes", async () => {
  let answer: (() => void) | undefined;
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      answer = () => socket.write(ok("late"));
    });
  });
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write(Buffer.concat([HELLO, headers(1, AUTHORITY)]).toString("latin1"));
  await until(() => answer !== undefined, "the request");
  client.socket.end();
  answer!();
  await client.untilText("late");
  await client.untilEnd();
});

test("a rapid reset ends the connection, and leaves nothing behind (CVE-2023-44487)", async () => {
  await using server = await rawServer(() => undefined);
  await using edge = await rig([server.port], {
    clusters: [cluster("api.shop", [server.port])],
    routes: [],
    listener: LOCAL,
  });
  await using client = await edge.client();
  const pairs = Array.from({ length: 1_000 }, (_, index) => [
    headers(2 * index + 1, GET),
    frame(3, 0, 2 * index + 1, "00000008"),
  ]);
  client.write(Buffer.concat([HELLO, ...pairs.flat()]).toString("latin1"));
  await client.untilEnd();
  expect(client.text).toContain("too many streams were reset");
  await until(() => edge.events.length >= 200, "the events");
  expect(edge.events.length).toBeLessThan(300);
});
