import { latin1 } from "../bytes.ts";
import type { EngineLimits } from "../limits.ts";
import { FAILED, FieldTable, NEED_MORE } from "./fields.ts";
import { HeadMemory } from "./head-memory.ts";
import { BODY, type BodyKind } from "./request-head.ts";
import { CLASS, CR, FIELD, LF, SP, VALUE, parseLength, parseTokenList } from "./syntax.ts";

/** A response's first part, whichever protocol it came in. Valid until the next one is read. */
export class ResponseHead {
  status = 0;
  reason = "";
  minor = 1;
  body: BodyKind = BODY.none;
  contentLength = 0;
  /** The upstream will take another request on the same connection. */
  keepAlive = true;
  /** Milliseconds for which it promises to keep the connection, from `Keep-Alive: timeout=N`; 0 is no promise. */
  keepAliveMs = 0;
  /** Only of a 101: the protocol changed to, in lower case. */
  upgrade = "";
  /** The fields that travel on, lines ending in CR LF, Latin-1; without hop-by-hop fields. */
  fields = "";
  hasDate = false;
  /** Why it was refused. */
  problem = "";
  /** The same head as it is remembered; undefined when it was not. */
  remembered: ResponseHead | undefined;
  /** Only of a remembered one: status line and `fields` in one flat string. */
  start = "";

  /** Becomes equal to `other`. */
  take(other: ResponseHead): void {
    this.status = other.status;
    this.reason = other.reason;
    this.minor = other.minor;
    this.body = other.body;
    this.contentLength = other.contentLength;
    this.keepAlive = other.keepAlive;
    this.keepAliveMs = other.keepAliveMs;
    this.upgrade = other.upgrade;
    this.fields = other.fields;
    this.hasDate = other.hasDate;
  }
}

const memory = new HeadMemory(() => new ResponseHead());

const DROPPED = new Uint8Array(32);
for (const id of [
  FIELD["transfer-encoding"],
  FIELD.connection,
  FIELD.upgrade,
  FIELD.te,
  FIELD.trailer,
  FIELD["keep-alive"],
  FIELD["proxy-connection"],
]) {
  DROPPED[id] = 1;
}

const table = new FieldTable();

/**
 * Reads a response head at `from`. Returns the offset behind it, NEED_MORE, or FAILED with `head.problem` set.
 * `method` is the request's: it decides whether a body follows (RFC 9112 6.3). Upstreams are not believed either:
 * a length that could be read in two ways, or a status outside 100 to 599, is refused.
 */
export function parseResponseHead(
  bytes: Buffer,
  from: number,
  to: number,
  head: ResponseHead,
  method: string,
  limits: EngineLimits,
): number {
  const variant = method === "HEAD" ? method : "";
  const known = memory.find(bytes, from, to, limits, variant);
  head.remembered = known?.head;
  if (known !== undefined) {
    head.take(known.head);
    return from + known.length;
  }
  const end = readResponseHead(bytes, from, to, head, method, limits);
  if (end > 0) remember(memory.keep(bytes, from, end, limits, variant), head);
  return end;
}

function remember(slot: ResponseHead | undefined, head: ResponseHead): void {
  if (slot === undefined) return;
  slot.take(head);
  slot.start = "";
}

function readResponseHead(
  bytes: Buffer,
  from: number,
  to: number,
  head: ResponseHead,
  method: string,
  limits: EngineLimits,
): number {
  const statusEnd = parseStatusLine(bytes, from, to, head);
  if (statusEnd < 0) return statusEnd;
  const end = table.scan(bytes, statusEnd, to, limits.headFieldsMax);
  if (end === NEED_MORE) return NEED_MORE;
  if (end === FAILED) return fail(head, `the head has ${table.problem}`);
  if (end - from > limits.headBytesMax) return fail(head, "the head is too large");
  return readFields(bytes, latin1(bytes, statusEnd, end), statusEnd, head, method) ? end : FAILED;
}

/** `HTTP/1.1 200 OK CRLF`; a missing reason and the space before it are accepted, nothing else is. */
function parseStatusLine(bytes: Buffer, from: number, to: number, head: ResponseHead): number {
  const expected = "HTTP/1.";
  for (let index = 0; index < expected.length; index += 1) {
    if (from + index >= to) return NEED_MORE;
    if (bytes[from + index] !== expected.charCodeAt(index))
      return fail(head, "it does not begin with HTTP/1.1");
  }
  if (from + 14 > to) return NEED_MORE;
  const minor = bytes[from + 7]! - 48;
  if ((minor !== 0 && minor !== 1) || bytes[from + 8] !== SP) return fail(head, "its version is unknown");
  const status = parseLength(bytes, from + 9, from + 12);
  if (status < 100 || status > 599) return fail(head, "its status is not a number from 100 to 599");
  let at = from + 12;
  const reasonStart = at + 1;
  if (bytes[at] === SP) {
    at += 1;
    while (at < to && (CLASS[bytes[at]!]! & VALUE) !== 0) at += 1;
    if (at + 1 >= to)
      return at < to && bytes[at] !== CR ? fail(head, "its reason has control characters") : NEED_MORE;
  }
  if (bytes[at] !== CR || bytes[at + 1] !== LF) return fail(head, "its status line does not end in CR LF");
  head.minor = minor;
  head.status = status;
  head.reason =
    at <= reasonStart ? "" : status === 200 && at === reasonStart + 2 ? "OK" : latin1(bytes, reasonStart, at);
  return at + 2;
}

function readFields(
  bytes: Uint8Array,
  text: string,
  base: number,
  head: ResponseHead,
  method: string,
): boolean {
  let lengths = 0;
  let codings = 0;
  let connection = "";
  let transferEncoding = "";
  let keepAlive = "";
  let upgrade = "";
  head.contentLength = 0;
  head.hasDate = false;
  for (let index = 0; index < table.count; index += 1) {
    const known = table.known[index]!;
    if (known === 0) continue;
    const from = table.valueStart[index]!;
    const to = table.valueEnd[index]!;
    if (known === FIELD["content-length"]) {
      lengths += 1;
      head.contentLength = parseLength(bytes, from, to);
      if (head.contentLength < 0) return refuse(head, "its Content-Length is not a plain number");
    } else if (known === FIELD["transfer-encoding"]) {
      codings += 1;
      transferEncoding = text.slice(from - base, to - base);
    } else if (known === FIELD.connection) {
      const value = text.slice(from - base, to - base);
      connection = connection === "" ? value : `${connection},${value}`;
    } else if (known === FIELD["keep-alive"]) {
      keepAlive = text.slice(from - base, to - base);
    } else if (known === FIELD.upgrade) {
      upgrade = text.slice(from - base, to - base);
    } else if (known === FIELD.date) {
      head.hasDate = true;
    }
  }
  if (lengths > 1) return refuse(head, "it has more than one Content-Length");
  if (codings > 1) return refuse(head, "it has more than one Transfer-Encoding");
  if (codings > 0) {
    if (lengths > 0) return refuse(head, "it has Content-Length and Transfer-Encoding");
    if (head.minor === 0) return refuse(head, "it is HTTP/1.0 with a Transfer-Encoding");
    if (transferEncoding.toLowerCase() !== "chunked")
      return refuse(head, "its Transfer-Encoding is not chunked");
  }
  const status = head.status;
  if (status < 200 || status === 204 || status === 304 || method === "HEAD") head.body = BODY.none;
  else if (codings > 0) head.body = BODY.chunked;
  else if (lengths > 0) head.body = head.contentLength > 0 ? BODY.length : BODY.none;
  else head.body = BODY.close;
  return readConnection(head, connection, keepAlive, upgrade) && keepFields(base, text, head, connection);
}

function readConnection(head: ResponseHead, connection: string, keepAlive: string, upgrade: string): boolean {
  head.keepAlive = head.minor === 1;
  head.keepAliveMs = 0;
  head.upgrade = "";
  if (connection !== "" && connection !== "keep-alive") {
    const options = parseTokenList(connection);
    if (options === undefined) return refuse(head, "its Connection is not a list of tokens");
    if (options.includes("close")) head.keepAlive = false;
    else if (options.includes("keep-alive")) head.keepAlive = true;
    if (options.includes("upgrade")) head.upgrade = upgrade.toLowerCase();
  } else if (connection !== "") head.keepAlive = true;
  if (keepAlive !== "") {
    const timeout = /(?:^|[,; ])timeout=(\d{1,6})(?:$|[,; ])/i.exec(keepAlive);
    if (timeout !== null) head.keepAliveMs = Number(timeout[1]) * 1000;
  }
  return true;
}

function keepFields(base: number, text: string, head: ResponseHead, connection: string): boolean {
  const listed = /^(?:keep-alive|close|upgrade)?$/i.test(connection)
    ? undefined
    : new Set(parseTokenList(connection));
  const noLength = head.status < 200 || head.status === 204; // RFC 9110 8.6: never there.
  let fields = "";
  let keptFrom = -1;
  for (let index = 0; index < table.count; index += 1) {
    const from = table.nameStart[index]!;
    const known = table.known[index]!;
    const dropped =
      DROPPED[known] === 1 ||
      (noLength && known === FIELD["content-length"]) ||
      (listed !== undefined &&
        listed.has(text.slice(from - base, table.nameEnd[index]! - base).toLowerCase()));
    if (dropped) {
      if (keptFrom >= 0) fields += text.slice(keptFrom - base, from - base);
      keptFrom = -1;
    } else if (keptFrom < 0) keptFrom = from;
  }
  if (keptFrom >= 0) fields += text.slice(keptFrom - base, table.lineEnd[table.count - 1]! - base);
  head.fields = fields;
  return true;
}

function refuse(head: ResponseHead, problem: string): false {
  head.problem = problem;
  return false;
}

function fail(head: ResponseHead, problem: string): number {
  refuse(head, problem);
  return FAILED;
}
