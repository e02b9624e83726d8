import { expect, test } from "vitest";
import { RawClient, answering, get, ok, rawServer, until } from "../kit.ts";
import { TlsClient, pair, tlsRig } from "./kit.ts";

const FAILURES = "gilliam_tls_handshake_failures_total";

test.for(["TLSv1.2", "TLSv1.3"] as const)("requests are answered over %s", async (version) => {
  await using server = await rawServer(answering((_, count) => ok(`answer ${count}`)));
  await using edge = await tlsRig([server.port]);
  await using client = await TlsClient.connect(edge.port, { minVersion: version, maxVersion: version });
  for (let count = 0; count < 3; count += 1) {
    client.write(get());
    await client.untilText(`answer ${count}`);
  }
  expect(client.socket.getProtocol()).toBe(version);
  expect(server.received[0]).toContain("x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: https\r\n");
  expect(server.sockets).toHaveLength(1);
});

test("a version that is too old is refused, and counted", async () => {
  await using edge = await tlsRig([]);
  const old = { minVersion: "TLSv1.1", maxVersion: "TLSv1.1", ciphers: "ALL@SECLEVEL=0" } as const;
  await expect(TlsClient.connect(edge.port, old)).rejects.toThrow("ALERT_PROTOCOL_VERSION");
  await edge.untilMetric(1, FAILURES, 'reason="version"');
});

test.for([
  { offered: ["http/1.1"], agreed: "http/1.1" },
  { offered: ["h2", "http/1.1"], agreed: "h2" },
  { offered: ["http/1.1", "h2"], agreed: "h2" },
  { offered: ["x", "h2"], agreed: "h2" },
])("of $offered it agrees on $agreed", async ({ offered, agreed }) => {
  await using edge = await tlsRig([]);
  await using client = await TlsClient.connect(edge.port, { ALPNProtocols: offered });
  expect(client.socket.alpnProtocol).toBe(agreed);
});

test("nothing in common is a fatal alert (RFC 7301 3.2)", async () => {
  await using edge = await tlsRig([]);
  await expect(TlsClient.connect(edge.port, { ALPNProtocols: ["smtp"] })).rejects.toThrow(
    "NO_APPLICATION_PROTOCOL",
  );
  await edge.untilMetric(1, FAILURES, 'reason="alpn"');
});

test("a request without TLS on a TLS port gets an answer it can read", async () => {
  await using edge = await tlsRig([]);
  await using client = await RawClient.connect(edge.port);
  client.write(get());
  await client.untilEnd();
  expect(client.text).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
  expect(client.text).toContain("this port speaks TLS");
  await edge.untilMetric(1, FAILURES, 'reason="plain_http"');
});

test.for([
  { sent: "\x00\x01\x02 nothing that anybody knows", reason: "not_tls" },
  { sent: "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", reason: "malformed" },
])("garbage closes its connection and nothing else: $reason", async ({ sent, reason }) => {
  await using edge = await tlsRig([]);
  await using client = await RawClient.connect(edge.port);
  client.write(sent);
  await client.untilEnd();
  await edge.untilMetric(1, FAILURES, `reason="${reason}"`);
  await using other = await TlsClient.connect(edge.port);
  expect(other.secured).toBe(true);
});

test("a client that leaves during its handshake is counted", async () => {
  await using edge = await tlsRig([]);
  const client = await RawClient.connect(edge.port);
  client.socket.end();
  await edge.untilMetric(1, FAILURES, 'reason="client_gone"');
  await client[Symbol.asyncDispose]();
});

test("a handshake that does not come on is ended in time", async () => {
  await using edge = await tlsRig([], { limits: { tlsHandshakeTimeoutMs: 100 } });
  await using client = await RawClient.connect(edge.port);
  client.write("\x16\x03\x01");
  await client.untilEnd();
  await edge.untilMetric(1, FAILURES, 'reason="timeout"');
});

test("more handshakes than allowed are turned away, and later ones are not", async () => {
  await using edge = await tlsRig([], { limits: { tlsHandshakesMax: 1 } });
  const slow = await RawClient.connect(edge.port);
  slow.write("\x16\x03\x01");
  await edge.untilMetric(1, "gilliam_tls_handshakes_pending");
  await using second = await RawClient.connect(edge.port);
  await second.until(({ closed, ended }) => closed || ended, "its end");
  await edge.untilMetric(1, FAILURES, 'reason="too_many"');
  await slow[Symbol.asyncDispose]();
  await edge.untilMetric(0, "gilliam_tls_handshakes_pending");
  await using third = await TlsClient.connect(edge.port);
  expect(third.secured).toBe(true);
});

test.for(["TLSv1.2", "TLSv1.3"] as const)(
  "a second connection resumes its session over %s",
  async (version) => {
    await using server = await rawServer(answering(() => ok("hello")));
    await using edge = await tlsRig([server.port]);
    const only = { minVersion: version, maxVersion: version } as const;
    const first = await TlsClient.connect(edge.port, only);
    first.write(get());
    await first.untilText("hello");
    await first.until(({ session }) => session !== undefined, "a ticket");
    await first[Symbol.asyncDispose]();
    // New certificates and contexts in between: the keys of tickets stay.
    edge.terminator.setCertificates([await pair("default", ["shop.test"])]);
    await using second = await TlsClient.connect(edge.port, { ...only, session: first.session! });
    expect(second.socket.isSessionReused()).toBe(true);
    second.write(get());
    await second.untilText("hello");
    edge.terminator.setTicketKeys(Buffer.alloc(48, 7));
    await using third = await TlsClient.connect(edge.port, {
      ...only,
      session: first.session!,
    });
    expect(third.socket.isSessionReused()).toBe(false);
  },
);

test("a client that ends its direction still gets its answer, and then the end", async () => {
  await using server = await rawServer((socket) => {
    socket.once("data", () => setImmediate(() => socket.write(ok("late"))));
  });
  await using edge = await tlsRig([server.port]);
  await using client = await TlsClient.connect(edge.port);
  client.socket.end(get());
  await client.untilEnd();
  expect(client.text).toMatch(/late$/);
  await client.until(({ closed }) => closed, "the end");
  expect(client.error).toBe("");
});

test("an answer that breaks off is reset, never ended", async () => {
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
      setImmediate(() => socket.destroy());
    });
  });
  await using edge = await tlsRig([server.port]);
  await using client = await TlsClient.connect(edge.port);
  client.write(get());
  await client.until(({ closed }) => closed, "the end");
  expect(client.error).toBe("ECONNRESET");
  expect(client.ended).toBe(false);
});

test("bodies of 8 MiB go both ways through a slow reader, whole", async () => {
  const body = Buffer.alloc(8 * 1024 * 1024, "0123456789abcdef");
  await using server = await rawServer((socket) => {
    let left = body.length;
    socket.on("data", (bytes: Buffer) => {
      const head = bytes.indexOf("\r\n\r\n");
      left -= bytes.length - (left === body.length && head >= 0 ? head + 4 : 0);
      if (left > 0) return;
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n`);
      socket.write(body);
    });
  });
  await using edge = await tlsRig([server.port]);
  await using client = await TlsClient.connect(edge.port);
  client.socket.write(
    `POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: ${body.length}\r\n\r\n`,
    "latin1",
  );
  client.socket.write(body);
  client.socket.pause();
  await until(() => server.received[0]?.endsWith("abcdef") === true, "the first of the body");
  client.socket.resume();
  await client.until(({ text }) => text.length > body.length, "the body");
  await client.until(({ text }) => text.length - text.indexOf("\r\n\r\n") - 4 === body.length, "all of it");
  const received = client.text.slice(client.text.indexOf("\r\n\r\n") + 4);
  expect(Buffer.from(received, "latin1").equals(body)).toBe(true);
});

test("pipelined requests over TLS are answered in their order", async () => {
  await using server = await rawServer(answering((head) => ok(/GET (\S+)/.exec(head)![1]!)));
  await using edge = await tlsRig([server.port]);
  await using client = await TlsClient.connect(edge.port);
  client.write(Array.from({ length: 50 }, (_, index) => get(`/${index}/`)).join(""));
  await client.untilText("/49/");
  const order = client.text.match(/\/\d+\//g)!.map((path) => Number(path.slice(1, -1)));
  expect(order).toEqual(Array.from({ length: 50 }, (_, index) => index));
});

test("WebSocket and other upgrades go through TLS", async () => {
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst");
      socket.on("data", (bytes: Buffer) => socket.write(bytes));
      socket.on("end", () => socket.end());
    });
  });
  await using edge = await tlsRig([server.port]);
  await using client = await TlsClient.connect(edge.port);
  client.write(get("/", "Connection: upgrade\r\nUpgrade: echo\r\n"));
  await client.untilText("first");
  client.write("ping");
  await client.untilText("firstping");
  client.socket.end();
  await client.until(({ closed }) => closed, "the end");
  expect(client.error).toBe("");
});

test("two hundred aborts leave nothing open", async () => {
  await using server = await rawServer(answering(() => ok("x".repeat(50_000))));
  await using edge = await tlsRig([server.port]);
  for (let round = 0; round < 10; round += 1) {
    await Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        const client = TlsClient.open(edge.port, {});
        client.write(get());
        await client.until(
          ({ text, secured }) => index % 3 === 0 || (secured && index % 3 === 1) || text.length > 100,
          "a moment to leave",
        );
        await client[Symbol.asyncDispose]();
      }),
    );
  }
  await edge.untilMetric(0, "gilliam_connections", 'side="downstream"');
  expect(await edge.metric("gilliam_tls_handshakes_pending")).toBe(0);
  expect(await edge.metric("gilliam_in_flight")).toBe(0);
  expect(await edge.metric("gilliam_faults_total")).toBe(0);
});
