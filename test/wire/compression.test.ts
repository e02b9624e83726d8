import { randomBytes } from "node:crypto";
import zlib from "node:zlib";
import { expect, test } from "vitest";
import { askHttp2 } from "./http2-client.ts";
import { answering, get, ok, rawServer, rig, until } from "./kit.ts";

/** Compression on a route, through raw sockets: what clients get, what is left alone, and what a slow one costs. */

const ROUTE = {
  id: "r",
  host: "shop.test",
  path: "/",
  cluster: "web.shop",
  actions: { compress: { codings: ["zstd", "br", "gzip"], bytesMin: 1024 } },
};
const PAGE = "<p>the same again</p>\n".repeat(500);
const HTML = "Content-Type: text/html\r\n";
const DECODERS: Record<string, (bytes: Buffer) => Buffer> = {
  gzip: (bytes) => zlib.gunzipSync(bytes),
  br: (bytes) => zlib.brotliDecompressSync(bytes),
  zstd: (bytes) => zlib.zstdDecompressSync(bytes),
};

/** The content of a chunked message. */
function unchunked(message: string): Buffer {
  const pieces: string[] = [];
  let rest = message.slice(message.indexOf("\r\n\r\n") + 4);
  for (;;) {
    const line = rest.indexOf("\r\n");
    const size = Number.parseInt(rest.slice(0, line), 16);
    if (line < 0 || size === 0) return Buffer.from(pieces.join(""), "latin1");
    pieces.push(rest.slice(line + 2, line + 2 + size));
    rest = rest.slice(line + 4 + size);
  }
}

test.for(["gzip", "br", "zstd"])("a page comes as %s on both protocols, and is the page", async (coding) => {
  await using server = await rawServer(answering(() => ok(PAGE, `${HTML}ETag: "v1"\r\n`)));
  await using edge = await rig([server.port], { routes: [ROUTE] });
  await using client = await edge.client();
  client.write(get("/", `Accept-Encoding: ${coding}\r\n`).repeat(2));
  await client.until(({ text }) => text.split("\r\n0\r\n\r\n").length === 3, "two whole answers");
  const first = client.text.slice(0, client.text.indexOf("\r\n0\r\n\r\n") + 7);
  expect(first).toContain(`ETag: W/"v1"\r\ncontent-encoding: ${coding}\r\nvary: accept-encoding\r\n`);
  expect(first).not.toMatch(/content-length/i);
  expect(first.length).toBeLessThan(1500);
  expect(DECODERS[coding]!(unchunked(first)).toString()).toBe(PAGE);
  const { head, bytes } = await askHttp2(edge.port, { "accept-encoding": coding });
  expect([head["content-encoding"], head["vary"]]).toEqual([coding, "accept-encoding"]);
  expect(DECODERS[coding]!(bytes).toString()).toBe(PAGE);
  expect(edge.events.map(({ status, reason }) => [status, reason])).toEqual([
    [200, ""],
    [200, ""],
    [200, ""],
  ]);
});

test("who does not ask, and what is no text or small, gets it as it is", async () => {
  const bodies: Record<string, string> = {
    "/page": ok(PAGE, HTML),
    "/small": ok("<p>", HTML),
    "/image": ok(PAGE, "Content-Type: image/png\r\n"),
  };
  await using server = await rawServer(answering((head) => bodies[head.split(" ")[1]!]!));
  await using edge = await rig([server.port], { routes: [ROUTE] });
  const plain = await edge.ask(get("/page"), PAGE);
  expect(plain).toContain("vary: accept-encoding\r\n");
  expect(plain).toContain(`content-length: ${PAGE.length}\r\n`);
  const accept = "Accept-Encoding: gzip\r\n";
  expect(await edge.ask(get("/small", accept), "<p>")).not.toContain("vary");
  expect(await edge.ask(get("/image", accept), PAGE)).not.toContain("content-encoding");
});

test("events are not compressed, and a page that comes in pieces is flushed piece by piece", async () => {
  let more: () => void = () => undefined;
  await using server = await rawServer((socket) => {
    socket.on("data", (bytes: Buffer) => {
      const type = bytes.includes("/events") ? "text/event-stream" : "text/plain";
      socket.write(
        `HTTP/1.1 200 OK\r\ncontent-type: ${type}\r\ntransfer-encoding: chunked\r\n\r\n7\r\ndata: 1\r\n`,
      );
      more = () => socket.write("7\r\ndata: 2\r\n0\r\n\r\n");
    });
  });
  await using edge = await rig([server.port], { routes: [ROUTE] });
  await using events = await edge.client();
  events.write(get("/events", "Accept-Encoding: gzip\r\n"));
  await events.untilText("data: 1");
  more();
  await events.untilText("data: 2");
  await using pieces = await edge.client();
  pieces.write(get("/pieces", "Accept-Encoding: gzip\r\n"));
  const partly = () =>
    zlib
      .gunzipSync(unchunked(`${pieces.text}0\r\n`), { finishFlush: zlib.constants.Z_SYNC_FLUSH })
      .toString();
  await pieces.until(
    ({ text }) => text.includes("\r\n\r\n") && text.length > 150 && partly() === "data: 1",
    "the first piece",
  );
  more();
  await pieces.untilText("\r\n0\r\n\r\n");
  expect(zlib.gunzipSync(unchunked(pieces.text)).toString()).toBe("data: 1data: 2");
});

/** Longer than a compressor looks back, so that it finds nothing said twice. */
const NOISE = randomBytes(1_000_000).toString("base64");

test("an endless response to a client that does not read stops at bounded memory, and ends with it", async () => {
  let sent = 0;
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      socket.write("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n");
      const pump = () => {
        for (;;) {
          const from = sent % (NOISE.length - 16_384);
          sent += 16_384;
          if (!socket.write(`4000\r\n${NOISE.slice(from, from + 16_384)}\r\n`)) break;
        }
      };
      socket.on("drain", pump);
      pump();
    });
  });
  await using edge = await rig([server.port], { routes: [ROUTE] });
  const client = await edge.client();
  client.socket.pause();
  client.write(get("/", "Accept-Encoding: gzip\r\n"));
  let before = -1;
  await until(() => sent > 0, "the first bytes");
  for (let still = 0; still < 20;) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    still = sent === before ? still + 1 : 0;
    before = sent;
  }
  expect(sent).toBeLessThan(64 * 1024 * 1024);
  client.socket.destroy();
  await until(() => edge.events.length === 1, "the end of the exchange");
  await until(() => server.sockets[0]!.destroyed, "the upstream connection to be closed");
  expect(edge.events[0]?.reason).toBe("client_gone");
});
