/**
 * A failure that a person can act on: `message` says what and where, `next` what to do.
 * Anything else that is thrown is a bug and is shown as one.
 */
export class UserError extends Error {
  override readonly name = "UserError";
  /** Stable and machine readable, like "port_taken"; becomes the problem's `code` over HTTP. */
  readonly code: string;
  /** HTTP status when this crosses the API. */
  readonly status: number;
  /** What to do next, one sentence. */
  readonly next: string | undefined;
  /** Every single problem when there are several, one line each. */
  readonly problems: readonly string[];

  constructor(
    message: string,
    options: {
      code: string;
      status?: number;
      next?: string | undefined;
      problems?: readonly string[];
      cause?: unknown;
    },
  ) {
    super(message, { cause: options.cause });
    this.code = options.code;
    this.status = options.status ?? 400;
    this.next = options.next;
    this.problems = options.problems ?? [];
  }
}

/** The message of anything thrown, with its causes: "a: b: c". */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = error.message === "" ? error.name : error.message;
  return error.cause === undefined ? own : `${own}: ${messageOf(error.cause)}`;
}

/** The `code` of a Node system error ("ENOENT"), else undefined. */
export function errnoOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}
