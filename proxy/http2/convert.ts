import { STATUS_CODES } from "node:http";
import type { Random } from "../../base/random.ts";
import { FAILED } from "../http1/fields.ts";
import { BODY, RequestHead, parseRequestHead } from "../http1/request-head.ts";
import type { EngineLimits } from "../limits.ts";
import { ResponseHead } from "../http1/response-head.ts";
import { acceptOf, newWebsocketKey } from "../websocket.ts";
import type { Head } from "./head.ts";

/** Heads between HTTP/2 and the lines the engine works with. */

/** What was made of a head, with and without content behind it. */
interface Memo {
  ended: RequestHead | undefined;
  open: RequestHead | undefined;
}

/**
 * Fills `request` as if `head` had come in HTTP/1.1: it is written so, and read by that parser. So there is one set of
 * rules about what a request may be and what of it travels on. False when it is refused. Cached by the head.
 */
export function readHttp2Request(
  head: Head,
  endStream: boolean,
  request: RequestHead,
  limits: EngineLimits,
  trustForwarded: boolean,
  random: Random,
): boolean {
  if (head.protocol !== "") return readConnect(head, endStream, request, limits, trustForwarded, random);
  const memo = ((head.memo as Memo | undefined) ??= { ended: undefined, open: undefined });
  head.memo = memo;
  let known = endStream ? memo.ended : memo.open;
  if (known === undefined) {
    known = new RequestHead();
    const text = requestText(head, endStream);
    const bytes = Buffer.from(text, "latin1");
    if (parseRequestHead(bytes, 0, bytes.length, known, limits, trustForwarded) !== FAILED)
      known.problem = "";
    else if (known.problem === "") known.problem = "it is malformed";
    if (endStream) memo.ended = known;
    else memo.open = known;
  }
  copyRequest(known, request);
  return known.problem === "";
}

/**
 * An extended CONNECT (RFC 8441) becomes the HTTP/1.1 upgrade it stands for, with a key of our own. Not cached: each has
 * another key, and a connection that lives long may cost a little at its beginning.
 */
function readConnect(
  head: Head,
  endStream: boolean,
  request: RequestHead,
  limits: EngineLimits,
  trustForwarded: boolean,
  random: Random,
): boolean {
  if (head.protocol !== "websocket" || endStream) {
    request.method = head.method;
    request.upgrade = "";
    request.failure = "bad_upgrade";
    request.problem = endStream
      ? "an extended CONNECT that ends its stream at once"
      : "the only :protocol known is websocket";
    return false;
  }
  const key = newWebsocketKey(random);
  let text = `GET ${head.path} HTTP/1.1\r\nhost: ${head.authority}\r\n`;
  for (let at = 0; at < head.fields.length; at += 2) {
    const name = head.fields[at]!;
    if (name !== "sec-websocket-key") text += `${name}: ${head.fields[at + 1]}\r\n`;
  }
  text += `connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: ${key}\r\n\r\n`;
  const bytes = Buffer.from(text, "latin1");
  const end = parseRequestHead(bytes, 0, bytes.length, request, limits, trustForwarded);
  request.websocketKey = key;
  return end !== FAILED;
}

/** An upstream's 2xx to an extended CONNECT as the 101 that it stands for; `key` is what an HTTP/1.1 client would have sent. */
export function readUpgraded(head: Head, protocol: string, key: string): ResponseHead {
  const response = newResponse(head, true);
  response.status = 101;
  response.reason = "Switching Protocols";
  response.upgrade = protocol;
  if (key !== "") response.fields += `sec-websocket-accept: ${acceptOf(key)}\r\n`;
  return response;
}

/** Field by field because `Object.assign` is no friend of hot paths. */
function copyRequest(from: RequestHead, to: RequestHead): void {
  to.method = from.method;
  to.idempotent = from.idempotent;
  to.target = from.target;
  to.host = from.host;
  to.minor = from.minor;
  to.body = from.body;
  to.contentLength = from.contentLength;
  to.keepAlive = from.keepAlive;
  to.expectContinue = from.expectContinue;
  to.acceptsTrailers = from.acceptsTrailers;
  to.trailers = from.trailers;
  to.upgrade = from.upgrade;
  to.websocketKey = from.websocketKey;
  to.fields = from.fields;
  to.requestId = from.requestId;
  to.cookie = from.cookie;
  to.deadlineMs = from.deadlineMs;
  to.priority = from.priority;
  to.problem = from.problem;
  to.failure = from.failure;
}

/** An HTTP/1.1 head. What HTTP/2 leaves open, the length of content, becomes the chunked coding. */
function requestText(head: Head, endStream: boolean): string {
  const { fields } = head;
  let text = `${head.method} ${head.path === "" ? "/" : head.path} HTTP/1.1\r\nhost: ${head.authority}\r\n`;
  for (let at = 0; at < fields.length; at += 2) text += `${fields[at]}: ${fields[at + 1]}\r\n`;
  if (!endStream && head.contentLength < 0) text += "transfer-encoding: chunked\r\n";
  return `${text}\r\n`;
}

/** What was made of a response's head, for HEAD and for everything else. */
interface ResponseMemo {
  toHead: ResponseHead | undefined;
  toOther: ResponseHead | undefined;
}

/** A response's head as the engine takes it. Cached by the head. */
export function readHttp2Response(head: Head, headRequest: boolean): ResponseHead {
  const memo = ((head.memo as ResponseMemo | undefined) ??= { toHead: undefined, toOther: undefined });
  head.memo = memo;
  if (headRequest) return (memo.toHead ??= newResponse(head, true));
  return (memo.toOther ??= newResponse(
    head,
    head.status < 200 || head.status === 204 || head.status === 304,
  ));
}

function newResponse({ status, fields, contentLength }: Head, contentless: boolean): ResponseHead {
  const response = new ResponseHead();
  response.status = status;
  response.reason = STATUS_CODES[status] ?? "";
  response.contentLength = Math.max(0, contentLength);
  // HTTP/2 need not say a length: to an HTTP/1.1 client such content is chunked, even when there is none.
  response.body = contentless ? BODY.none : contentLength >= 0 ? BODY.length : BODY.chunked;
  for (let at = 0; at < fields.length; at += 2) {
    const name = fields[at]!;
    if (name === "date") response.hasDate = true;
    // `trailer` announces what HTTP/1.1 clients do not get.
    if (name !== "trailer") response.fields += `${name}: ${fields[at + 1]}\r\n`;
  }
  return response;
}

/** Recent texts and their fields, by length: answers repeat, and the same array is encoded once. */
const recent: ({ readonly text: string; readonly fields: readonly string[] } | undefined)[] = Array.from({
  length: 128,
});

/**
 * Names and values in turn of lines that end in CR LF. The same array for the same text as long as it is remembered,
 * which is what makes HPACK cheap; nobody may change it.
 */
export function fieldsOfLines(text: string): readonly string[] {
  const slot = text.length & (recent.length - 1);
  const known = recent[slot];
  if (known !== undefined && known.text === text) return known.fields;
  const fields: string[] = [];
  for (let at = 0; at < text.length;) {
    const end = text.indexOf("\r\n", at);
    const colon = text.indexOf(":", at);
    if (end < 0 || colon < 0 || colon > end) break;
    fields.push(text.slice(at, colon), text.slice(colon + 1, end).trim());
    at = end + 2;
  }
  recent[slot] = { text, fields };
  return fields;
}
