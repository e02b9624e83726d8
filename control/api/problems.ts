import type { FastifyError } from "fastify";
import { UserError } from "../../base/errors.ts";
import type { Problem } from "../../model/api.ts";

/** Every failure of the API as application/problem+json (RFC 9457). Bugs are told as bugs, without their insides. */
export function problemOf(error: unknown): Problem {
  if (error instanceof UserError) return fromUserError(error);
  const { code, statusCode, message } = error as Partial<FastifyError>;
  const known = code === undefined ? undefined : FASTIFY[code];
  if (known !== undefined) return problem(known.status, known.code, message ?? known.code, known.next);
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return problem(statusCode, "bad_request", message ?? "The request is not understood");
  }
  return problem(
    500,
    "internal",
    "Control has a bug: this request failed inside",
    "Look into control's log.",
  );
}

/** What fastify itself refuses, in our words. */
const FASTIFY: Record<string, { status: number; code: string; next: string } | undefined> = {
  FST_ERR_CTP_BODY_TOO_LARGE: {
    status: 413,
    code: "too_large",
    next: "Send less, or raise GILLIAM_CONTROL_BODY_MAX.",
  },
  FST_ERR_CTP_INVALID_MEDIA_TYPE: {
    status: 415,
    code: "bad_media_type",
    next: "Send application/json (archives: application/octet-stream).",
  },
  FST_ERR_CTP_INVALID_JSON_BODY: { status: 400, code: "bad_json", next: "Send one JSON document." },
  FST_ERR_CTP_EMPTY_JSON_BODY: { status: 400, code: "bad_json", next: "Send one JSON document." },
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: { status: 400, code: "bad_request", next: "Mend content-length." },
};

export function problem(
  status: number,
  code: string,
  detail: string,
  next?: string,
  problems?: string[],
): Problem {
  return {
    type: `urn:gilliam:problem:${code}`,
    title: TITLES[status] ?? "Error",
    status,
    detail,
    code,
    ...(next === undefined ? {} : { next }),
    ...(problems === undefined || problems.length === 0 ? {} : { problems }),
  };
}

function fromUserError({ status, code, message, next, problems }: UserError): Problem {
  return problem(status, code, message, next, [...problems]);
}

const TITLES: Record<number, string | undefined> = {
  400: "Bad request",
  401: "Not authorized",
  403: "Forbidden",
  404: "Not found",
  405: "Method not allowed",
  408: "Request timeout",
  409: "Conflict",
  413: "Too large",
  414: "Address too long",
  415: "Unsupported media type",
  422: "Not acceptable content",
  431: "Headers too large",
  500: "Internal error",
  502: "Bad gateway",
  503: "Unavailable",
  504: "Gateway timeout",
  507: "Disk full",
};

/** Heartbeats are taken without a registry, too; its `trouble` says what is wrong. Other errors are thrown on. */
export function goOnWithoutRegistry(error: unknown): void {
  if (!(error instanceof UserError) || error.code !== "registry_unavailable") throw error;
}
