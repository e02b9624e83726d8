import { closeSync, existsSync, fstatSync, openSync, writeSync } from "node:fs";
import type { Readable } from "node:stream";
import { z } from "zod";
import { backoffMs } from "../../../base/backoff.ts";
import type { Clock } from "../../../base/clock.ts";
import { readDurable, writeDurable } from "../../../base/durable-file.ts";
import { messageOf } from "../../../base/errors.ts";
import type { Log } from "../../../base/log.ts";
import type { Random } from "../../../base/random.ts";
import { frameSplitter, type Engine } from "./engine.ts";

/**
 * Takes over what a container writes: from the engine's log to the spool that the executor's own logs read. Nothing
 * is lost or doubled when the executor or the engine dies in between: a mark says up to which message the spool was
 * written when it had which size, and a later pump reads on from there and leaves out as many bytes as the spool has
 * grown since. A disk that is full only makes it wait.
 */

const Mark = z.object({
  containerId: z.string(),
  /** Time of the last message taken over, as the engine wrote it; empty: none. */
  time: z.string(),
  /** Messages of that very time that were taken over. */
  count: z.int(),
  /** Size of the spool after them, in bytes. */
  size: z.number(),
});
type Mark = z.infer<typeof Mark>;

export interface LogPumpOptions {
  readonly engine: Engine;
  readonly containerId: string;
  readonly stream: "stdout" | "stderr";
  readonly spool: string;
  /** Where the mark is kept. */
  readonly markFile: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Between two marks while messages come, in milliseconds. */
const MARK_MS = 5_000;
const RETRY = { baseMs: 200, capMs: 3_000 };

export class LogPump {
  readonly #options: LogPumpOptions;
  readonly #file: number;
  readonly #abort = new AbortController();
  readonly #following: Promise<void>;
  #mark: Mark;
  /** Bytes at the beginning that the spool has already. */
  #skip: number;
  /** Messages of the mark's time that come once more. */
  #repeated = 0;
  #markedMs = 0;
  #closed = false;

  /** Begins at once. */
  constructor(options: LogPumpOptions) {
    this.#options = options;
    this.#file = openSync(options.spool, "a", 0o600);
    const { size } = fstatSync(this.#file);
    const known = readMark(options);
    this.#mark = known ?? { containerId: options.containerId, time: "", count: 0, size };
    // Before the first byte is written, or a pump that died early would leave no trace of what it wrote.
    if (known === undefined) this.#saveMark();
    // Smaller: it was emptied meanwhile, after everything in it had been read.
    this.#skip = Math.max(0, size - this.#mark.size);
    this.#following = this.#follow();
  }

  /** The container has ended: takes over what is left, and lets go. */
  async drain(): Promise<void> {
    this.#abort.abort(new Error("the container has ended"));
    await this.#following;
    try {
      await this.#readOnce(false, AbortSignal.timeout(DRAIN_MS_MAX));
    } catch (error) {
      const { containerId, stream, log } = this.#options;
      log.warn({ containerId, stream, reason: messageOf(error) }, "the end of a container's log is lost");
    }
    this.close();
  }

  /** Lets go at once; a later pump goes on where this one was. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#abort.abort(new Error("the log is no longer followed"));
    if (existsSync(this.#options.spool)) this.#saveMark();
    closeSync(this.#file);
  }

  async #follow(): Promise<void> {
    const { signal } = this.#abort;
    const { clock, random } = this.#options;
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      try {
        await this.#readOnce(true, signal);
      } catch {
        // The engine is gone, or the container: whoever watches it will say so.
      }
      await clock.sleep(50 + backoffMs(attempt, RETRY, random), signal).catch(() => undefined);
    }
  }

  async #readOnce(follow: boolean, signal: AbortSignal): Promise<void> {
    const { engine, containerId, stream } = this.#options;
    this.#repeated = this.#mark.count;
    const messages: Buffer[] = [];
    const split = frameSplitter((_stream, bytes) => messages.push(bytes));
    const source: Readable = await engine.logs(containerId, stream, {
      since: sinceOf(this.#mark.time),
      follow,
      signal,
    });
    for await (const chunk of source) {
      split(chunk as Buffer);
      // Not one further byte is asked for until these are written down.
      for (const message of messages.splice(0)) await this.#take(message);
    }
  }

  async #take(message: Buffer): Promise<void> {
    if (this.#closed) return;
    const blank = message.indexOf(0x20);
    const time = message.toString("latin1", 0, blank);
    if (time === this.#mark.time && this.#repeated > 0) {
      this.#repeated -= 1;
      return;
    }
    let bytes = message.subarray(blank + 1);
    const skipped = Math.min(this.#skip, bytes.length);
    this.#skip -= skipped;
    bytes = bytes.subarray(skipped);
    while (bytes.length > 0) {
      bytes = await this.#write(bytes);
      if (this.#closed) return;
    }
    const count = time === this.#mark.time ? this.#mark.count + 1 : 1;
    this.#mark = { ...this.#mark, time, count, size: this.#mark.size + message.length - blank - 1 };
    const { clock } = this.#options;
    if (clock.nowMs() - this.#markedMs > MARK_MS) this.#saveMark();
  }

  /** Returns what could not be written yet. */
  async #write(bytes: Buffer): Promise<Buffer> {
    try {
      return bytes.subarray(writeSync(this.#file, bytes));
    } catch {
      // The disk is full: the engine keeps it, up to the size of its own log.
      await this.#options.clock.sleep(RETRY.capMs);
      return bytes;
    }
  }

  #saveMark(): void {
    this.#markedMs = this.#options.clock.nowMs();
    try {
      writeDurable(this.#options.markFile, this.#mark);
    } catch (error) {
      const { containerId, log } = this.#options;
      log.warn(
        { containerId, reason: messageOf(error) },
        "the place in a container's log is not written down",
      );
    }
  }
}

const DRAIN_MS_MAX = 10_000;

function readMark({ markFile, containerId }: LogPumpOptions): Mark | undefined {
  const read = readDurable(markFile);
  const mark = read.kind === "read" ? Mark.safeParse(read.value).data : undefined;
  return mark?.containerId === containerId ? mark : undefined;
}

/** `2026-11-22T14:21:39.936126463Z` as the engine takes it: seconds and nanoseconds. */
export function sinceOf(time: string): string {
  const match = /^(.*:\d\d)(?:\.(\d{1,9}))?Z$/.exec(time);
  if (match === null) return "0";
  const [, whole = "", fraction = "0"] = match;
  return `${Date.parse(`${whole}Z`) / 1000}.${fraction.padEnd(9, "0")}`;
}
