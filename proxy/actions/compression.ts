import type { RouteActions } from "../../model/route.ts";
import { BODY } from "../http1/request-head.ts";
import type { ResponseHead } from "../http1/response-head.ts";
import { fieldValue } from "../headers.ts";
import { withFields } from "./header-edits.ts";

export type CompressSpec = NonNullable<RouteActions["compress"]>;
export type Coding = CompressSpec["codings"][number];

/**
 * The coding a client likes best of those offered, whose order decides where it does not; undefined: none, or rather
 * none (RFC 9110 12.5.3). A client that says nothing gets none.
 */
export function negotiate(accepted: string | undefined, offered: readonly Coding[]): Coding | undefined {
  if (accepted === undefined) return undefined;
  const weights = new Map<string, number>();
  for (const part of accepted.toLowerCase().split(",")) {
    const [coding = "", ...parameters] = part.split(";").map((text) => text.trim());
    const q = parameters.find((text) => text.startsWith("q="))?.slice(2) ?? "1";
    if (coding !== "" && /^(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/.test(q)) weights.set(coding, Number(q));
  }
  const weightOf = (coding: string) => weights.get(coding) ?? weights.get("*") ?? 0;
  let best: Coding | undefined;
  for (const coding of offered) {
    if (weightOf(coding) > (best === undefined ? 0 : weightOf(best))) best = coding;
  }
  return best !== undefined && weightOf(best) >= (weights.get("identity") ?? 0) ? best : undefined;
}

/** Text in its many forms. Events are not: they must not wait in a compressor. gRPC has a compression of its own. */
const COMPRESSIBLE =
  /^(?:text\/(?!event-stream)[\w.+-]+|application\/(?:json|javascript|xml|wasm|manifest\+json|[\w.+-]+\+(?:json|xml))|image\/svg\+xml)\s*(?:;|$)/i;

/** Whether a response may be compressed at all, whoever asks for it: its kind, its size, and nothing that forbids it. */
export function isCompressible(head: ResponseHead, bytesMin: number): boolean {
  const { status, body, fields } = head;
  if (body === BODY.none || status < 200 || status === 206) return false;
  if (body === BODY.length && head.contentLength < bytesMin) return false;
  if (!COMPRESSIBLE.test(fieldValue(fields, "content-type") ?? "")) return false;
  if (/^(?:content-encoding|content-range|content-md5|digest|content-digest|repr-digest):/im.test(fields))
    return false;
  return !/^cache-control:.*\bno-transform\b/im.test(fields);
}

/**
 * The head of a compressible response, as it is told: `vary` says that it depends on what the client accepts; with a
 * coding the length is unknown, and an etag is weak, since the bytes are others (RFC 9110 8.8.3.3).
 */
export function negotiatedHead(head: ResponseHead, coding: Coding | undefined): ResponseHead {
  const varied = /^vary:(?:.*,)?\s*(?:accept-encoding|\*)\s*(?:,|$)/im.test(head.fields);
  const vary = varied ? "" : "vary: accept-encoding\r\n";
  if (coding === undefined) return withFields(head, head.fields + vary);
  const lines = head.fields
    .replace(/^(?:content-length|accept-ranges):.*\r\n/gim, "")
    .replace(/^(etag:[ \t]*)"/gim, '$1W/"');
  const told = withFields(head, `${lines}content-encoding: ${coding}\r\n${vary}`);
  told.body = BODY.chunked;
  told.contentLength = 0;
  return told;
}
