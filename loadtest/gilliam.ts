import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { LocalPortsAnswer, type LocalPortsRequest } from "../model/local-ports.ts";
import { MeshConfig, type Protocol } from "../model/mesh.ts";
import type { Certificate, PeerPlan } from "./peers.ts";
import { freePort, start } from "./processes.ts";
import type { Running } from "./processes.ts";

const EDGE = path.join(import.meta.dirname, "../proxy/main.ts");
const SIDECAR = path.join(import.meta.dirname, "../sidecar/main.ts");
/** What the load generators ask for. */
const HOST = "127.0.0.1";
const CLUSTER = "web.load";

/**
 * Ours as users run it: keeper and worker, feed, reports, metrics, sampled access log, least request over three
 * endpoints, outlier ejection, retry budget, all limits at their defaults. Only control is played by a few lines here.
 * The edge serves HTTP; TCP passes through a local port of a sidecar.
 */
export async function startGilliam(plan: PeerPlan): Promise<Running> {
  const begin = plan.front === "tcp" ? startSidecar : startEdge;
  if (!existsSync(cacheOf(plan.folder))) await runOnce(await begin(plan));
  return begin(plan);
}

/** As on a host where it has run before: the keeper's compile cache is made by `bootstrap/up`, the worker writes its own. */
async function runOnce(program: Running): Promise<void> {
  const until = performance.now() + 20_000;
  while (!program.output().includes("compile cache written") && performance.now() < until)
    await new Promise((resolve) => setTimeout(resolve, 100));
  await program.stop();
}

const cacheOf = (folder: string) => path.join(folder, "keeper-cache");

async function startEdge(plan: PeerPlan): Promise<Running> {
  const { core, port, upstreamPorts, folder, front, back, certificate } = plan;
  const mesh = meshOf(upstreamPorts, back === "h2c" ? "grpc" : "http");
  const control = await startFeed(mesh);
  const secure = front === "tls" || front === "h2";
  const edge = start(core, [process.execPath, "--no-warnings", EDGE], {
    ...settingsFor(folder, control.port),
    GILLIAM_EDGE_LISTEN: `127.0.0.1:${secure ? await freePort() : port}`,
    GILLIAM_EDGE_ADMIN: `127.0.0.1:${await freePort()}`,
    GILLIAM_EDGE_ACCESS_LOG_FILE: path.join(folder, "access.log"),
    GILLIAM_EDGE_WORKERS: "1",
    ...(secure ? tlsSettings(folder, port, certificate) : {}),
  });
  return stoppedTogether(edge, control);
}

function tlsSettings(folder: string, port: number, { cert, key }: Certificate): Record<string, string> {
  const dir = path.join(folder, "tls");
  mkdirSync(dir, { recursive: true });
  copyFileSync(cert, path.join(dir, "localhost.crt"));
  copyFileSync(key, path.join(dir, "localhost.key"));
  return {
    GILLIAM_EDGE_TLS_LISTEN: `127.0.0.1:${port}`,
    GILLIAM_EDGE_TLS_DIR: dir,
    GILLIAM_EDGE_TLS_VERSION_MIN: "1.3",
  };
}

async function startSidecar({ core, upstreamPorts, folder }: PeerPlan): Promise<Running> {
  const control = await startFeed(meshOf(upstreamPorts, "tcp"));
  const socketPath = path.join(folder, "sidecar.sock");
  const sidecar = start(core, [process.execPath, "--no-warnings", SIDECAR], {
    ...settingsFor(folder, control.port),
    GILLIAM_SIDECAR_SOCKET: socketPath,
    GILLIAM_SIDECAR_ADMIN: `127.0.0.1:${await freePort()}`,
    GILLIAM_SIDECAR_ACCESS_LOG_FILE: path.join(folder, "access.log"),
    GILLIAM_SIDECAR_WORKERS: "1",
  });
  try {
    const port = await openLocalPort(socketPath);
    return { ...stoppedTogether(sidecar, control), port };
  } catch (error) {
    await sidecar.stop();
    control.close();
    throw new Error(`the sidecar opens no local port; it said:\n${sidecar.output()}`, { cause: error });
  }
}

function settingsFor(folder: string, controlPort: number): Record<string, string> {
  return {
    NODE_COMPILE_CACHE: cacheOf(folder),
    GILLIAM_STATE: folder,
    GILLIAM_HOST_TOKEN: "loadtest",
    GILLIAM_HOST_ID: "loadtest",
    GILLIAM_CONTROL_URL: `http://127.0.0.1:${controlPort}`,
  };
}

function stoppedTogether(program: Running, control: Feed): Running {
  return {
    pid: program.pid,
    output: () => program.output(),
    stop: async () => {
      await program.stop();
      control.close();
    },
  };
}

/** Asks as the executor does, until the sidecar is there: an instance without a namespace of its own. */
async function openLocalPort(socketPath: string): Promise<number> {
  const request: LocalPortsRequest = {
    instanceId: "load-client-r1-aaaaa",
    formation: "load",
    service: "client",
    release: 1,
    namespace: null,
    ports: [{ dependency: "web", port: 7001, protocol: "tcp" }],
  };
  const until = performance.now() + 10_000;
  for (;;) {
    try {
      const answer = await put(socketPath, `/v1/instances/${request.instanceId}`, JSON.stringify(request));
      return LocalPortsAnswer.parse(JSON.parse(answer)).ports[0]!.port;
    } catch (error) {
      if (performance.now() > until) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function put(socketPath: string, url: string, body: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath, path: url, method: "PUT" }, (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => (text += chunk.toString()));
      response.once("end", () => resolve(text));
    });
    request.once("error", reject).end(body);
  });
}

function meshOf(upstreamPorts: readonly number[], protocol: Protocol): MeshConfig {
  const endpoints = upstreamPorts.map((port, index) => ({
    id: `web-${index}`,
    host: HOST,
    port,
    release: 1,
  }));
  const edge = { id: "client.load/web", from: "client.load", dependency: "web", port: 7001 };
  return MeshConfig.parse({
    epoch: 1,
    clusters: [{ name: CLUSTER, protocol, endpoints }],
    edges: protocol === "tcp" ? [{ ...edge, protocol, cluster: CLUSTER }] : [],
    routes:
      protocol === "tcp"
        ? []
        : [HOST, "localhost"].map((host) => ({ id: `web-${host}`, host, path: "/", cluster: CLUSTER })),
  });
}

interface Feed {
  readonly port: number;
  close(): void;
}

/** Control as far as a proxy sees it: one configuration, and a sign of life. */
async function startFeed(config: MeshConfig): Promise<Feed> {
  const server = http.createServer((request, response) => {
    request.resume();
    if (request.method === "POST") return response.writeHead(204).end();
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    response.write(`${JSON.stringify({ kind: "config", config })}\n`);
    const alive = setInterval(() => response.write('{"kind":"alive"}\n'), 5_000);
    response.once("close", () => clearInterval(alive));
  });
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
