import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { MeshConfig } from "../../model/mesh.ts";
import { LOCAL, answering, cluster, get, ok, rawServer, rig, until, untilMetric } from "./kit.ts";

const LISTENER = { kind: "edge", id: "public", proxyProtocolFrom: ["127.0.0.0/8"] } as const;
const V4 = "PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\n";
const V4_BINARY = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\xd4\x31\x01\xbb";
const V6 = "PROXY TCP6 2001:db8::1 2001:db8::2 54321 443\r\n";
const V6_ENDS = `\x20\x01\x0d\xb8${"\0".repeat(11)}\x01\x20\x01\x0d\xb8${"\0".repeat(11)}\x02`;
const V6_BINARY = `\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24${V6_ENDS}\xd4\x31\x01\xbb`;
const LOCAL_BINARY = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

const told = (ports: readonly number[], proxyProtocol: "v1" | "v2", more: Record<string, unknown> = {}) =>
  cluster("web.shop", ports, {
    endpoints: ports.map((port, at) => ({
      id: `i${at}`,
      host: "127.0.0.1",
      port,
      release: 1,
      proxyProtocol,
    })),
    ...more,
  });

/** Answers every request, whatever came before the first. */
const hello = answering(() => ok("hello"));

test.for([
  { version: "v1", from: V4, header: V4 },
  { version: "v2", from: V4, header: V4_BINARY },
  { version: "v1", from: V6, header: V6 },
  { version: "v2", from: V6, header: V6_BINARY },
] as const)("an upstream that expects $version is told of the client behind $from", async (row) => {
  await using server = await rawServer(hello);
  await using edge = await rig([], { clusters: [told([server.port], row.version)], listener: LISTENER });
  await edge.ask(row.from + get("/a"), "hello");
  expect(server.received[0]!.startsWith(`${row.header}GET /a HTTP/1.1\r\n`)).toBe(true);
  await until(() => edge.events.length === 1, "the record");
  expect(edge.events[0]!.client).toBe(row.from.split(" ")[2]);
});

test("without a header of its own, the client's connection is what is told", async () => {
  await using server = await rawServer(hello);
  await using edge = await rig([], { clusters: [told([server.port], "v1")] });
  await using client = await edge.client();
  client.write(get());
  await client.untilText("hello");
  const header = `PROXY TCP4 127.0.0.1 127.0.0.1 ${client.socket.localPort} ${edge.port}\r\n`;
  expect(server.received[0]!.startsWith(header)).toBe(true);
});

test("a kept connection serves the client it was introduced with, and nobody else", async () => {
  await using server = await rawServer(hello);
  await using edge = await rig([], { clusters: [told([server.port], "v1")], listener: LISTENER });
  await using first = await edge.client();
  await using second = await edge.client();
  first.write(V4 + get("/1"));
  await first.untilText("hello");
  second.write(V6 + get("/2"));
  await second.untilText("hello");
  first.text = "";
  first.write(get("/3"));
  await first.untilText("hello");
  const requests = server.received.map((bytes) => bytes.match(/PROXY TCP.|GET \S+/g));
  expect(requests).toEqual([
    ["PROXY TCP4", "GET /1", "GET /3"],
    ["PROXY TCP6", "GET /2"],
  ]);
});

test("where no more connections may be opened, another client's idle one makes way", async () => {
  await using server = await rawServer(hello);
  const clusters = [told([server.port], "v1", { policy: { connectionsPerEndpointMax: 1 } })];
  await using edge = await rig([], { clusters, listener: LISTENER });
  await using first = await edge.client();
  first.write(V4 + get());
  await first.untilText("hello");
  await edge.ask(V6 + get(), "hello");
  expect(server.sockets).toHaveLength(2);
  await untilMetric(edge, 'gilliam_connections{side="upstream"', 1);
});

test.for([
  { version: "v1", header: "PROXY UNKNOWN\r\n" },
  { version: "v2", header: LOCAL_BINARY },
] as const)("TCP from an instance: $version says that nobody is named", async ({ version, header }) => {
  await using server = await rawServer((socket) => socket.on("data", () => socket.end("bye")));
  const clusters = [told([server.port], version, { name: "api.shop", protocol: "tcp" })];
  await using mesh = await rig([], { clusters, routes: [], listener: { ...LOCAL, protocol: "tcp" } });
  await using client = await mesh.client();
  client.write("hello");
  await client.untilText("bye");
  await until(() => server.received[0]!.endsWith("hello"), "the bytes behind the header");
  expect(server.received[0]).toBe(`${header}hello`);
});

test("a cluster of HTTP/2 cannot be told of a client", async () => {
  await using edge = await rig([]);
  const clusters = [told([1], "v1", { protocol: "grpc" })];
  const config = MeshConfig.parse({ epoch: 2, clusters, edges: [], routes: [] });
  expect(edge.engine.apply(config)).toEqual({
    ok: false,
    reason:
      'cluster "web.shop" speaks grpc, whose connections are shared by many clients: no PROXY header can name one',
  });
});

test("connections are counted by the address in the header", async () => {
  await using server = await rawServer(hello);
  const limits = { connectionsPerClientMax: 1 };
  await using edge = await rig([server.port], { listener: LISTENER, limits });
  await using first = await edge.client();
  first.write(V4 + get());
  await first.untilText("hello");
  expect(await edge.ask(V4 + get())).toContain("this client has 1 open connections already");
  expect(await edge.ask(V6 + get(), "hello")).toContain("200 OK");
  await first[Symbol.asyncDispose]();
  await untilMetric(edge, 'gilliam_connections{side="downstream"', 0);
  expect(await edge.ask(V4 + get(), "hello")).toContain("200 OK");
});

test.for(["v1", "v2"] as const)("HAProxy takes what we write: %s", async (version) => {
  await using haproxy = await startHaproxy();
  await using edge = await rig([], { clusters: [told([haproxy.port], version)], listener: LISTENER });
  for (const [from, seen] of [
    [V4, "192.0.2.1 54321 198.51.100.2 443"],
    [V6, "2001:db8::1 54321 2001:db8::2 443"],
  ] as const) {
    expect(await edge.ask(from + get(), "seen: ")).toContain(`seen: ${seen}`);
  }
});

/** HAProxy on a socket that we opened, so that no port is chosen here; it answers with what it was told. */
async function startHaproxy(): Promise<AsyncDisposable & { readonly port: number }> {
  const folder = mkdtempSync(join(tmpdir(), "gilliam-haproxy-"));
  const socket = net.createServer();
  await new Promise<void>((resolve) => socket.listen(0, "127.0.0.1", resolve));
  const { port } = socket.address() as net.AddressInfo;
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const config = join(folder, "haproxy.cfg");
  writeFileSync(
    config,
    [
      "defaults",
      "  mode http",
      "  timeout client 10s",
      "frontend all",
      "  bind fd@3 accept-proxy",
      '  http-request return status 200 content-type text/plain lf-string "seen: %[src] %[src_port] %[dst] %[dst_port]"',
      "",
    ].join("\n"),
  );
  const child = spawn("haproxy", ["-db", "-f", config], { stdio: ["ignore", "ignore", "pipe", fd] });
  const exited = new Promise<void>((resolve) => child.once("close", () => resolve()));
  socket.close();
  // Connections wait in the socket's queue until it accepts.
  return {
    port,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGTERM");
      await exited;
      rmSync(folder, { recursive: true });
    },
  };
}
