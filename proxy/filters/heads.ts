import type { FilterRequest, FilterResponse } from "./filter.ts";
import { BODY, type RequestHead } from "../http1/request-head.ts";
import { HeaderLines, withLength } from "./header-lines.ts";

/** A request's head while filters see it. The engine's own head is changed afterwards, if anything was. */
export class RequestView implements FilterRequest {
  readonly method: string;
  readonly host: string;
  readonly headers: HeaderLines;
  targetChanged = false;
  #target: string;
  #query: URLSearchParams | undefined;

  constructor(method: string, target: string, host: string, lines: string) {
    this.method = method;
    this.#target = target;
    this.host = host;
    this.headers = new HeaderLines(lines);
  }

  get target(): string {
    return this.#target;
  }

  set target(target: string) {
    checkTarget(target);
    this.targetChanged = true;
    this.#query = undefined;
    this.#target = target;
  }

  get path(): string {
    const cut = this.#target.indexOf("?");
    return cut < 0 ? this.#target : this.#target.slice(0, cut);
  }

  /** Changes to it go nowhere: set `target`. */
  get query(): URLSearchParams {
    if (this.#query === undefined) {
      const cut = this.#target.indexOf("?");
      this.#query = new URLSearchParams(cut < 0 ? "" : this.#target.slice(cut + 1));
    }
    return this.#query;
  }
}

export class ResponseView implements FilterResponse {
  readonly headers: HeaderLines;
  statusChanged = false;
  /** Whether content follows the head. */
  readonly #content: boolean;
  #status: number;

  constructor(status: number, lines: string, content: boolean) {
    this.#status = status;
    this.headers = new HeaderLines(lines);
    this.#content = content;
  }

  get status(): number {
    return this.#status;
  }

  set status(status: number) {
    checkStatus(status);
    if (this.#content && isContentless(status)) {
      throw new TypeError(`a response with status ${status} has no content, and this one has`);
    }
    this.statusChanged = true;
    this.#status = status;
  }
}

const TARGET_CHARS_MAX = 8_192;

/** @throws TypeError unless it is a path that every server reads in one way. */
export function checkTarget(target: string): void {
  if (typeof target !== "string" || target.length > TARGET_CHARS_MAX || !/^\/[\x21-\x7e]*$/.test(target)) {
    throw new TypeError("a target is a path with perhaps a query, in printable ASCII, encoded");
  }
  const path = target.split("?", 1)[0]!;
  if (/["#<>\\^`{|}]/.test(target) || /(?:\/|%2f|%5c)(?:\.|%2e){1,2}(?:\/|%2f|%5c|;|$)/i.test(path)) {
    throw new TypeError(
      "a target has neither dot segments, backslashes and fragments nor characters to encode",
    );
  }
}

/** @throws TypeError unless it is a final status. */
export function checkStatus(status: number): void {
  if (!Number.isInteger(status) || status < 200 || status > 599) {
    throw new TypeError(`a status is a whole number from 200 to 599, not ${String(status)}`);
  }
}

/** No content follows these (RFC 9110 6.4.1). */
export function isContentless(status: number): boolean {
  return status === 204 || status === 205 || status === 304;
}

/** The request's body is another one now, of this length. */
export function bodyReplaced(request: RequestHead, length: number): void {
  request.body = length === 0 ? BODY.none : BODY.length;
  request.contentLength = length;
  request.fields = withLength(request.fields, length);
}
