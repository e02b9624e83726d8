import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

export interface HttpRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | Readable;
  /** Silence for this long, before or within the answer, is an error; 0: wait for ever. */
  readonly silenceMsMax: number;
  readonly signal: AbortSignal;
}

/** One request; resolves with the head of the answer. Rejects with Node's own error when there is none. */
export function sendRequest({
  method,
  url,
  headers,
  body,
  silenceMsMax,
  signal,
}: HttpRequest): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const send = url.protocol === "https:" ? httpsRequest : httpRequest;
  const request = send(url, { method, headers, signal, agent: false }, resolve);
  request.on("error", reject);
  if (silenceMsMax > 0) {
    request.setTimeout(silenceMsMax, () => {
      request.destroy(
        Object.assign(new Error(`no answer for ${silenceMsMax / 1000} seconds`), { code: "ETIMEDOUT" }),
      );
    });
  }
  if (body === undefined || typeof body === "string") request.end(body);
  else pipeline(body, request).catch(reject);
  return promise;
}

/** The whole body as text. Rejects beyond `bytesMax`. */
export async function readText(answer: IncomingMessage, bytesMax = 64 * 1024 * 1024): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > bytesMax) throw new Error(`the answer is larger than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** Lines of an NDJSON body, empty ones left out. Rejects when one is longer than `lengthMax` characters. */
export async function* readLines(
  answer: IncomingMessage,
  lengthMax = 4 * 1024 * 1024,
): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > lengthMax)
      throw new Error(`a line of the answer is longer than ${lengthMax} characters`);
    yield* lines.filter((line) => line.trim() !== "");
  }
  if (rest.trim() !== "") yield rest;
}
