import { execFile, spawn } from "node:child_process";
import http2 from "node:http2";
import { X509Certificate } from "node:crypto";
import { expect, test } from "vitest";
import { RawClient, answering, get, ok, rawServer, until } from "../kit.ts";
import { TlsClient, pair, tlsRig } from "./kit.ts";

const FAILURES = "gilliam_tls_handshake_failures_total";
const ROUTES = ["shop.test", "a.shop.test", "b.shop.test", "other.test"].map((host) => ({
  id: host,
  host,
  path: "/",
  cluster: "web.shop",
}));
const PAIRS = Promise.all([
  pair("default", ["fallback.test"]),
  pair("exact", ["a.shop.test"]),
  pair("wild", ["*.shop.test", "shop.test"]),
]);

function shown(client: TlsClient): string {
  return new X509Certificate(client.socket.getPeerCertificate(false).raw).subjectAltName ?? "";
}

test.for([
  { name: "a.shop.test", hosts: "DNS:a.shop.test" },
  { name: "A.Shop.Test", hosts: "DNS:a.shop.test" },
  { name: "b.shop.test", hosts: "DNS:*.shop.test, DNS:shop.test" },
  { name: "shop.test", hosts: "DNS:*.shop.test, DNS:shop.test" },
  { name: "x.b.shop.test", hosts: "DNS:fallback.test" }, // A wildcard stands for one label.
  { name: "nobody.test", hosts: "DNS:fallback.test" },
  { name: "", hosts: "DNS:fallback.test" },
])("asked for '$name' it shows $hosts", async ({ name, hosts }) => {
  await using edge = await tlsRig([], { pairs: await PAIRS });
  await using client = await TlsClient.connect(edge.port, { servername: name });
  expect(shown(client)).toBe(hosts);
});

test("an unknown name is refused with an alert when the edge is set so; no name is not", async () => {
  await using edge = await tlsRig([], { pairs: await PAIRS, tls: { unknownName: "refuse" } });
  await expect(TlsClient.connect(edge.port, { servername: "nobody.test" })).rejects.toThrow(
    "UNRECOGNIZED_NAME",
  );
  await edge.untilMetric(1, FAILURES, 'reason="unknown_name"');
  await using client = await TlsClient.connect(edge.port, { servername: "" });
  expect(client.secured).toBe(true);
});

test("without any certificate a connection is closed and counted", async () => {
  await using edge = await tlsRig([], { pairs: [] });
  await using client = await RawClient.connect(edge.port);
  await client.until(({ closed, ended }) => closed || ended, "the end");
  await edge.untilMetric(1, FAILURES, 'reason="no_certificate"');
});

test("a host that the certificate is not for is misdirected, over HTTP/1.1", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await tlsRig([server.port], { pairs: await PAIRS, routes: ROUTES });
  await using client = await TlsClient.connect(edge.port, { servername: "b.shop.test" });
  client.write("GET / HTTP/1.1\r\nHost: b.shop.test:8443\r\n\r\n");
  await client.untilText("hello");
  client.write("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n");
  await client.untilText("x-gilliam-reason: misdirected");
  expect(client.text).toContain("HTTP/1.1 421 Misdirected Request\r\n");
  expect(server.received[0]).not.toContain("other.test");
});

test("HTTP/2 over TLS: answers, https is its scheme, and other hosts are misdirected", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await tlsRig([server.port], {
    pairs: await PAIRS,
    routes: ROUTES,
    tls: { hsts: "max-age=60" },
  });
  await using session = disposable(
    http2.connect(`https://127.0.0.1:${edge.port}`, { servername: "shop.test", rejectUnauthorized: false }),
  );
  const good = await ask(session.it, { ":path": "/", ":authority": "shop.test" });
  expect(good).toMatchObject({ status: 200, body: "hello" });
  expect(good.fields["strict-transport-security"]).toBe("max-age=60");
  expect(server.received[0]).toContain("x-forwarded-proto: https\r\n");
  const other = await ask(session.it, { ":path": "/", ":authority": "other.test" });
  expect(other.status).toBe(421);
  const wrong = await ask(session.it, { ":path": "/", ":authority": "shop.test", ":scheme": "http" });
  expect(wrong).toMatchObject({ status: 421 });
  expect(wrong.fields["x-gilliam-reason"]).toBe("misdirected");
});

test("HTTP/2 carries 8 MiB each way over TLS", async () => {
  const body = Buffer.alloc(8 * 1024 * 1024, "0123456789abcdef");
  await using server = await rawServer((socket) => {
    let received = 0;
    socket.on("data", (bytes: Buffer) => {
      received += bytes.length;
      if (received < body.length) return;
      received = -Infinity;
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n`);
      socket.write(body);
    });
  });
  await using edge = await tlsRig([server.port]);
  await using session = disposable(
    http2.connect(`https://127.0.0.1:${edge.port}`, { servername: "shop.test", rejectUnauthorized: false }),
  );
  const fields = {
    ":path": "/",
    ":method": "POST",
    ":authority": "shop.test",
    "content-length": body.length,
  };
  const answer = await ask(session.it, fields, body);
  expect(answer.body.length).toBe(body.length);
  expect(Buffer.from(answer.body, "latin1").equals(body)).toBe(true);
});

test("the preface of HTTP/2 on a connection that agreed on HTTP/1.1 is refused", async () => {
  await using edge = await tlsRig([]);
  await using client = await TlsClient.connect(edge.port, { ALPNProtocols: ["http/1.1"] });
  client.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  await client.untilText("HTTP/1.1 505");
});

test("certificates are replaced under load without one failed request", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await tlsRig([server.port]);
  const kept = await TlsClient.connect(edge.port);
  kept.write(get());
  await kept.untilText("hello");
  const load = { running: true, answered: 0 };
  const clients = Array.from({ length: 4 }, async () => {
    while (load.running) {
      await using client = await TlsClient.connect(edge.port);
      client.write(get());
      await client.untilText("hello");
      load.answered += 1;
    }
  });
  for (let round = 0; round < 10; round += 1) {
    const enough = load.answered + 4;
    edge.terminator.setCertificates([await pair("default", ["shop.test", `round-${round}.test`])]);
    await until(() => load.answered >= enough, "answers with it");
  }
  load.running = false;
  await Promise.all(clients);
  kept.write(get("/again"));
  await kept.until(({ text }) => text.split("hello").length === 3, "an answer on the old connection");
  await using last = await TlsClient.connect(edge.port);
  expect(shown(last)).toContain("round-9.test");
  await kept[Symbol.asyncDispose]();
});

test("a client may not renegotiate over TLS 1.2", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await tlsRig([server.port]);
  const child = spawn("openssl", ["s_client", "-connect", `127.0.0.1:${edge.port}`, "-tls1_2"], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  let out = "";
  child.stdout.on("data", (bytes: Buffer) => (out += bytes.toString()));
  child.stderr.on("data", (bytes: Buffer) => (out += bytes.toString()));
  const ended = new Promise((resolve) => child.on("close", resolve));
  await edge.untilMetric(1, "gilliam_tls_handshakes_total", 'version="TLSv1.2",resumed="false"');
  await until(() => out.includes("Verify return code"), "openssl's report");
  child.stdin.write("R\n");
  await ended;
  expect(out).toContain("no renegotiation");
});

test("curl speaks HTTP/2 and HTTP/1.1 to it, and trusts what it is told to trust", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await tlsRig([server.port]);
  const url = `https://shop.test:${edge.port}/`;
  const common = ["-sS", "-o", "/dev/null", "-w", "%{http_version} %{response_code}", "-k"];
  const resolve = ["--resolve", `shop.test:${edge.port}:127.0.0.1`];
  expect(await run("curl", [...common, ...resolve, url])).toBe("2 200");
  expect(await run("curl", [...common, ...resolve, "--http1.1", url])).toBe("1.1 200");
});

function run(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, [...args], (error, stdout) => (error === null ? resolve(stdout) : reject(error)));
  });
}

function disposable(it: http2.ClientHttp2Session): { it: http2.ClientHttp2Session } & AsyncDisposable {
  return {
    it,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => it.close(resolve)),
  };
}

interface Answer {
  readonly status: number | undefined;
  readonly fields: http2.IncomingHttpHeaders;
  readonly body: string;
}

function ask(
  session: http2.ClientHttp2Session,
  fields: http2.OutgoingHttpHeaders,
  content?: Buffer,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    session.once("error", reject);
    const stream = session.request(fields);
    let head: http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader = {};
    const pieces: Buffer[] = [];
    stream.on("response", (received) => (head = received));
    stream.on("data", (bytes: Buffer) => pieces.push(bytes));
    stream.on("error", reject);
    stream.on("end", () =>
      resolve({ status: head[":status"], fields: head, body: Buffer.concat(pieces).toString("latin1") }),
    );
    if (content === undefined) stream.end();
    else stream.end(content);
  });
}
