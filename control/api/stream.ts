import type { FastifyReply } from "fastify";
import { UserError } from "../../base/errors.ts";

/** A reader this far behind is cut off: it comes back and starts from what it has. */
const BACKLOG_BYTES_MAX = 8 * 1024 * 1024;

/** An answer without an end: lines are written until the client leaves or `close` is called. */
export interface LineStream {
  /** False when the client has gone. */
  write(text: string): boolean;
  /** Resolves when the client has read enough that writing more is sensible. */
  drained(): Promise<void>;
  close(): void;
  /** Aborted when either side ends it. */
  readonly signal: AbortSignal;
}

/** Counts the streams that are open, refuses too many and ends all of them at shutdown. */
export class Streams {
  readonly #open = new Set<LineStream>();
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  get count(): number {
    return this.#open.size;
  }

  /** Takes the answer over from fastify. @throws UserError "too_many_streams" */
  open(reply: FastifyReply, contentType: string): LineStream {
    if (this.#open.size >= this.#max) {
      throw new UserError(`Control has ${this.#max} streams open already`, {
        code: "too_many_streams",
        status: 503,
        next: "Close some `logs -f` or event readers, or raise GILLIAM_CONTROL_STREAMS_MAX.",
      });
    }
    reply.hijack();
    const { raw } = reply;
    const ended = new AbortController();
    const stream: LineStream = {
      signal: ended.signal,
      write: (text) => {
        if (ended.signal.aborted) return false;
        if (raw.writableLength > BACKLOG_BYTES_MAX) {
          raw.destroy();
          return false;
        }
        raw.write(text);
        return true;
      },
      drained: () =>
        ended.signal.aborted || !raw.writableNeedDrain
          ? Promise.resolve()
          : new Promise((resolve) => {
              raw.once("drain", resolve);
              ended.signal.addEventListener("abort", () => resolve(), { once: true });
            }),
      close: () => {
        raw.end();
      },
    };
    this.#open.add(stream);
    const finish = () => {
      this.#open.delete(stream);
      ended.abort(new Error("the stream was closed"));
    };
    raw.on("close", finish);
    raw.on("error", finish);
    raw.writeHead(200, {
      "content-type": contentType,
      "cache-control": "no-store",
      "x-accel-buffering": "no",
    });
    raw.flushHeaders();
    return stream;
  }

  closeAll(): void {
    for (const stream of this.#open) stream.close();
  }
}

export const NDJSON = "application/x-ndjson";

export function line(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}
