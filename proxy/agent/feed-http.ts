import type Http from "node:http";
import { http, loadHttps } from "../../base/node-http.ts";
import type { ProxyReport } from "../../model/mesh.ts";
import type { FeedTransport } from "./feed-client.ts";
import { readLines } from "./ndjson.ts";

const BLOB_BYTES_MAX = 33_554_432;
const BLOB_MS_MAX = 10_000;

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
  /** A filter's bundle by its digest, at most 32 MiB, within 10 s. @throws when it cannot be had. */
  blob(digest: string): Promise<Buffer>;
}

export function createControlClient(control: ControlAddress): ControlClient {
  const api = `${control.url.replace(/\/+$/, "")}/v1`;
  const base = `${api}/feed/${encodeURIComponent(control.proxyId)}`;
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
    async blob(digest) {
      const signal = AbortSignal.timeout(BLOB_MS_MAX);
      const url = `${api}/blobs/${encodeURIComponent(digest)}`;
      const response = await send(url, { headers, signal, agent: false }, "");
      await expectSuccess(response);
      const chunks: Buffer[] = [];
      let size = 0;
      for await (const chunk of response as AsyncIterable<Buffer>) {
        size += chunk.length;
        if (size > BLOB_BYTES_MAX) throw new Error(`the bundle is larger than ${BLOB_BYTES_MAX} bytes`);
        chunks.push(chunk);
      }
      return Buffer.concat(chunks);
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
