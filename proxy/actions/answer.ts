import { STATUS_CODES } from "node:http";
import type { FailureCode } from "../failure.ts";
import { BODY } from "../http1/request-head.ts";
import { ResponseHead } from "../http1/response-head.ts";

/** What a route says itself, without asking anybody. */
export interface Answer {
  readonly status: number;
  /** Lines ending in CR LF, without length and date. */
  readonly fields: string;
  readonly body: Buffer;
  /** For log and metrics; empty where nothing went wrong. */
  readonly reason: FailureCode | "";
}

const head = new ResponseHead();

/** The head of an answer; valid until the next one. A 204, a 205 and a 304 have no content (RFC 9110 15). */
export function answerHead({ status, fields, body }: Answer): ResponseHead {
  const contentless = status === 204 || status === 304;
  const length = contentless ? "" : `content-length: ${body.length}\r\n`;
  head.status = status;
  head.reason = STATUS_CODES[status] ?? "";
  head.body = contentless || body.length === 0 ? BODY.none : BODY.length;
  head.contentLength = contentless ? 0 : body.length;
  head.fields = `${fields}${length}`;
  head.hasDate = false;
  return head;
}

/** While an operator has a service in maintenance. */
export function maintenanceAnswer(service: string, retryAfterSeconds: number): Answer {
  return {
    status: 503,
    reason: "maintenance",
    fields: `content-type: text/plain; charset=utf-8\r\nretry-after: ${retryAfterSeconds}\r\nx-gilliam-reason: maintenance\r\n`,
    body: Buffer.from(
      `503 maintenance: "${service}" is closed for maintenance; please come back in a while\n`,
    ),
  };
}
