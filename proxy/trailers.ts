/**
 * Fields behind a body. What a head decides cannot be decided again when the message is over: such a trailer is refused
 * where it speaks of framing (the parsers do that), and left out where a recipient that merges trailers into the head,
 * as RFC 9110 6.5.2 warns of, would take it for an identity, a credential or an order (6.5.1).
 */

export const NO_TRAILERS: readonly string[] = [];

/** Framing and routing: whoever sends them late wants to deceive. */
const REFUSED = new Set([
  "content-length",
  "transfer-encoding",
  "host",
  "connection",
  "keep-alive",
  "proxy-connection",
  "upgrade",
  "te",
  "trailer",
]);

const LEFT_OUT = new Set([
  // Who somebody is.
  "authorization",
  "proxy-authorization",
  "proxy-authenticate",
  "www-authenticate",
  "cookie",
  "set-cookie",
  "forwarded",
  "via",
  "x-real-ip",
  "x-request-id",
  // What to do with the request.
  "expect",
  "max-forwards",
  "range",
  "if-match",
  "if-none-match",
  "if-modified-since",
  "if-unmodified-since",
  "if-range",
  // What to do with the response.
  "age",
  "cache-control",
  "date",
  "expires",
  "location",
  "retry-after",
  "vary",
  "warning",
  // How to read the content.
  "content-encoding",
  "content-range",
  "content-type",
]);

/** `name` is in lower case. */
export function isRefusedTrailer(name: string): boolean {
  return REFUSED.has(name);
}

/** The trailers that travel on: names, lower case, and values in turn. The same array when that is all of them. */
export function forwardableTrailers(fields: readonly string[]): readonly string[] {
  let kept: string[] | undefined;
  for (let at = 0; at < fields.length; at += 2) {
    if (travels(fields[at]!)) kept?.push(fields[at]!, fields[at + 1]!);
    else kept ??= fields.slice(0, at);
  }
  return kept ?? fields;
}

function travels(written: string): boolean {
  // Servers that speak CGI's language take underscores for hyphens.
  const name = written.includes("_") ? written.replaceAll("_", "-") : written;
  return !LEFT_OUT.has(name) && !name.startsWith("x-forwarded-") && !name.startsWith("x-gilliam-");
}

/** The end of a chunked body with trailers behind it (RFC 9112 7.1.2). */
export function lastChunk(trailers: readonly string[]): string {
  let text = "0\r\n";
  for (let at = 0; at < trailers.length; at += 2) text += `${trailers[at]}: ${trailers[at + 1]}\r\n`;
  return `${text}\r\n`;
}
