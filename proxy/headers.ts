import { BODY, type RequestHead } from "./http1/request-head.ts";
import { flat } from "./bytes.ts";
import type { ResponseHead } from "./http1/response-head.ts";

/**
 * Heads as they are sent in HTTP/1.1. What the parsers leave in `fields` is end-to-end (RFC 9110 7.6.1) and valid;
 * here comes what belongs to the next hop.
 */

/** `hopFields` are the lines the listener adds: forwarded fields, identity, via. */
export function upstreamHeadText(
  request: RequestHead,
  host: string,
  hopFields: string,
  requestId: string,
): string {
  const start = rememberedStart(request, host) ?? upstreamStart(request, host);
  let text = `${start}${hopFields}x-request-id: ${requestId}\r\n`;
  if (request.body === BODY.chunked) text += "transfer-encoding: chunked\r\n";
  if (request.upgrade !== "") text += `connection: upgrade\r\nupgrade: ${request.upgrade}\r\n`;
  else if (request.acceptsTrailers) text += "connection: te\r\nte: trailers\r\n";
  return `${text}\r\n`;
}

function upstreamStart({ method, target, fields }: RequestHead, host: string): string {
  return `${method} ${target} HTTP/1.1\r\nhost: ${host}\r\n${fields}`;
}

/** Undefined when it is not remembered, or was changed on its way. */
function rememberedStart(request: RequestHead, host: string): string | undefined {
  const { remembered } = request;
  const same =
    remembered !== undefined &&
    remembered.method === request.method &&
    remembered.target === request.target &&
    remembered.fields === request.fields &&
    remembered.host === host;
  if (!same) return undefined;
  if (remembered.start === "") remembered.start = flat(upstreamStart(remembered, host));
  return remembered.start;
}

/** What the edge tells upstreams about a client, whatever the client claimed. */
export function edgeHopFields(peerAddress: string, scheme: "http" | "https"): string {
  const address = peerAddress.startsWith("::ffff:") ? peerAddress.slice(7) : peerAddress;
  return `x-forwarded-for: ${address}\r\nx-forwarded-proto: ${scheme}\r\n`;
}

/** `framing` and `connection` lines come from whoever sends it. */
export function downstreamHeadText(head: ResponseHead, extraFields: string, hopFields: string): string {
  return `${rememberedLines(head) ?? responseStart(head)}${extraFields}${hopFields}\r\n`;
}

function responseStart({ status, reason, fields }: ResponseHead): string {
  return `HTTP/1.1 ${status} ${reason}\r\n${fields}`;
}

/** Undefined when it is not remembered, or was changed on its way. */
function rememberedLines({ status, reason, fields, remembered }: ResponseHead): string | undefined {
  const same =
    remembered !== undefined &&
    remembered.status === status &&
    remembered.reason === reason &&
    remembered.fields === fields;
  if (!same) return undefined;
  if (remembered.start === "") remembered.start = flat(responseStart(remembered));
  return remembered.start;
}

/** The value of cookie `name` in a Cookie line; undefined when it is not there. */
export function cookieValue(cookies: string, name: string): string | undefined {
  for (const part of cookies.split(";")) {
    const equals = part.indexOf("=");
    if (equals > 0 && part.slice(0, equals).trim() === name) return part.slice(equals + 1).trim();
  }
  return undefined;
}

/** The value of the first field `name` (lower case) in a block of lines; undefined when it is not there. */
export function fieldValue(fields: string, name: string): string | undefined {
  for (const line of fields.split("\r\n")) {
    if (line.length > name.length && line.charCodeAt(name.length) === 58) {
      if (line.slice(0, name.length).toLowerCase() === name) return line.slice(name.length + 1).trim();
    }
  }
  return undefined;
}
