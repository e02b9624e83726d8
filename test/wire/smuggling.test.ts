import { expect, test } from "vitest";
import { answering, get, ok, rawServer, rig, until } from "./kit.ts";

const HOST = "Host: shop.test\r\n";
/** What an attacker would like to slip through. */
const INNER = "GET /inner HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/** Nothing of these may reach an upstream, not even partly; the connection ends. */
test.for([
  [
    "both framings",
    `POST / HTTP/1.1\r\n${HOST}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${INNER}`,
    400,
  ],
  [
    "both framings, the other way round",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n`,
    400,
  ],
  ["two lengths", `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello`, 400],
  ["two equal lengths", `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`, 400],
  ["a list of lengths", `POST / HTTP/1.1\r\n${HOST}Content-Length: 5, 5\r\n\r\nhello`, 400],
  ["a signed length", `POST / HTTP/1.1\r\n${HOST}Content-Length: +5\r\n\r\nhello`, 400],
  ["a negative length", `POST / HTTP/1.1\r\n${HOST}Content-Length: -1\r\n\r\n`, 400],
  ["a hexadecimal length", `POST / HTTP/1.1\r\n${HOST}Content-Length: 0x5\r\n\r\nhello`, 400],
  ["a length beyond 2^53", `POST / HTTP/1.1\r\n${HOST}Content-Length: 9007199254740993\r\n\r\n`, 400],
  ["an empty length", `POST / HTTP/1.1\r\n${HOST}Content-Length:\r\n\r\n`, 400],
  ["a length with an underscore", `POST / HTTP/1.1\r\n${HOST}Content_Length: 5\r\n\r\nhello`, 400],
  [
    "chunked and something",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`,
    400,
  ],
  [
    "something and chunked",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
    501,
  ],
  [
    "chunked twice",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    400,
  ],
  [
    "a coding with a vertical tab",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: \u000bchunked\r\n\r\n0\r\n\r\n`,
    400,
  ],
  ["a quoted coding", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n`, 400],
  ["chunked in HTTP/1.0", `POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
  [
    "white space before the colon",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`,
    400,
  ],
  ["a folded field", `POST / HTTP/1.1\r\n${HOST}X: a\r\n Transfer-Encoding: chunked\r\n\r\n`, 400],
  ["white space before the first field", `GET / HTTP/1.1\r\n ${HOST}\r\n`, 400],
  ["a bare LF in a field", `GET / HTTP/1.1\r\n${HOST}X: a\nTransfer-Encoding: chunked\r\n\r\n`, 400],
  ["a bare CR in a field", `GET / HTTP/1.1\r\n${HOST}X: a\rTransfer-Encoding: chunked\r\n\r\n`, 400],
  ["bare LF line ends", `GET / HTTP/1.1\nHost: shop.test\n\n`, 400],
  ["a NUL in a value", `GET / HTTP/1.1\r\n${HOST}X: a\u0000b\r\n\r\n`, 400],
  ["a NUL in a name", `GET / HTTP/1.1\r\n${HOST}X\u0000Y: a\r\n\r\n`, 400],
  ["a name that is empty", `GET / HTTP/1.1\r\n${HOST}: a\r\n\r\n`, 400],
  ["a field without a colon", `GET / HTTP/1.1\r\n${HOST}XY\r\n\r\n`, 400],
  ["a non-ASCII name", `GET / HTTP/1.1\r\n${HOST}X\u00e9: a\r\n\r\n`, 400],
  ["no host", "GET / HTTP/1.1\r\n\r\n", 400],
  ["two hosts", `GET / HTTP/1.1\r\n${HOST}Host: other.test\r\n\r\n`, 400],
  ["a host with a user", "GET / HTTP/1.1\r\nHost: a@shop.test\r\n\r\n", 400],
  ["a host with a path", "GET / HTTP/1.1\r\nHost: shop.test/x\r\n\r\n", 400],
  ["a host with a space", "GET / HTTP/1.1\r\nHost: shop test\r\n\r\n", 400],
  ["a host with two ports", "GET / HTTP/1.1\r\nHost: shop.test:80:81\r\n\r\n", 400],
  ["OPTIONS for a URL without a path", `OPTIONS http://shop.test HTTP/1.1\r\n${HOST}\r\n`, 400],
  ["a URL for another host", `GET http://other.test/ HTTP/1.1\r\n${HOST}\r\n`, 400],
  ["a URL of another scheme", `GET ftp://shop.test/ HTTP/1.1\r\n${HOST}\r\n`, 400],
  ["HTTP/0.9", "GET /\r\n", 400],
  ["HTTP/1.2", `GET / HTTP/1.2\r\n${HOST}\r\n`, 505],
  ["HTTP/2 without its preface", `GET / HTTP/2.0\r\n${HOST}\r\n`, 505],
  ["lower-case http", `GET / http/1.1\r\n${HOST}\r\n`, 400],
  ["CONNECT", `CONNECT shop.test:80 HTTP/1.1\r\n${HOST}\r\n`, 405],
  ["PRI, which is HTTP/2's", `PRI /x HTTP/1.1\r\n${HOST}\r\n`, 405],
  ["TRACE", `TRACE / HTTP/1.1\r\n${HOST}\r\n`, 405],
  ["a path with a space", `GET /a b HTTP/1.1\r\n${HOST}\r\n`, 400],
  ["two spaces before the path", `GET  / HTTP/1.1\r\n${HOST}\r\n`, 400],
  ["a tab before the path", `GET\t/ HTTP/1.1\r\n${HOST}\r\n`, 400],
  ["a fragment", `GET /#a HTTP/1.1\r\n${HOST}\r\n`, 400],
  ["a path in Latin-1", `GET /\u00e9 HTTP/1.1\r\n${HOST}\r\n`, 400],
  ["a path with dot segments", `GET /a/../b HTTP/1.1\r\n${HOST}\r\n`, 400],
  ["a path with encoded dot segments", `GET /a/%2e%2E/b HTTP/1.1\r\n${HOST}\r\n`, 400],
  ["a path with a backslash", `GET /a\\..\\b HTTP/1.1\r\n${HOST}\r\n`, 400],
  [
    "an upgrade with a body",
    `GET / HTTP/1.1\r\n${HOST}Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx`,
    400,
  ],
  [
    "an upgrade to two protocols",
    `GET / HTTP/1.1\r\n${HOST}Connection: upgrade\r\nUpgrade: websocket, x\r\n\r\n`,
    400,
  ],
  ["Connection: host", `GET / HTTP/1.1\r\n${HOST}Connection: host\r\n\r\n`, 400],
  [
    "Connection: content-length",
    `POST / HTTP/1.1\r\n${HOST}Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello`,
    400,
  ],
  [
    "Connection: authorization",
    `GET / HTTP/1.1\r\n${HOST}Connection: close, Authorization\r\nAuthorization: x\r\n\r\n`,
    400,
  ],
  [
    "an unknown expectation",
    `POST / HTTP/1.1\r\n${HOST}Expect: miracles\r\nContent-Length: 5\r\n\r\nhello`,
    417,
  ],
  ["a TLS hello", "\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001", 400],
  ["too many fields", `GET / HTTP/1.1\r\n${HOST}${"X: y\r\n".repeat(200)}\r\n`, 431],
  ["a head too large", `GET / HTTP/1.1\r\n${HOST}X: ${"y".repeat(40_000)}\r\n\r\n`, 431],
  ["a head without an end", `GET / HTTP/1.1\r\n${HOST}X: ${"y".repeat(80_000)}`, 431],
  ["a target too long", `GET /${"y".repeat(9_000)} HTTP/1.1\r\n${HOST}\r\n`, 414],
  ["a chunk size with 0x", chunked("0x5\r\nhello\r\n0\r\n\r\n"), 400],
  ["a chunk size with a space", chunked("5 \r\nhello\r\n0\r\n\r\n"), 400],
  ["a signed chunk size", chunked("+5\r\nhello\r\n0\r\n\r\n"), 400],
  ["a negative chunk size", chunked("-1\r\nhello\r\n0\r\n\r\n"), 400],
  ["an empty chunk size", chunked("\r\nhello\r\n0\r\n\r\n"), 400],
  ["a chunk size beyond 2^52", chunked("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), 400],
  ["a chunk size with a bare LF", chunked("5\nhello\r\n0\r\n\r\n"), 400],
  ["a chunk longer than its size", chunked("4\r\nhello\r\n0\r\n\r\n"), 400],
  ["a chunk that ends in a bare LF", chunked("5\r\nhello\n0\r\n\r\n"), 400],
  ["a chunk extension with a bare LF", chunked("5;a\nhello\r\n0\r\n\r\n"), 400],
  ["a chunk extension with white space", chunked("5; a=b\r\nhello\r\n0\r\n\r\n"), 400],
  ["a trailer with a length", chunked("0\r\nContent-Length: 5\r\n\r\n"), 400],
  ["a folded trailer", chunked("0\r\nX: y\r\n z\r\n\r\n"), 400],
  ["a trailer with a bare LF", chunked("0\r\nX: y\n\r\n"), 400],
] as const)("refused: %s", async ([, text, status]) => {
  await using server = await rawServer(answering(() => ok("reached")));
  await using edge = await rig([server.port]);
  const answer = await edge.ask(text);
  expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  expect(answer.match(/HTTP\/1\.1 \d/g)).toHaveLength(1);
  expect(answer).toContain("connection: close\r\n");
  expect(answer).toContain("x-gilliam-reason: ");
  expect(server.received.join("")).toBe("");
  expect(edge.events).toHaveLength(1);
});

function chunked(body: string): string {
  return `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n${body}`;
}

/** These are unusual and right. */
test.for([
  [
    "a URL for the host",
    `GET http://shop.test/x HTTP/1.1\r\n${HOST}\r\n`,
    "GET /x HTTP/1.1\r\nhost: shop.test\r\n",
  ],
  ["a URL without a path", `GET http://SHOP.test?q HTTP/1.1\r\n${HOST}\r\n`, "GET /?q HTTP/1.1\r\n"],
  ["OPTIONS for the whole server", `OPTIONS * HTTP/1.1\r\n${HOST}\r\n`, "OPTIONS * HTTP/1.1\r\n"],
  ["one empty line before", `\r\n${get("/x")}`, "GET /x HTTP/1.1\r\n"],
  ["a port in the host", "GET /x HTTP/1.1\r\nHost: Shop.Test:8080\r\n\r\n", "host: Shop.Test:8080\r\n"],
  ["an unknown method", `BREW /x HTTP/1.1\r\n${HOST}\r\n`, "BREW /x HTTP/1.1\r\n"],
  ["no white space behind the colon", "GET /x HTTP/1.1\r\nHost:shop.test\r\nX:y\r\n\r\n", "X:y\r\n"],
  [
    "h2c offered: ignored",
    get("/x", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n"),
    "GET /x HTTP/1.1\r\n",
  ],
  ["upgrade without Connection: ignored", get("/x", "Upgrade: websocket\r\n"), "GET /x HTTP/1.1\r\n"],
] as const)("accepted: %s", async ([, text, expected]) => {
  await using server = await rawServer(answering(() => ok("reached")));
  await using edge = await rig([server.port]);
  expect(await edge.ask(text, "reached")).toMatch(/^HTTP\/1\.1 200 /);
  expect(server.received[0]).toContain(expected);
  expect(server.received[0]).not.toMatch(/upgrade|http2-settings/i);
});

test("fields that Connection lists are for one hop only, and forgeries of ours go nowhere", async () => {
  await using server = await rawServer(answering(() => ok("reached")));
  await using edge = await rig([server.port]);
  const forged =
    "Connection: X-Secret, close\r\nX-Secret: 1\r\nX-Kept: 2\r\nX_Forwarded_For: 6.6.6.6\r\nx-gilliam_from: root\r\n" +
    "Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Port: 6\r\nTE: gzip\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n";
  await edge.ask(get("/", forged));
  expect(server.received[0]).toContain("X-Kept: 2\r\n");
  expect(server.received[0]).not.toMatch(
    /secret|6\.6\.6\.6|root|keep-alive|proxy-connection|\r\nte:|connection/i,
  );
  expect(server.received[0]!.match(/x-gilliam-from/g)).toHaveLength(1);
});

test("behind an error nothing of a pipeline is served", async () => {
  await using server = await rawServer(answering(() => ok("reached")));
  await using edge = await rig([server.port]);
  const answer = await edge.ask(`${get("/first")}GET / HTTP/1.1\r\n\r\n${INNER}`);
  expect(answer.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 400"]);
  expect(server.received.join("")).not.toContain("inner");
});

test("a body that breaks off is never completed for the upstream", async () => {
  await using server = await rawServer(() => undefined);
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write(chunked("5\r\nhello\r\n"));
  await until(() => server.received[0]?.includes("hello") ?? false, "the first chunk");
  client.write("zzz\r\n");
  await client.untilEnd();
  expect(client.text).toContain("x-gilliam-reason: bad_chunk\r\n");
  await until(() => server.sockets[0]!.destroyed || server.sockets[0]!.readableEnded, "the end upstream");
  expect(server.received[0]).not.toContain("0\r\n\r\n");
});

test("a request cut at every byte is one request", async () => {
  await using server = await rawServer((socket) => {
    let text = "";
    socket.on("data", (bytes: Buffer) => {
      text += bytes.toString("latin1");
      if (!text.endsWith("0\r\nt: x\r\n\r\n")) return;
      text = "";
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
  });
  await using edge = await rig([server.port]);
  const text = `POST /a HTTP/1.1\r\n${HOST}X-A: b\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nT: x\r\n\r\n`;
  await using client = await edge.client();
  for (let cut = 1; cut < text.length; cut += 1) {
    client.text = "";
    client.write(text.slice(0, cut));
    await new Promise(setImmediate);
    client.write(text.slice(cut));
    await client.untilText("\r\n\r\nok");
  }
  client.text = "";
  for (const byte of text) {
    client.write(byte);
    await new Promise(setImmediate);
  }
  await client.untilText("\r\n\r\nok");
  expect(edge.events).toHaveLength(text.length);
  expect(edge.events.every(({ status, bytesIn }) => status === 200 && bytesIn === 19)).toBe(true);
});
