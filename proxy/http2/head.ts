import { isMethod, isVisible, parseContentLength } from "./field-check.ts";

/**
 * The head of a request or a response, checked (RFC 9113, 8.2 and 8.3). Never changes. The same object is handed out
 * again when a peer repeats a block, so whatever is derived from a head may be kept in `memo`.
 */
export interface Head {
  /** Requests only; "" in a response. */
  readonly method: string;
  /** "http" or "https"; "" in a response and in a CONNECT without `:protocol`. */
  readonly scheme: string;
  /** From `:authority`, or from `host` where that is missing. Not yet split into host and port. */
  readonly authority: string;
  /** Begins with "/", or is "*" with OPTIONS; "" in a response and in a CONNECT without `:protocol`. */
  readonly path: string;
  /** `:protocol` of an extended CONNECT (RFC 8441), like "websocket"; else "". */
  readonly protocol: string;
  /** 100 to 599; 0 in a request. */
  readonly status: number;
  /** Names, lower case, and values in turn, without pseudo-headers and `host`; crumbs of `cookie` joined. */
  readonly fields: readonly string[];
  /** -1 when there is none. */
  readonly contentLength: number;
  /** The application's own: undefined at first. */
  memo: unknown;
}

/** A head, or in plain words why there is none: the message is malformed (RFC 9113, 8.1.1). */
export type HeadOrProblem = Head | string;

const PSEUDO_REQUEST = [":method", ":scheme", ":authority", ":path", ":protocol"] as const;
const CONNECTION_SPECIFIC = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
]);

interface Regular {
  fields: readonly string[];
  host: string | undefined;
  contentLength: number;
}

/** Checks a request's fields. `extendedConnect`: we announced ENABLE_CONNECT_PROTOCOL. */
export function parseRequestHead(fields: readonly string[], extendedConnect: boolean): HeadOrProblem {
  const pseudo: (string | undefined)[] = [undefined, undefined, undefined, undefined, undefined];
  let at = 0;
  for (; at < fields.length && fields[at]!.charCodeAt(0) === 0x3a; at += 2) {
    const which = PSEUDO_REQUEST.indexOf(fields[at] as (typeof PSEUDO_REQUEST)[number]);
    if (which < 0) return `the pseudo-header ${fields[at]} does not belong in a request (RFC 9113, 8.3)`;
    if (pseudo[which] !== undefined) return `${fields[at]} occurs twice (RFC 9113, 8.3)`;
    pseudo[which] = fields[at + 1]!;
  }
  const regular = checkRegular(fields, at);
  if (typeof regular === "string") return regular;
  const [method, scheme, authority, path, protocol] = pseudo;
  if (method === undefined || !isMethod(method)) return ":method is missing or not a token (RFC 9113, 8.3.1)";
  const problem =
    method === "CONNECT" && protocol === undefined
      ? plainConnectProblem(scheme, path, authority)
      : targetProblem(method, scheme, path, protocol, extendedConnect);
  if (problem !== undefined) return problem;
  const host = authority ?? regular.host;
  if (host === undefined || host === "") return "neither :authority nor host says whom it is for";
  if (!isVisible(host, "@/?#\\,"))
    return ":authority holds a character that is not allowed (RFC 9113, 8.3.1)";
  if (authority !== undefined && regular.host !== undefined && authority !== regular.host) {
    return "host differs from :authority (RFC 9113, 8.3.1)";
  }
  return {
    method,
    scheme: scheme ?? "",
    authority: host,
    path: path ?? "",
    protocol: protocol ?? "",
    status: 0,
    fields: regular.fields,
    contentLength: regular.contentLength,
    memo: undefined,
  };
}

/** CONNECT names an authority and nothing else (RFC 9113, 8.5). */
function plainConnectProblem(
  scheme: string | undefined,
  path: string | undefined,
  authority: string | undefined,
): string | undefined {
  if (scheme !== undefined || path !== undefined) return "CONNECT with :scheme or :path (RFC 9113, 8.5)";
  return authority === undefined ? "CONNECT without :authority (RFC 9113, 8.5)" : undefined;
}

function targetProblem(
  method: string,
  scheme: string | undefined,
  path: string | undefined,
  protocol: string | undefined,
  extendedConnect: boolean,
): string | undefined {
  if (scheme !== "http" && scheme !== "https")
    return ":scheme is missing or neither http nor https (RFC 9113, 8.3.1)";
  if (path === undefined || path === "") return ":path is missing or empty (RFC 9113, 8.3.1)";
  if (!(path.startsWith("/") || (path === "*" && method === "OPTIONS"))) {
    return ':path does not begin with "/" (RFC 9113, 8.3.1)';
  }
  if (!isVisible(path, "#")) return ":path holds a character that is not allowed (RFC 9113, 8.3.1)";
  if (protocol === undefined) return undefined;
  if (method !== "CONNECT") return ":protocol without CONNECT (RFC 8441, 4)";
  if (!extendedConnect) return ":protocol was not offered (RFC 8441, 3)";
  return isMethod(protocol) ? undefined : ":protocol is not a token (RFC 8441, 4)";
}

/** Checks a response's fields, interim responses included. */
export function parseResponseHead(fields: readonly string[]): HeadOrProblem {
  if (fields[0] !== ":status") return ":status is missing or not first (RFC 9113, 8.3.2)";
  const text = fields[1]!;
  const status = parseContentLength(text);
  if (text.length !== 3 || status < 100 || status > 599) return ":status is not 100 to 599 (RFC 9113, 8.3.2)";
  if (status === 101) return "101 has no place in HTTP/2 (RFC 9113, 8.6)";
  const regular = checkRegular(fields, 2);
  if (typeof regular === "string") return regular;
  if (regular.host !== undefined) return "host in a response";
  return {
    method: "",
    scheme: "",
    authority: "",
    path: "",
    protocol: "",
    status,
    fields: regular.fields,
    contentLength: regular.contentLength,
    memo: undefined,
  };
}

/** Why these are no trailers, or undefined (RFC 9113, 8.1). Framing fields may not come late (RFC 9110, 6.5.1). */
export function trailersProblem(fields: readonly string[]): string | undefined {
  const regular = checkRegular(fields, 0);
  if (typeof regular === "string") return regular;
  if (regular.contentLength >= 0) return "content-length in trailers (RFC 9110, 6.5.1)";
  return regular.host === undefined ? undefined : "host in trailers (RFC 9110, 6.5.1)";
}

/** Checks the fields behind the pseudo-headers and takes `host` out. */
function checkRegular(fields: readonly string[], start: number): Regular | string {
  let host: string | undefined;
  let contentLength = -1;
  let cookies = 0;
  for (let at = start; at < fields.length; at += 2) {
    const name = fields[at]!;
    const value = fields[at + 1]!;
    if (name.charCodeAt(0) === 0x3a)
      return `the pseudo-header ${name} stands behind a field or in trailers (RFC 9113, 8.3)`;
    if (CONNECTION_SPECIFIC.has(name)) return `${name} is specific to a connection (RFC 9113, 8.2.2)`;
    if (name === "te" && value.toLowerCase() !== "trailers")
      return `te may only say "trailers" (RFC 9113, 8.2.2)`;
    if (name === "cookie") cookies += 1;
    if (name === "host") {
      if (host !== undefined) return "host occurs twice (RFC 9110, 7.2)";
      host = value;
    }
    if (name === "content-length") {
      if (contentLength >= 0) return "content-length occurs twice (RFC 9110, 8.6)";
      contentLength = parseContentLength(value);
      if (contentLength < 0) return "content-length is not a number (RFC 9110, 8.6)";
    }
  }
  const plain = cookies < 2 && host === undefined;
  return { host, contentLength, fields: plain ? fields.slice(start) : joined(fields, start) };
}

/** Without `host`, and with the crumbs of `cookie` as one field (RFC 9113, 8.2.3). */
function joined(fields: readonly string[], start: number): string[] {
  const kept: string[] = [];
  let cookieAt = -1;
  for (let at = start; at < fields.length; at += 2) {
    const name = fields[at]!;
    const value = fields[at + 1]!;
    if (name === "host") continue;
    if (name === "cookie" && cookieAt >= 0) {
      kept[cookieAt] += `; ${value}`;
      continue;
    }
    if (name === "cookie") cookieAt = kept.length + 1;
    kept.push(name, value);
  }
  return kept;
}
