import fs from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Cluster } from "../../../model/mesh.ts";
import { TlsClient, pair } from "../tls/kit.ts";
import { type ControlDouble, startControlDouble } from "./control-double.ts";
import { type Program, endPrograms, get, startProgram } from "./program.ts";

let folder = "";
let control: ControlDouble;
let upstream: http.Server;
beforeEach(async () => {
  folder = fs.mkdtempSync(join(tmpdir(), "edge-tls-"));
  control = await startControlDouble();
  upstream = http.createServer((_, response) => response.end("from the shop"));
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
});
afterEach(async () => {
  await endPrograms();
  await control.stop();
  upstream.close();
  upstream.closeAllConnections();
  fs.rmSync(folder, { recursive: true });
});

const GET = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";

async function put(name: string, hosts: readonly string[]): Promise<string> {
  const made = await pair(name, hosts);
  fs.mkdirSync(join(folder, "certs"), { recursive: true });
  fs.writeFileSync(join(folder, `certs/${name}.crt`), made.certificate);
  fs.writeFileSync(join(folder, `certs/${name}.key`), made.key, { mode: 0o600 });
  return made.key;
}

async function startEdge(environment: Record<string, string> = {}): Promise<Program> {
  const edge = startProgram("proxy/main.ts", {
    GILLIAM_STATE: folder,
    GILLIAM_CONTROL_URL: control.url,
    GILLIAM_HOST_TOKEN: control.token,
    GILLIAM_EDGE_LISTEN: "127.0.0.1:0",
    GILLIAM_EDGE_ADMIN: "127.0.0.1:0",
    GILLIAM_EDGE_TLS_LISTEN: "127.0.0.1:0",
    GILLIAM_EDGE_TLS_DIR: join(folder, "certs"),
    ...environment,
  });
  await edge.waitForLog("the edge is ready");
  const { port } = upstream.address() as AddressInfo;
  const endpoints = [{ id: "web-1", host: "127.0.0.1", port, release: 1 }];
  const config = {
    epoch: 1,
    clusters: [Cluster.parse({ name: "web.shop", protocol: "http", endpoints })],
    edges: [],
    routes: [{ id: "shop.test", host: "shop.test", path: "/", cluster: "web.shop" }],
  };
  control.send({ kind: "config", config });
  await vi.waitFor(() => expect(control.reports.at(-1)?.epoch).toBe(1), { timeout: 30_000, interval: 20 });
  return edge;
}

const tlsPort = (edge: Program) => Number(edge.address("secure").split(":").at(-1));

test("a session begun with one worker is resumed by its successor, and nobody is refused meanwhile", async () => {
  const key = await put("default", ["shop.test"]);
  const edge = await startEdge();
  const first = await TlsClient.connect(tlsPort(edge));
  first.write(GET);
  await first.untilText("from the shop");
  await first.until(({ session }) => session !== undefined, "a ticket");
  const before = edge.workerPid();
  edge.child.kill("SIGHUP");
  for (let served = before; served === before; served = edge.workerPid()) {
    await using client = await TlsClient.connect(tlsPort(edge));
    client.write(GET);
    await client.untilText("from the shop");
  }
  await first.untilEnd();
  await using second = await TlsClient.connect(tlsPort(edge), { session: first.session! });
  expect(second.socket.isSessionReused()).toBe(true);
  second.write(GET);
  await second.untilText("from the shop");

  const admin = edge.address("admin");
  const { body } = await get(admin, "/metrics");
  expect(body).toMatch(/gilliam_certificate_expiry_seconds\{name="default".*\} 34\d{6}\n/);
  expect(body).toMatch(/gilliam_tls_handshakes_total\{version="TLSv1.3",resumed="true".*\} [1-9]/);
  const shown = await get(admin, "/certificates");
  expect(JSON.parse(shown.body)).toMatchObject({ certificates: [{ name: "default", hosts: ["shop.test"] }] });
  const config = await get(admin, "/config");
  const secret = key.split("\n")[1]!.slice(0, 20);
  expect(shown.body + config.body + body + JSON.stringify(edge.lines)).not.toContain(secret);
});

test("a session begun with one of two workers is resumed by either", async () => {
  await put("default", ["shop.test"]);
  const edge = await startEdge({ GILLIAM_EDGE_WORKERS: "2" });
  await edge.waitForLog("worker serves", 2);
  const first = await TlsClient.connect(tlsPort(edge));
  first.write(GET);
  await first.untilText("from the shop");
  await first.until(({ session }) => session !== undefined, "a ticket");
  // The kernel chooses the worker by the client's port: sixteen connections all to one are one run in 32,768.
  const workers = edge.lines.filter(({ msg }) => msg === "worker serves").map(({ pid }) => pid as number);
  const served = new Map(workers.map((pid) => [pid, 0]));
  const clients: TlsClient[] = [];
  for (let count = 0; count < 16; count += 1) {
    const client = await TlsClient.connect(tlsPort(edge), { session: first.session! });
    clients.push(client);
    expect(client.socket.isSessionReused()).toBe(true);
    client.write(GET);
    await client.untilText("from the shop");
  }
  for (const pid of workers) served.set(pid, socketsOf(pid));
  for (const count of served.values()) expect(count).toBeGreaterThan(0);
  for (const client of [first, ...clients]) await client[Symbol.asyncDispose]();

  function socketsOf(pid: number): number {
    const ports = new Set(clients.map(({ socket }) => socket.localPort!));
    const inodes = new Set(
      fs
        .readFileSync("/proc/net/tcp", "latin1")
        .split("\n")
        .map((line) => line.trim().split(/\s+/))
        .filter((row) => ports.has(parseInt(row[2]?.split(":")[1] ?? "", 16)))
        .map((row) => row[9]!),
    );
    return fs.readdirSync(`/proc/${pid}/fd`).filter((fd) => {
      const target = /^socket:\[(\d+)\]$/.exec(fs.readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
      return target !== undefined && inodes.has(target);
    }).length;
  }
});

test("new files are served without a restart, and a bad pair leaves the old one", async () => {
  await put("default", ["shop.test"]);
  const edge = await startEdge({ GILLIAM_EDGE_TLS_POLL: "200ms" });
  const shown = async () => {
    await using client = await TlsClient.connect(tlsPort(edge));
    return client.socket.getPeerCertificate().subjectaltname;
  };
  expect(await shown()).toBe("DNS:shop.test");
  await put("default", ["shop.test", "new.test"]);
  await vi.waitFor(async () => expect(await shown()).toBe("DNS:shop.test, DNS:new.test"), {
    timeout: 10_000,
    interval: 50,
  });
  fs.writeFileSync(join(folder, "certs/default.crt"), "nonsense");
  await edge.waitForLog('Cannot use certificate "default": default.crt holds no certificate in PEM form');
  expect(await shown()).toBe("DNS:shop.test, DNS:new.test");
});

test("with the redirect on, clients without TLS are sent to it; hosts without a certificate are not", async () => {
  await put("default", ["shop.test"]);
  const edge = await startEdge({
    GILLIAM_EDGE_TLS_REDIRECT: "true",
    GILLIAM_EDGE_TLS_PUBLIC_PORT: "443",
    GILLIAM_EDGE_TLS_HSTS: "max-age=31536000; includeSubDomains",
  });
  expect(await get(edge.address("public"), "/a?b=c", "shop.test")).toMatchObject({
    status: 308,
    headers: { location: "https://shop.test/a?b=c" },
  });
  expect(await get(edge.address("public"), "/", "other.test")).toMatchObject({ status: 404 });
  await using client = await TlsClient.connect(tlsPort(edge));
  client.write(GET);
  await client.untilText("strict-transport-security: max-age=31536000; includeSubDomains\r\n");
  client.text = "";
  client.write(GET.replace("shop.test", "other.test"));
  await client.untilText("421 ");
  await client.untilText("strict-transport-security: max-age=31536000; includeSubDomains\r\n");
});

test("without a certificate the edge serves the rest, and says why it has none", async () => {
  const edge = await startEdge();
  await edge.waitForLog(
    `Cannot read the folder of certificates ${folder}/certs: ENOENT: no such file or directory, scandir '${folder}/certs'`,
  );
  expect(await get(edge.address("public"), "/", "shop.test")).toMatchObject({ status: 200 });
});

test("settings that make no sense are named together", async () => {
  const edge = startProgram("proxy/main.ts", {
    GILLIAM_STATE: folder,
    GILLIAM_EDGE_TLS_LISTEN: "443",
    GILLIAM_EDGE_TLS_HSTS: "forever",
  });
  expect(await edge.exited).toBe(2);
  const said = edge.errors.join("");
  expect(said).toContain("GILLIAM_EDGE_TLS_LISTEN must be nothing, or an IP address and a port");
  expect(said).toContain("GILLIAM_EDGE_TLS_HSTS must be nothing, or like");
});
