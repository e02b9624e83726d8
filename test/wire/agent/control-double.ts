import http from "node:http";
import type { AddressInfo } from "node:net";
import { FeedMessage, type MeshConfig, ProxyReport } from "../../../model/mesh.ts";

export interface ControlDouble {
  readonly url: string;
  readonly token: string;
  /** `path?query` of every feed request. */
  readonly opened: string[];
  readonly reports: ProxyReport[];
  /** What a proxy is told as soon as it connects with another epoch. */
  config: MeshConfig | undefined;
  /** Sends to every proxy that follows; a whole configuration also to those that connect later. */
  send(message: FeedMessage): void;
  /** Ends every connection and refuses new ones, as if control was killed. */
  stop(): Promise<void>;
  /** Comes back at the same address. */
  start(): Promise<void>;
}

/** Speaks the feed over real HTTP as control does, and holds the proxy to the schemas. */
export async function startControlDouble(): Promise<ControlDouble> {
  const token = "host-token-of-the-test";
  const streams = new Set<http.ServerResponse>();
  const opened: string[] = [];
  const reports: ProxyReport[] = [];
  let server: http.Server;
  let port = 0;

  const answer = (request: http.IncomingMessage, response: http.ServerResponse): void => {
    if (request.headers.authorization !== `Bearer ${token}`) {
      response.writeHead(401).end("wrong token");
      return;
    }
    const url = new URL(request.url ?? "/", "http://control");
    if (request.method === "POST") {
      let body = "";
      request.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      request.on("end", () => {
        reports.push(ProxyReport.parse(JSON.parse(body)));
        response.writeHead(204).end();
      });
      return;
    }
    opened.push(request.url ?? "");
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    response.flushHeaders();
    streams.add(response);
    response.on("close", () => streams.delete(response));
    const { config } = double;
    if (config !== undefined && String(config.epoch) !== url.searchParams.get("epoch")) {
      response.write(`${JSON.stringify({ kind: "config", config })}\n`);
    } else response.write('{"kind":"alive"}\n');
  };

  const double: ControlDouble = {
    get url() {
      return `http://127.0.0.1:${port}`;
    },
    token,
    opened,
    reports,
    config: undefined,
    send(message) {
      if (message.kind === "config") double.config = message.config;
      const line = `${JSON.stringify(FeedMessage.parse(message))}\n`;
      for (const stream of streams) stream.write(line);
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
    start: () =>
      new Promise((resolve) => {
        server = http.createServer(answer).listen(port, "127.0.0.1", () => {
          ({ port } = server.address() as AddressInfo);
          resolve();
        });
      }),
  };
  await double.start();
  return double;
}
