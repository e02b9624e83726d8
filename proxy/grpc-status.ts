import type { FailureCode } from "./failure.ts";
import { fieldValue } from "./headers.ts";
import type { RequestHead } from "./http1/request-head.ts";

/** gRPC's own codes for what a proxy can have to say (github.com/grpc/grpc, doc/statuscodes.md). */
const DEADLINE_EXCEEDED = 4;
const RESOURCE_EXHAUSTED = 8;
const UNIMPLEMENTED = 12;
const INTERNAL = 13;
const UNAVAILABLE = 14;

/** Where gRPC can say more than its usual reading of an HTTP status does (doc/http-grpc-status-mapping.md). */
const BY_CODE: Partial<Record<FailureCode, number>> = {
  deadline_exceeded: DEADLINE_EXCEEDED,
  connect_timeout: UNAVAILABLE, // Nothing was sent: another try may succeed.
  response_timeout: DEADLINE_EXCEEDED,
  request_timeout: DEADLINE_EXCEEDED,
  body_timeout: DEADLINE_EXCEEDED,
  head_too_large: RESOURCE_EXHAUSTED,
  bad_response: INTERNAL,
};

/** It speaks gRPC, so a refusal has to as well. */
export function isGrpc(request: RequestHead): boolean {
  return /^application\/grpc(?:[+;]|$)/i.test(fieldValue(request.fields, "content-type") ?? "");
}

/** The grpc-status of a refusal: its code's own, or what gRPC makes of the HTTP status. */
export function grpcStatusOf(code: FailureCode, status: number): number {
  const own = BY_CODE[code];
  if (own !== undefined) return own;
  if (status === 404) return UNIMPLEMENTED;
  if (status === 429 || (status >= 502 && status <= 504)) return UNAVAILABLE;
  return INTERNAL;
}

/** A text as `grpc-message`: percent-encoded but for printable ASCII without `%` (PROTOCOL-HTTP2). */
export function grpcMessage(text: string): string {
  let message = "";
  for (const byte of Buffer.from(text.trimEnd())) {
    message +=
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return message;
}

/**
 * The fields of a refusal to a gRPC client: a response of trailers only, always with HTTP status 200. The push-back
 * tells a client with a retry policy how long to leave us alone.
 */
export function grpcRefusalFields(code: FailureCode, status: number, text: string): string[] {
  const grpcStatus = grpcStatusOf(code, status);
  return [
    "content-type",
    "application/grpc",
    "grpc-status",
    String(grpcStatus),
    "grpc-message",
    grpcMessage(text),
    "x-gilliam-reason",
    code,
    ...(status === 503 ? ["grpc-retry-pushback-ms", "1000"] : []),
  ];
}
