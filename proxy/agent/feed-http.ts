import http from "node:http";
import https from "node:https";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
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
  const secure = base.startsWith("https:");
  const agent = new (secure ? https : http).Agent({ keepAlive: true, maxSockets: 1 });
  return {
    async *open(epoch, signal) {
      const query = new URLSearchParams({ epoch: String(epoch), kind: control.kind, host: control.hostId });
      const response = await send(`${base}?${query.toString()}`, { headers, signal, agent: false }, "");
      await expectSuccess(response);
      yield* readLines(response, control.lineBytesMax);
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

function send(url: string, options: https.RequestOptions, body: string): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    const { request } = url.startsWith("https:") ? https : http;
    request(url, options, resolve).on("error", reject).end(body);
  });
}

async function expectSuccess(response: http.IncomingMessage): Promise<void> {
  const { statusCode = 0 } = response;
  if (statusCode >= 200 && statusCode < 300) return;
  const body = await text(response as Readable).catch(() => "");
  throw new Error(`control answered ${statusCode}: ${body.slice(0, 300)}`);
}
