import http from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { MeshConfig } from "../model/mesh.ts";
import type { PeerPlan } from "./peers.ts";
import { freePort, start } from "./processes.ts";
import type { Running } from "./processes.ts";

const EDGE = path.join(import.meta.dirname, "../proxy/main.ts");
/** What the load generators ask for. */
const HOST = "127.0.0.1";

/**
 * Our edge as users run it: keeper and worker, feed, reports, metrics, sampled access log, least request over three
 * endpoints, outlier ejection, retry budget, all limits at their defaults. Only control is played by a few lines here.
 */
export async function startGilliam({
  core,
  port,
  upstreamPorts,
  folder,
  upstream,
}: PeerPlan): Promise<Running> {
  const control = await startFeed(upstreamPorts, upstream === "h2c" ? "grpc" : "http");
  const edge = start(core, [process.execPath, "--no-warnings", EDGE], {
    GILLIAM_STATE: folder,
    GILLIAM_HOST_TOKEN: "loadtest",
    GILLIAM_HOST_ID: "loadtest",
    GILLIAM_CONTROL_URL: `http://127.0.0.1:${control.port}`,
    GILLIAM_EDGE_LISTEN: `127.0.0.1:${port}`,
    GILLIAM_EDGE_ADMIN: `127.0.0.1:${await freePort()}`,
    GILLIAM_EDGE_ACCESS_LOG_FILE: path.join(folder, "access.log"),
  });
  return {
    pid: edge.pid,
    output: () => edge.output(),
    stop: async () => {
      await edge.stop();
      control.close();
    },
  };
}

/** Control as far as an edge sees it: one configuration, and a sign of life. */
async function startFeed(
  upstreamPorts: readonly number[],
  protocol: "http" | "grpc",
): Promise<{ port: number; close(): void }> {
  const config = MeshConfig.parse({
    epoch: 1,
    clusters: [
      {
        name: "web.load",
        protocol,
        endpoints: upstreamPorts.map((port, index) => ({ id: `web-${index}`, host: HOST, port, release: 1 })),
      },
    ],
    edges: [],
    routes: [{ id: "web", host: HOST, path: "/", cluster: "web.load" }],
  });
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
