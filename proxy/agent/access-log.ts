import fs from "node:fs";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Log } from "../../base/log.ts";
import type { AccessEvent } from "../engine.ts";

export const ACCESS_POLICIES = ["off", "errors", "sampled", "all"] as const;

export interface AccessLogPolicy {
  /** `errors`: answers of 500 and above, and whatever the proxy itself refused. `sampled`: those and one in `oneIn`. */
  readonly policy: (typeof ACCESS_POLICIES)[number];
  readonly oneIn: number;
}

/** Says of every event whether it is written. Counts instead of drawing lots: exactly one in `oneIn`. */
export function createAccessFilter({ policy, oneIn }: AccessLogPolicy): (event: AccessEvent) => boolean {
  const failed = ({ status, reason }: AccessEvent) => status >= 500 || reason !== "";
  let since = 0;
  switch (policy) {
    case "off":
      return () => false;
    case "all":
      return () => true;
    case "errors":
      return failed;
    case "sampled":
      return (event) => {
        if (failed(event)) return true;
        since += 1;
        if (since < oneIn) return false;
        since = 0;
        return true;
      };
  }
}

export interface AccessLogOptions extends AccessLogPolicy {
  /** A file to append to; undefined is standard output. */
  readonly path: string | undefined;
  readonly clock: Clock;
  readonly log: Log;
  /** Characters that are written at once rather than after `flushMs`. @default 64 Ki */
  readonly flushAtLength?: number;
  /** @default 500 */
  readonly flushMs?: number;
  /** Characters kept while the disk is slow; beyond, lines are dropped and counted. @default 8 Mi */
  readonly heldLengthMax?: number;
}

/** NDJSON, one line a request, written in large pieces: the request never waits for it. */
export class AccessLog {
  readonly #options: AccessLogOptions;
  readonly #wanted: (event: AccessEvent) => boolean;
  readonly #descriptor: number;
  readonly #timer: Disposable;
  #lines: string[] = [];
  #heldLength = 0;
  #writing: Promise<void> | undefined;
  #dropped = 0;
  #failed = false;

  /** @throws when the file cannot be opened. */
  constructor(options: AccessLogOptions) {
    this.#options = options;
    this.#wanted = createAccessFilter(options);
    this.#descriptor = options.path === undefined ? 1 : fs.openSync(options.path, "a", 0o640);
    this.#timer = options.clock.every(options.flushMs ?? 500, () => this.#flush());
  }

  /** Lines that were not written because the disk was slow or refused them. */
  get dropped(): number {
    return this.#dropped;
  }

  readonly record = (event: AccessEvent): void => {
    if (!this.#wanted(event)) return;
    const { flushAtLength = 64 * 1024, heldLengthMax = 8 * 1024 * 1024 } = this.#options;
    if (this.#heldLength >= heldLengthMax) {
      this.#dropped += 1;
      return;
    }
    const line = accessLine(event, this.#options.clock.wallMs());
    this.#lines.push(line);
    this.#heldLength += line.length;
    if (this.#heldLength >= flushAtLength) this.#flush();
  };

  /** Writes what is held and closes the file. */
  async close(): Promise<void> {
    this.#timer[Symbol.dispose]();
    this.#flush();
    await this.#writing;
    this.#flush();
    await this.#writing;
    if (this.#descriptor !== 1) fs.closeSync(this.#descriptor);
  }

  #flush(): void {
    if (this.#lines.length === 0) return;
    this.#writing ??= this.#writeHeld();
  }

  async #writeHeld(): Promise<void> {
    const lines = this.#lines;
    const text = Buffer.from(lines.join(""));
    this.#lines = [];
    this.#heldLength = 0;
    try {
      for (let at = 0; at < text.length;) at += await write(this.#descriptor, text, at);
      this.#failed = false;
    } catch (error) {
      this.#dropped += lines.length;
      if (!this.#failed) this.#options.log.error({ reason: messageOf(error) }, "cannot write the access log");
      this.#failed = true;
    }
    this.#writing = undefined;
  }
}

/** One line; `kind: "access"` tells it from the program's own log on the same output. */
export function accessLine(event: AccessEvent, wallMs: number): string {
  const { kind, durationMs, ...rest } = event;
  const time = new Date(wallMs).toISOString();
  const rounded = Math.round(durationMs * 1000) / 1000;
  return `${JSON.stringify({ kind: "access", time, type: kind, durationMs: rounded, ...rest })}\n`;
}

function write(descriptor: number, bytes: Buffer, from: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.write(descriptor, bytes, from, (error, written) => {
      if (error) reject(error);
      else resolve(written);
    });
  });
}
