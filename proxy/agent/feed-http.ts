import type Http from "node:http";
import { http, loadHttps } from "../../base/node-http.ts";
import type { ProxyReport } from "../../model/mesh.ts";
import type { FeedTransport } from "./feed-client.ts";
import { readLines } from "./ndjson.ts";

export interface ControlAddress {
  /** Like `http://127.0.0.1:7000`. */
  readonly url: string;
  readonly token: string;
  readonly proxyId: string;
  readonly kind: "edge" | "sidecar";
  readonly hostId: string;
  /** Longest line of the feed, in bytes. */
  readonly lineBytesMax: number;
}

/** The feed and the reports over HTTP. */
export interface ControlClient extends FeedTransport {
  /** @throws when control did not take it, whatever the reason. */
  report(report: ProxyReport, signal: AbortSignal): Promise<void>;
}

export function createControlClient(control: ControlAddress): ControlClient {
  const base = `${control.url.replace(/\/+$/, "")}/v1/feed/${encodeURIComponent(control.proxyId)}`;
  const headers = { authorization: `Bearer ${control.token}` };
  // One connection for all reports; the feed has its own, so that neither waits for the other.
  const { Agent, request } = base.startsWith("https:") ? loadHttps() : http;
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const send = (url: string, options: Http.RequestOptions, body: string) =>
    new Promise<Http.IncomingMessage>((resolve, reject) => {
      request(url, options, resolve).on("error", reject).end(body);
    });
  return {
    async open(epoch, signal) {
      const query = new URLSearchParams({ epoch: String(epoch), kind: control.kind, host: control.hostId });
      const response = await send(`${base}?${query.toString()}`, { headers, signal, agent: false }, "");
      await expectSuccess(response);
      return readLines(response, control.lineBytesMax);
    },
    async report(report, signal) {
      const body = JSON.stringify(report);
      const options = {
        method: "POST",
        agent,
        signal,
        headers: {
          ...headers,
          "content-type": "application/json",
          "content-length": String(Buffer.byteLength(body)),
        },
      };
      const response = await send(`${base}/report`, options, body);
      await expectSuccess(response);
      response.resume();
    },
  };
}

async function expectSuccess(response: Http.IncomingMessage): Promise<void> {
  const { statusCode = 0 } = response;
  if (statusCode >= 200 && statusCode < 300) return;
  const chunks: string[] = [];
  for await (const chunk of response.setEncoding("utf8") as AsyncIterable<string>) {
    chunks.push(chunk);
    if (chunks.length >= 4) break; // Enough to tell; the connection is closed with the rest unread.
  }
  throw new Error(`control answered ${statusCode}: ${chunks.join("").slice(0, 300)}`);
}
