import type Http from "node:http";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import { http } from "../../base/node-http.ts";
import type { Log } from "../../base/log.ts";
import { METRICS_TYPE } from "../../base/metrics.ts";
import type { SocketAddress } from "./messages.ts";

export interface AdminAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** Answers of the admin listener besides `/metrics`, by path. */
export type AdminPages = Readonly<Record<string, () => AdminAnswer>>;

export interface AdminOptions {
  /** The text for Prometheus. */
  readonly metrics: () => Promise<string>;
  readonly pages: AdminPages;
  readonly clock: Clock;
  readonly log: Log;
}

/** `/metrics` for Prometheus and JSON pages for people. Reads only; meant for the loopback address. */
export class AdminServer {
  readonly #server: Http.Server;
  readonly #clock: Clock;

  constructor({ metrics, pages, clock, log }: AdminOptions) {
    this.#clock = clock;
    this.#server = http.createServer(
      { headersTimeout: 5_000, requestTimeout: 10_000, keepAliveTimeout: 10_000 },
      (request, response) => {
        answer(request, metrics, pages).then(
          ({ status, type, body }) => {
            response.writeHead(status, { "content-type": type, "cache-control": "no-store" }).end(body);
          },
          (error: unknown) => {
            log.error({ reason: messageOf(error) }, "the admin page failed");
            response
              .writeHead(500, { "content-type": "text/plain" })
              .end("The page failed; the log says why.\n");
          },
        );
      },
    );
    this.#server.maxConnections = 100;
  }

  listen(handle: unknown): Promise<SocketAddress> {
    return listenOnHandle(this.#server, handle);
  }

  close(): Promise<void> {
    return closeServer(this.#server, this.#clock, 1_000);
  }
}

async function answer(request: Http.IncomingMessage, metrics: () => Promise<string>, pages: AdminPages) {
  const path = (request.url ?? "/").split("?", 1)[0] ?? "/";
  if (request.method !== "GET" && request.method !== "HEAD") {
    return { status: 405, type: "text/plain", body: "Only GET is served here.\n" };
  }
  if (path === "/metrics") return { status: 200, type: METRICS_TYPE, body: await metrics() };
  const page = Object.hasOwn(pages, path) ? pages[path] : undefined;
  if (page === undefined) {
    const known = ["/metrics", ...Object.keys(pages)].join(", ");
    return { status: 404, type: "text/plain", body: `Nothing at ${path}; there are ${known}.\n` };
  }
  const { status, body } = page();
  return { status, type: "application/json", body: `${JSON.stringify(body, null, 2)}\n` };
}

/** Serves on a raw handle that came over IPC. */
export function listenOnHandle(server: Http.Server, handle: unknown): Promise<SocketAddress> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(handle, () => {
      server.off("error", reject);
      const address = server.address();
      resolve(
        address === null || typeof address === "string"
          ? { host: address ?? "", port: 0 }
          : { host: address.address, port: address.port },
      );
    });
  });
}

/** Stops accepting at once; requests in progress may finish within `graceMs`, idle connections are closed. */
export async function closeServer(server: Http.Server, clock: Clock, graceMs: number): Promise<void> {
  if (!server.listening) return;
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  using _limit = clock.after(graceMs, () => server.closeAllConnections());
  await closed;
}
