import { expect, test } from "vitest";
import { isNetwork } from "../../proxy/networks.ts";
import { RawClient, answering, get, ok, rawServer, rig } from "./kit.ts";
import { TlsClient, tlsRig } from "./tls/kit.ts";

const FROM = ["127.0.0.0/8"];
const LISTENER = { kind: "edge", id: "public", proxyProtocolFrom: FROM } as const;
const V1 = "PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\n";
const V2 = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\xd4\x31\x01\xbb";
const LOCAL = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const FAILURES = "gilliam_proxy_header_failures_total";

test.for([
  { what: "version 1", header: V1, client: "192.0.2.1" },
  { what: "version 2", header: V2, client: "192.0.2.1" },
  { what: "LOCAL", header: LOCAL, client: "127.0.0.1" },
])("the client is the one in the header: $what", async ({ header, client }) => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await rig([server.port], { listener: LISTENER });
  await edge.ask(header + get(), "hello");
  expect(server.received[0]).toContain(`x-forwarded-for: ${client}\r\n`);
});

test("a header and a request may come byte by byte", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await rig([server.port], { listener: LISTENER });
  await using client = await edge.client();
  for (const byte of V1 + get()) {
    client.write(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await client.untilText("hello");
  expect(server.received[0]).toContain("x-forwarded-for: 192.0.2.1\r\n");
});

test("TLS begins behind the header, also in the same read", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await tlsRig([server.port], { proxyProtocolFrom: FROM });
  const raw = await RawClient.connect(edge.port);
  raw.socket.removeAllListeners("data");
  raw.write(V1);
  await using client = TlsClient.open(edge.port, { socket: raw.socket });
  client.write(get());
  await client.untilText("hello");
  expect(server.received[0]).toContain("x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: https\r\n");
  await using plain = await RawClient.connect(edge.port);
  plain.write(V1 + get());
  await plain.untilText("this port speaks TLS");
});

test.for([
  { what: "a request without one", sent: get(), reason: "malformed" },
  { what: "garbage", sent: "\r\n\r\n\0\r\nQUIX\n", reason: "malformed" },
  { what: "nothing", sent: "PROXY ", reason: "timeout" },
])("a connection that begins with $what is closed and counted", async ({ sent, reason }) => {
  // Short only where its end is awaited: on a busy machine bytes may come later than that.
  const limits = reason === "timeout" ? { proxyHeaderTimeoutMs: 100 } : {};
  await using edge = await tlsRig([], { proxyProtocolFrom: FROM, limits });
  await using client = await RawClient.connect(edge.port);
  client.write(sent);
  await client.until(({ closed, ended }) => closed || ended, "the end");
  await edge.untilMetric(1, FAILURES, `reason="${reason}"`);
  expect(client.text).toBe("");
  await edge.untilMetric(0, "gilliam_connections", 'side="downstream"');
});

test("nobody else may speak for others", async () => {
  await using edge = await tlsRig([], { proxyProtocolFrom: ["10.0.0.0/8", "::1"] });
  await using client = await RawClient.connect(edge.port);
  await client.until(({ closed, ended }) => closed || ended, "the end");
  await edge.untilMetric(1, FAILURES, 'reason="untrusted"');
});

test.for([
  ["10.0.0.0/8", true],
  ["192.0.2.7", true],
  ["fd00::/8", true],
  ["10.0.0.0/33", false],
  ["10.0.0/8", false],
  ["10.0.0.0/8/8", false],
  ["everywhere", false],
] as const)("%s is a network: %s", ([text, is]) => {
  expect(isNetwork(text)).toBe(is);
});
