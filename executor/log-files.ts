import {
  appendFileSync,
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  readdirSync,
  unlinkSync,
} from "node:fs";
import { join } from "node:path";
import type { LogLine } from "../model/api.ts";

export type Stream = LogLine["stream"];

export interface StoredLine {
  /** Wall clock when the executor read it, milliseconds since 1970. */
  readonly atMs: number;
  readonly stream: Stream;
  readonly text: string;
}

/** How far each spool has been taken over into the log. */
export type Offsets = Readonly<Record<"stdout" | "stderr", number>>;

export interface LogLimits {
  /** A file is closed and the next one begun when it has this many bytes. */
  readonly fileBytes: number;
  /** Files kept per instance, the one being written included; 1 or more. */
  readonly filesKept: number;
}

/**
 * One instance's log: NDJSON files `00000001.ndjson`, … of bounded size. A line holds the spool offset it was read
 * up to, so what has been written and what still has to be read can never disagree, whatever dies in between.
 */
export class LogFiles {
  readonly #folder: string;
  readonly #limits: LogLimits;
  #number = 1;
  #file = -1;
  #bytes = 0;

  constructor(folder: string, limits: LogLimits) {
    this.#folder = folder;
    this.#limits = limits;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  }

  /** Opens the newest file for writing, cuts off a line torn by a crash, and says where to go on. */
  open(): Offsets {
    const newest = listFiles(this.#folder).at(-1);
    this.#number = newest === undefined ? 1 : Number.parseInt(newest, 10);
    this.#file = openSync(this.#path(), "a+", 0o600);
    const { size } = fstatSync(this.#file);
    const text = readRange(this.#file, 0, size);
    const whole = text.lastIndexOf(10) + 1;
    if (whole < size) ftruncateSync(this.#file, whole);
    this.#bytes = whole;
    let offsets: Offsets = { stdout: 0, stderr: 0 };
    for (const line of text.subarray(0, whole).toString("utf8").split("\n")) {
      offsets = parseLine(line)?.offsets ?? offsets;
    }
    if (whole === 0) this.#writeText(JSON.stringify({ o: [0, 0] }) + "\n");
    return offsets;
  }

  append(lines: readonly { line: StoredLine; offsets: Offsets }[]): void {
    if (lines.length === 0) return;
    this.#writeText(lines.map(({ line, offsets }) => formatLine(line, offsets)).join(""));
    const last = lines.at(-1);
    if (this.#bytes >= this.#limits.fileBytes && last !== undefined) this.#rotate(last.offsets);
  }

  close(): void {
    if (this.#file >= 0) closeSync(this.#file);
    this.#file = -1;
  }

  #rotate(offsets: Offsets): void {
    closeSync(this.#file);
    this.#number += 1;
    this.#file = openSync(this.#path(), "a+", 0o600);
    this.#bytes = 0;
    // First of all where to go on: the files before may be gone when it is needed.
    this.#writeText(JSON.stringify({ o: [offsets.stdout, offsets.stderr] }) + "\n");
    for (const name of listFiles(this.#folder).slice(0, -this.#limits.filesKept)) {
      unlinkSync(join(this.#folder, name));
    }
  }

  #writeText(text: string): void {
    appendFileSync(this.#file, text);
    this.#bytes += Buffer.byteLength(text);
  }

  #path(): string {
    return join(this.#folder, `${String(this.#number).padStart(8, "0")}.ndjson`);
  }
}

/** The last `count` lines of a log folder, oldest first; reads no more of the files than that takes. */
export function readTail(folder: string, count: number): StoredLine[] {
  const parts: StoredLine[][] = [];
  let missing = count;
  for (const name of listFiles(folder).toReversed()) {
    if (missing <= 0) break;
    const lines = readFileTail(join(folder, name), missing);
    parts.unshift(lines);
    missing -= lines.length;
  }
  return parts.flat();
}

const FIRST_BLOCK_BYTES = 65_536;

function readFileTail(path: string, count: number): StoredLine[] {
  const file = openSync(path, "r");
  try {
    const { size } = fstatSync(file);
    for (let block = FIRST_BLOCK_BYTES; ; block *= 4) {
      const start = Math.max(0, size - block);
      const rows = readRange(file, start, size).toString("utf8").split("\n");
      const whole = start === 0 ? rows : rows.slice(1); // The first row may be cut.
      const lines = whole.map((row) => parseLine(row)?.line).filter((line) => line !== undefined);
      if (lines.length >= count || start === 0) return lines.slice(-count);
    }
  } finally {
    closeSync(file);
  }
}

function listFiles(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => /^\d{8}\.ndjson$/.test(name))
    .sort();
}

function readRange(file: number, start: number, end: number): Buffer {
  const bytes = Buffer.alloc(end - start);
  let at = 0;
  while (at < bytes.length) {
    const got = readSync(file, bytes, at, bytes.length - at, start + at);
    if (got === 0) break;
    at += got;
  }
  return bytes.subarray(0, at);
}

/** Short names: a log is mostly overhead otherwise. t time, s stream, x text, o offsets of stdout and stderr. */
function formatLine({ atMs, stream, text }: StoredLine, { stdout, stderr }: Offsets): string {
  return `${JSON.stringify({ t: atMs, s: stream, x: text, o: [stdout, stderr] })}\n`;
}

function parseLine(row: string): { line: StoredLine | undefined; offsets: Offsets } | undefined {
  if (row === "") return undefined;
  try {
    const { t, s, x, o } = JSON.parse(row) as { t?: number; s?: Stream; x?: string; o: [number, number] };
    const offsets = { stdout: o[0], stderr: o[1] };
    if (t === undefined || s === undefined || x === undefined) return { line: undefined, offsets };
    return { line: { atMs: t, stream: s, text: x }, offsets };
  } catch {
    return undefined; // A row that a full disk has torn.
  }
}
