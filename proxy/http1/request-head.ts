import { latin1 } from "../bytes.ts";
import { type Priority, parseGrpcTimeout, parsePriority, parseRequestDeadline } from "../call-fields.ts";
import { type Client, NO_CLIENT } from "../client.ts";
import type { FailureCode } from "../failure.ts";
import type { EngineLimits } from "../limits.ts";
import { NO_TRAILERS } from "../trailers.ts";
import { isHost } from "./authority.ts";
import { FAILED, FieldTable, NEED_MORE } from "./fields.ts";
import { HeadMemory } from "./head-memory.ts";
import {
  CLASS,
  CR,
  FIELD,
  FIELD_FORWARDED_OTHER,
  FIELD_FRAMING_ALIAS,
  FIELD_GILLIAM_OTHER,
  LF,
  SLASH,
  SP,
  TARGET,
  TOKEN,
  parseLength,
  parseTokenList,
} from "./syntax.ts";

/** How the end of a body is known (RFC 9112 6.3). */
export const BODY = { none: 0, length: 1, chunked: 2, close: 3 } as const;
export type BodyKind = (typeof BODY)[keyof typeof BODY];

/** A request's first part, whichever protocol it came in. One object a connection or stream, filled again and again. */
export class RequestHead {
  method = "";
  /** Sending it twice does no more than sending it once (RFC 9110 9.2.2). */
  idempotent = false;
  /** Origin form, or `*`. */
  target = "";
  /** The authority it is for, port included; empty only for HTTP/1.0. */
  host = "";
  /** Minor version: 0 or 1. */
  minor = 1;
  body: BodyKind = BODY.none;
  contentLength = 0;
  keepAlive = true;
  expectContinue = false;
  /** The client understands trailers (RFC 9110 10.1.4). */
  acceptsTrailers = false;
  /** What followed the body, names and values in turn; there once the body is complete. */
  trailers: readonly string[] = NO_TRAILERS;
  /** The one protocol it wants to change to, in lower case, or empty. */
  upgrade = "";
  /** The key of a WebSocket that came as an extended CONNECT: made by us, so the answer is for us to check. */
  websocketKey = "";
  /**
   * The fields that travel on: lines ending in CR LF, Latin-1. Without Host, hop-by-hop fields (RFC 9110 7.6.1),
   * `x-request-id`, our own, and, unless the listener trusts them, forwarded fields.
   */
  fields = "";
  requestId = "";
  /** All cookies in one line. */
  cookie = "";
  /** Milliseconds from its first byte after which the caller wants no answer any more; Infinity: it did not say. */
  deadlineMs = Infinity;
  /** How much it matters to the caller; undefined: it did not say. */
  priority: Priority | undefined;
  /** Who sent it: its connection sets this once. */
  client: Client = NO_CLIENT;
  /** Why it was refused. */
  problem = "";
  failure: FailureCode = "bad_request";
  /** The same head as it is remembered; undefined when it was not. */
  remembered: RequestHead | undefined;
  /** Only of a remembered one: method, target, host and `fields` as the upstream gets them, in one flat string. */
  start = "";

  /** Becomes equal to `other`, but for who sent it. */
  take(other: RequestHead): void {
    this.method = other.method;
    this.idempotent = other.idempotent;
    this.target = other.target;
    this.host = other.host;
    this.minor = other.minor;
    this.body = other.body;
    this.contentLength = other.contentLength;
    this.keepAlive = other.keepAlive;
    this.expectContinue = other.expectContinue;
    this.acceptsTrailers = other.acceptsTrailers;
    this.trailers = NO_TRAILERS;
    this.upgrade = other.upgrade;
    this.websocketKey = "";
    this.fields = other.fields;
    this.requestId = other.requestId;
    this.cookie = other.cookie;
    this.deadlineMs = other.deadlineMs;
    this.priority = other.priority;
  }
}

const memory = new HeadMemory(() => new RequestHead());

const METHODS = new Map<string, boolean>([
  ["GET", true],
  ["HEAD", true],
  ["OPTIONS", true],
  ["PUT", true],
  ["DELETE", true],
  ["POST", false],
  ["PATCH", false],
]);
const METHOD_BYTES_MAX = 32;

/** Never in `fields`: hop-by-hop, or written anew by us. */
const DROPPED = new Uint8Array(32);
/** Dropped as well where the client is not believed. */
const CLAIMS = new Uint8Array(32);
for (const id of [
  FIELD.host,
  FIELD["transfer-encoding"],
  FIELD.connection,
  FIELD.upgrade,
  FIELD.te,
  FIELD.trailer,
  FIELD["keep-alive"],
  FIELD["proxy-connection"],
  FIELD["proxy-authorization"],
  FIELD["http2-settings"],
  FIELD["x-request-id"],
  FIELD["x-gilliam-from"],
  FIELD["x-request-deadline"],
  FIELD["grpc-timeout"],
  FIELD["x-request-priority"],
  FIELD_GILLIAM_OTHER,
]) {
  DROPPED[id] = 1;
  CLAIMS[id] = 1;
}
for (const id of [
  FIELD["x-forwarded-for"],
  FIELD["x-forwarded-proto"],
  FIELD["x-forwarded-host"],
  FIELD.forwarded,
  FIELD["x-real-ip"],
  FIELD_FORWARDED_OTHER,
]) {
  CLAIMS[id] = 1;
}

/** Fields meant for everyone on the way: a client that lists one in `Connection` wants something cut out. */
const NEVER_CONNECTION_OPTIONS = new Set([
  "host",
  "content-length",
  "content-type",
  "transfer-encoding",
  "authorization",
  "cookie",
  "cache-control",
]);

const TE_TRAILERS = /(?:^|,)[ \t]*trailers[ \t]*(?:,|$)/i;
const REQUEST_ID = /^[A-Za-z0-9._:+/=@-]{1,128}$/;

const table = new FieldTable();

/**
 * Reads a request head at `from`. Returns the offset behind it, NEED_MORE, or FAILED with `head.failure` and
 * `head.problem` set. Strict in the sense of RFC 9112: what two servers could read in two ways is refused.
 * `trustForwarded` keeps `x-forwarded-*` and `forwarded` as the client wrote them.
 */
export function parseRequestHead(
  bytes: Buffer,
  from: number,
  to: number,
  head: RequestHead,
  limits: EngineLimits,
  trustForwarded: boolean,
): number {
  const variant = trustForwarded ? "trusted" : "";
  const known = memory.find(bytes, from, to, limits, variant);
  head.remembered = known?.head;
  if (known !== undefined) {
    head.take(known.head);
    return from + known.length;
  }
  const end = readRequestHead(bytes, from, to, head, limits, trustForwarded);
  if (end > 0) remember(memory.keep(bytes, from, end, limits, variant), head);
  return end;
}

function remember(slot: RequestHead | undefined, head: RequestHead): void {
  if (slot === undefined) return;
  slot.take(head);
  slot.start = "";
}

function readRequestHead(
  bytes: Buffer,
  from: number,
  to: number,
  head: RequestHead,
  limits: EngineLimits,
  trustForwarded: boolean,
): number {
  let at = from;
  while (at < to && (CLASS[bytes[at]!]! & TOKEN) !== 0) at += 1;
  const methodEnd = at;
  if (at - from > METHOD_BYTES_MAX) return fail(head, "bad_request", "the method is too long");
  if (at === to) return NEED_MORE;
  if (bytes[at] !== SP || at === from) {
    return fail(head, "bad_request", "the request does not begin with a method and a space");
  }
  at += 1;
  const targetStart = at;
  while (at < to && (CLASS[bytes[at]!]! & TARGET) !== 0) at += 1;
  const targetEnd = at;
  if (targetEnd - targetStart > limits.targetBytesMax) {
    return fail(head, "target_too_long", "the request target is too long");
  }
  if (at === to) return NEED_MORE;
  if (bytes[at] !== SP || targetEnd === targetStart) {
    return fail(head, "bad_target", "the target has characters that a URL has not, or no version follows it");
  }
  const version = parseVersion(bytes, at + 1, to);
  if (version === NEED_MORE) return NEED_MORE;
  if (version === FAILED) return fail(head, "bad_request", "the request line does not end in HTTP/1.1 CR LF");
  if (version > 1) return fail(head, "version_unsupported", "only HTTP/1.0 and HTTP/1.1 are spoken here");
  head.minor = version;
  const fieldsStart = at + 11; // SP HTTP/1.1 CR LF
  const end = table.scan(bytes, fieldsStart, to, limits.headFieldsMax);
  if (end === NEED_MORE) return NEED_MORE;
  if (end === FAILED) {
    return fail(
      head,
      table.count >= limits.headFieldsMax ? "head_too_large" : "bad_request",
      `the head has ${table.problem}`,
    );
  }
  if (end - from > limits.headBytesMax) return fail(head, "head_too_large", "the head is too large");
  const text = latin1(bytes, from, end);
  head.method = text.slice(0, methodEnd - from);
  head.idempotent = METHODS.get(head.method) ?? false;
  return readFields(bytes, from, text, head, trustForwarded) &&
    readTarget(bytes, targetStart, text.slice(targetStart - from, targetEnd - from), head)
    ? end
    : FAILED;
}

/** 0 or 1: the minor version of `HTTP/1.x CRLF`; 2 for another version that is well written. */
function parseVersion(bytes: Uint8Array, at: number, to: number): number {
  const expected = "HTTP/";
  for (let index = 0; index < expected.length; index += 1) {
    if (at + index >= to) return NEED_MORE;
    if (bytes[at + index] !== expected.charCodeAt(index)) return FAILED;
  }
  if (at + 10 > to) return NEED_MORE;
  const major = bytes[at + 5]! - 48;
  const minor = bytes[at + 7]! - 48;
  if (bytes[at + 6] !== 46 || bytes[at + 8] !== CR || bytes[at + 9] !== LF) return FAILED;
  if (major < 0 || major > 9 || minor < 0 || minor > 9) return FAILED;
  return major === 1 && minor <= 1 ? minor : 2;
}

/** What the fields say about framing and the connection; fills `head.fields`. */
function readFields(
  bytes: Uint8Array,
  base: number,
  text: string,
  head: RequestHead,
  trustForwarded: boolean,
): boolean {
  let hosts = 0;
  let lengths = 0;
  let codings = 0;
  let requestIds = 0;
  let connection = "";
  let transferEncoding = "";
  let expect = "";
  let upgrade = "";
  head.host = "";
  head.body = BODY.none;
  head.contentLength = 0;
  head.requestId = "";
  head.cookie = "";
  head.acceptsTrailers = false;
  head.trailers = NO_TRAILERS;
  head.websocketKey = "";
  head.deadlineMs = Infinity;
  head.priority = undefined;
  for (let index = 0; index < table.count; index += 1) {
    const known = table.known[index]!;
    if (known === 0) continue;
    const from = table.valueStart[index]!;
    const to = table.valueEnd[index]!;
    if (known === FIELD.host) {
      hosts += 1;
      if (!isHost(bytes, from, to)) return refuse(head, "bad_host", "Host is not a host name with a port");
      head.host = text.slice(from - base, to - base);
    } else if (known === FIELD["content-length"]) {
      lengths += 1;
      head.contentLength = parseLength(bytes, from, to);
      if (head.contentLength < 0) return refuse(head, "bad_framing", "Content-Length is not a plain number");
    } else if (known === FIELD["transfer-encoding"]) {
      codings += 1;
      transferEncoding = text.slice(from - base, to - base);
    } else if (known === FIELD.connection) {
      const value = text.slice(from - base, to - base);
      connection = connection === "" ? value : `${connection},${value}`;
    } else if (known === FIELD["x-request-id"]) {
      requestIds += 1;
      head.requestId = text.slice(from - base, to - base);
    } else if (known === FIELD.cookie) {
      const value = text.slice(from - base, to - base);
      head.cookie = head.cookie === "" ? value : `${head.cookie}; ${value}`;
    } else if (known === FIELD.expect) {
      const value = text.slice(from - base, to - base);
      expect = expect === "" ? value : `${expect},${value}`;
    } else if (known === FIELD.upgrade) {
      const value = text.slice(from - base, to - base);
      upgrade = upgrade === "" ? value : `${upgrade},${value}`;
    } else if (known === FIELD.te) {
      if (TE_TRAILERS.test(text.slice(from - base, to - base))) head.acceptsTrailers = true;
    } else if (known >= FIELD["x-request-deadline"]) {
      const problem = readCallField(head, known, text.slice(from - base, to - base));
      if (problem !== "" && trustForwarded) return refuse(head, "bad_deadline", problem);
    } else if (known === FIELD_FRAMING_ALIAS) {
      return refuse(head, "bad_framing", "a field is named like Content-Length, but with an underscore");
    }
  }
  if (hosts > 1) return refuse(head, "bad_host", "there is more than one Host");
  if (hosts === 0 && head.minor === 1) return refuse(head, "bad_host", "HTTP/1.1 needs a Host");
  if (lengths > 1) return refuse(head, "bad_framing", "there is more than one Content-Length");
  if (codings > 0) {
    if (lengths > 0)
      return refuse(head, "bad_framing", "Content-Length and Transfer-Encoding exclude each other");
    if (!readCoding(head, codings, transferEncoding)) return false;
  } else if (lengths > 0 && head.contentLength > 0) {
    head.body = BODY.length;
  }
  if (requestIds > 1 || !REQUEST_ID.test(head.requestId)) head.requestId = "";
  return (
    readExpect(head, expect) &&
    readConnection(head, connection, upgrade) &&
    keepFields(base, text, head, trustForwarded, connection)
  );
}

/** What the caller says about its call (call-fields.ts). Returns what is wrong, or nothing. */
function readCallField(head: RequestHead, known: number, value: string): string {
  if (known === FIELD["x-request-priority"] || known === FIELD.priority) {
    head.priority ??= parsePriority(value);
    return "";
  }
  const grpc = known === FIELD["grpc-timeout"];
  const deadlineMs = grpc ? parseGrpcTimeout(value) : parseRequestDeadline(value);
  if (deadlineMs !== undefined) {
    head.deadlineMs = Math.min(head.deadlineMs, deadlineMs);
    return "";
  }
  return grpc
    ? "grpc-timeout is not up to 8 digits and a unit of H, M, S, m, u, n"
    : "x-request-deadline is not the milliseconds that remain, in up to 8 digits";
}

function readCoding(head: RequestHead, count: number, value: string): boolean {
  if (head.minor === 0) return refuse(head, "bad_framing", "HTTP/1.0 has no Transfer-Encoding");
  if (count > 1) return refuse(head, "bad_framing", "there is more than one Transfer-Encoding");
  if (value.toLowerCase() !== "chunked") {
    const codings = parseTokenList(value);
    return codings !== undefined && codings.indexOf("chunked") === codings.length - 1 && codings.length > 1
      ? refuse(head, "coding_unknown", "the only transfer coding spoken here is chunked")
      : refuse(head, "bad_framing", "Transfer-Encoding is not chunked");
  }
  head.body = BODY.chunked;
  return true;
}

/** RFC 9110 10.1.1: the only expectation there is. HTTP/1.0 never waits for an interim response. */
function readExpect(head: RequestHead, expect: string): boolean {
  head.expectContinue = false;
  if (expect === "" || head.minor === 0) return true;
  if (expect.toLowerCase() !== "100-continue") {
    return refuse(head, "expectation_failed", "the only expectation known is 100-continue");
  }
  head.expectContinue = true;
  return true;
}

/** Keep-alive and upgrade. `Upgrade` counts only when `Connection` names it; `h2c` is ignored, as RFC 9110 7.8 allows. */
function readConnection(head: RequestHead, connection: string, upgrade: string): boolean {
  head.keepAlive = head.minor === 1;
  head.upgrade = "";
  if (connection === "") return true;
  if (connection === "keep-alive" || connection === "Keep-Alive") {
    head.keepAlive = true;
    return true;
  }
  const options = parseTokenList(connection);
  if (options === undefined) return refuse(head, "bad_request", "Connection is not a list of tokens");
  for (const option of options) {
    if (NEVER_CONNECTION_OPTIONS.has(option)) {
      return refuse(head, "bad_request", `Connection names ${option}, which is not for one hop`);
    }
  }
  if (options.includes("close")) head.keepAlive = false;
  else if (options.includes("keep-alive")) head.keepAlive = true;
  if (!options.includes("upgrade") || upgrade === "" || head.minor === 0) return true;
  const protocols = parseTokenList(upgrade.replaceAll("/", "-"));
  if (protocols === undefined) return refuse(head, "bad_upgrade", "Upgrade is not a list of protocols");
  if (protocols.some((protocol) => protocol === "h2c" || protocol.startsWith("http-"))) return true;
  if (protocols.length !== 1) return refuse(head, "bad_upgrade", "Upgrade names more than one protocol");
  if (head.body !== BODY.none) return refuse(head, "bad_upgrade", "a request to upgrade has a body");
  head.upgrade = upgrade.toLowerCase();
  return true;
}

/** Cuts the dropped lines out of the text; what lies between them is taken in one piece. */
function keepFields(
  base: number,
  text: string,
  head: RequestHead,
  trustForwarded: boolean,
  connection: string,
): boolean {
  const drop = trustForwarded ? DROPPED : CLAIMS;
  const listed =
    connection.length > 10 || connection.includes(",") || !/^(keep-alive|close|upgrade)?$/i.test(connection)
      ? new Set(parseTokenList(connection))
      : undefined;
  let fields = "";
  let keptFrom = -1;
  for (let index = 0; index < table.count; index += 1) {
    const from = table.nameStart[index]!;
    const known = table.known[index]!;
    const dropped =
      drop[known] === 1 ||
      (known === FIELD.expect && !head.expectContinue) ||
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

/** RFC 9112 3.2: origin form, `OPTIONS *`, or absolute form whose authority is the Host. */
function readTarget(bytes: Uint8Array, from: number, target: string, head: RequestHead): boolean {
  // PRI opens HTTP/2 (RFC 9113, 3.4), and here it does not.
  if (head.method === "CONNECT" || head.method === "TRACE" || head.method === "PRI") {
    return refuse(head, "method_refused", `${head.method} is not served here`);
  }
  head.target = target;
  if (bytes[from] === SLASH) return true;
  if (target === "*") {
    return head.method === "OPTIONS" || refuse(head, "bad_target", "only OPTIONS may ask for *");
  }
  if (target.slice(0, 7).toLowerCase() !== "http://") {
    return refuse(head, "bad_target", "the target is neither a path nor an http:// URL");
  }
  const rest = target.slice(7);
  const cut = rest.search(/[/?]/);
  const authority = cut < 0 ? rest : rest.slice(0, cut);
  if (!isHost(bytes, from + 7, from + 7 + authority.length)) {
    return refuse(head, "bad_target", "the URL's host is not a host name with a port");
  }
  if (head.host !== "" && head.host.toLowerCase() !== authority.toLowerCase()) {
    return refuse(head, "bad_host", "the URL's host and Host are not the same");
  }
  head.host = authority;
  const path = cut < 0 ? "" : rest.slice(cut);
  if (path === "" && head.method === "OPTIONS") {
    // RFC 9112 3.2.4 means `*` by it, nginx passes on `/`.
    return refuse(head, "bad_target", "OPTIONS for a URL without a path is read in two ways: ask for / or *");
  }
  head.target = path.startsWith("/") ? path : `/${path}`;
  return true;
}

function refuse(head: RequestHead, failure: FailureCode, problem: string): false {
  head.failure = failure;
  head.problem = problem;
  return false;
}

function fail(head: RequestHead, failure: FailureCode, problem: string): number {
  refuse(head, failure, problem);
  return FAILED;
}
