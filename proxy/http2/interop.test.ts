import { once } from "node:events";
import http2 from "node:http2";
import net from "node:net";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, describe, expect, test } from "vitest";
import { Connection } from "./connection.ts";
import type { ConnectionEvents } from "./events.ts";
import { defaultHttp2Limits } from "./limits.ts";
import { createFlushBatch } from "./output.ts";
import type { Stream } from "./stream.ts";

/** Ours against Node's own HTTP/2 (nghttp2), over real sockets, in both roles. */

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

function attach(
  socket: net.Socket,
  role: "server" | "client",
  events: (self: () => Connection) => ConnectionEvents,
) {
  const connection: Connection = new Connection({
    role,
    limits: defaultHttp2Limits(),
    schedule: createFlushBatch(),
    nowMs: () => performance.now(),
    write: (bytes) => socket.write(bytes),
    events: events(() => connection),
  });
  socket.on("data", (bytes: Buffer) => connection.receive(bytes));
  socket.on("drain", () => connection.writable());
  socket.on("error", () => {});
  socket.on("close", () => connection.abort("socket closed"));
  closers.push(() => socket.destroy());
  return connection;
}

/** A server of ours that echoes content and, behind it, how much it was. */
async function startEcho(): Promise<number> {
  const server = net.createServer((socket) => {
    const sizes = new Map<Stream, number>();
    attach(socket, "server", (self) => ({
      onHead: (stream, head, end) => {
        if (head.path === "/missing") return self().respond(stream, 404, ["x-path", head.path], true);
        self().respond(stream, 200, ["content-type", "text/plain", "x-method", head.method], end);
      },
      onData: (stream, bytes, start, end, endStream) => {
        sizes.set(stream, (sizes.get(stream) ?? 0) + end - start);
        self().sendData(stream, bytes, start, end, false);
        self().consumed(stream, end - start);
        if (endStream) self().sendTrailers(stream, ["x-size", String(sizes.get(stream))]);
      },
      onTrailers: (stream, fields) => self().sendTrailers(stream, fields),
      onReset: () => {},
      onClose: () => socket.end(),
    }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  closers.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

async function openNodeClient(port: number): Promise<http2.ClientHttp2Session> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  closers.push(() => session.destroy());
  await once(session, "connect");
  return session;
}

describe("our server, Node's client", () => {
  test("a request without content", async () => {
    const session = await openNodeClient(await startEcho());
    const request = session.request({ ":path": "/missing" });
    const [head] = (await once(request, "response")) as [http2.IncomingHttpHeaders];
    expect(head[":status"]).toBe(404);
    expect(head["x-path"]).toBe("/missing");
  });

  test("a megabyte there and back, with trailers", async () => {
    const session = await openNodeClient(await startEcho());
    const sent = "0123456789abcdef".repeat(65_536);
    const request = session.request({ ":path": "/", ":method": "POST" });
    request.end(sent);
    const trailers = once(request, "trailers") as Promise<[http2.IncomingHttpHeaders]>;
    expect(await text(request)).toBe(sent);
    expect((await trailers)[0]["x-size"]).toBe("1048576");
  });

  test("a hundred at once, each with its own content", async () => {
    const session = await openNodeClient(await startEcho());
    const echo = async (index: number) => {
      const request = session.request({ ":path": `/${index}`, ":method": "POST", "x-index": String(index) });
      request.end(`content ${index}`);
      return text(request);
    };
    const all = Array.from({ length: 100 }, (_, index) => index);
    expect(await Promise.all(all.map(echo))).toEqual(all.map((index) => `content ${index}`));
  });

  test("request trailers come through", async () => {
    const session = await openNodeClient(await startEcho());
    const request = session.request({ ":path": "/", ":method": "POST" }, { waitForTrailers: true });
    request.on("wantTrailers", () => request.sendTrailers({ "x-sum": "42" }));
    request.end("abc");
    request.resume();
    const [trailers] = (await once(request, "trailers")) as [http2.IncomingHttpHeaders];
    expect(trailers["x-sum"]).toBe("42");
  });

  test("a ping", async () => {
    const session = await openNodeClient(await startEcho());
    const payload = await new Promise<Buffer>((resolve, reject) => {
      session.ping(Buffer.from("12345678"), (error, _duration, bytes) =>
        error ? reject(error) : resolve(bytes),
      );
    });
    expect(payload.toString()).toBe("12345678");
  });
});

describe("our client, Node's server", () => {
  interface Answer {
    status: number;
    fields: readonly string[];
    content: string;
    trailers: readonly string[];
  }

  async function openClient(
    onStream: (stream: http2.ServerHttp2Stream, head: http2.IncomingHttpHeaders) => void,
  ) {
    const server = http2.createServer();
    server.on("stream", onStream);
    server.on("session", (session) => closers.push(() => session.destroy()));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    closers.push(() => server.close());
    const socket = net.connect((server.address() as AddressInfo).port, "127.0.0.1");
    await once(socket, "connect");
    const waiting = new Map<
      Stream,
      { answer: Answer; resolve: (answer: Answer) => void; reject: (error: Error) => void }
    >();
    const finish = (stream: Stream) => {
      const { answer, resolve } = waiting.get(stream)!;
      resolve(answer);
    };
    const connection = attach(socket, "client", (self) => ({
      onHead: (stream, head, end) => {
        Object.assign(waiting.get(stream)!.answer, { status: head.status, fields: head.fields });
        if (end) finish(stream);
      },
      onData: (stream, bytes, start, end, endStream) => {
        waiting.get(stream)!.answer.content += bytes.latin1Slice(start, end);
        self().consumed(stream, end - start);
        if (endStream) finish(stream);
      },
      onTrailers: (stream, fields) => {
        waiting.get(stream)!.answer.trailers = fields;
        finish(stream);
      },
      onReset: (stream, _, reason) => waiting.get(stream)!.reject(new Error(reason)),
      onClose: () => socket.end(),
    }));
    return (method: string, path: string, fields: readonly string[], content: string) =>
      new Promise<Answer>((resolve, reject) => {
        const target = { method, scheme: "http", authority: "a.test", path };
        const stream = connection.request(target, fields, content === "")!;
        const answer: Answer = { status: 0, fields: [], content: "", trailers: [] };
        waiting.set(stream, { answer, resolve, reject });
        if (content !== "") connection.sendData(stream, Buffer.from(content), 0, content.length, true);
      });
  }

  test("exchanges with content, fields and trailers", async () => {
    const ask = await openClient((stream, head) => {
      stream.respond({ ":status": 201, "x-was": head["x-is"] }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.pipe(stream);
    });
    const content = "q".repeat(300_000);
    for (let turn = 0; turn < 4; turn++) {
      const answer = await ask("POST", "/", ["X-Is", "this"], content);
      expect(answer.status).toBe(201);
      expect(answer.fields).toContain("this");
      expect(answer.content).toBe(content);
      expect(answer.trailers).toEqual(["grpc-status", "0"]);
    }
  });

  test("a stream the server resets", async () => {
    const ask = await openClient((stream) => {
      stream.on("error", () => {});
      stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
    });
    await expect(ask("GET", "/", [], "")).rejects.toThrow("REFUSED_STREAM");
  });

  test("a hundred at once", async () => {
    const ask = await openClient(
      (stream, head) => stream.respond({ ":status": 200 }) ?? stream.end(head[":path"]),
    );
    const all = Array.from({ length: 100 }, (_, index) => `/${index}`);
    const answers = await Promise.all(all.map((path) => ask("GET", path, [], "")));
    expect(answers.map(({ content }) => content)).toEqual(all);
  });
});
