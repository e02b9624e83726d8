import { closeSync, existsSync, fstatSync, ftruncateSync, openSync, readSync } from "node:fs";

/** A line longer than this is split, in bytes. */
export const LINE_BYTES_MAX = 16_384;
/** Read at one go, in bytes; also the most that one poll takes over, times POLL_BLOCKS_MAX. */
const BLOCK_BYTES = 262_144;
const POLL_BLOCKS_MAX = 16;
/** Consumed bytes are given back to the disk in steps of this many. */
const FREE_STEP_BYTES = 1_048_576;

export interface SpoolLine {
  readonly text: string;
  /** Where the spool goes on after this line. */
  readonly offset: number;
}

/**
 * Reads the file that an instance appends its output to, line by line, and gives consumed bytes back to the disk by
 * punching holes: the writer appends on, undisturbed, and no byte is lost. Where holes cannot be punched the file is
 * emptied when it has been read to the end; bytes written in that very moment are lost.
 */
export class Spool {
  readonly #path: string;
  readonly #punch: (path: string, bytes: number) => Promise<boolean>;
  #file = -1;
  #offset: number;
  #freed = 0;
  #freeing = false;
  #canPunch = true;

  constructor(path: string, offset: number, punch: (path: string, bytes: number) => Promise<boolean>) {
    this.#path = path;
    this.#offset = offset;
    this.#punch = punch;
  }

  get offset(): number {
    return this.#offset;
  }

  /** Whole lines since the last call; with `all`, what follows the last line feed too. */
  read(all: boolean): SpoolLine[] {
    if (this.#file < 0) {
      if (!existsSync(this.#path)) return [];
      this.#file = openSync(this.#path, "r+");
    }
    const { size } = fstatSync(this.#file);
    if (size < this.#offset) this.#offset = 0; // Emptied: by us, or by the instance itself.
    const lines: SpoolLine[] = [];
    for (let block = 0; block < POLL_BLOCKS_MAX && this.#offset < size; block += 1) {
      const bytes = Buffer.allocUnsafe(Math.min(BLOCK_BYTES, size - this.#offset));
      const got = readSync(this.#file, bytes, 0, bytes.length, this.#offset);
      const taken = splitLines(bytes.subarray(0, got), this.#offset, all && this.#offset + got >= size);
      const last = taken.at(-1);
      if (last === undefined) break;
      lines.push(...taken);
      this.#offset = last.offset;
    }
    this.#free(size);
    return lines;
  }

  /** Goes back to where a line could not be stored, to read it again. */
  rewind(offset: number): void {
    this.#offset = offset;
  }

  close(): void {
    if (this.#file >= 0) closeSync(this.#file);
    this.#file = -1;
  }

  #free(size: number): void {
    if (this.#freeing || this.#offset - this.#freed < FREE_STEP_BYTES) return;
    if (!this.#canPunch) {
      if (this.#offset === size) {
        ftruncateSync(this.#file, 0);
        this.#offset = this.#freed = 0;
      }
      return;
    }
    const upTo = this.#offset;
    this.#freeing = true;
    void this.#punch(this.#path, upTo).then((punched) => {
      this.#freeing = false;
      if (punched) this.#freed = upTo;
      else this.#canPunch = false;
    });
  }
}

/** Lines of `bytes`, which begins at `start` of the spool; a rest without line feed only when `all`, or too long. */
export function splitLines(bytes: Buffer, start: number, all: boolean): SpoolLine[] {
  const lines: SpoolLine[] = [];
  let at = 0;
  while (at < bytes.length) {
    const from = at;
    const eol = bytes.indexOf(10, from);
    const end = eol < 0 ? bytes.length : eol;
    if (end - from > LINE_BYTES_MAX) {
      at = characterEnd(bytes, from + LINE_BYTES_MAX);
      lines.push({ text: bytes.toString("utf8", from, at), offset: start + at });
      continue;
    }
    if (eol < 0 && !all) break;
    const textEnd = bytes[end - 1] === 13 && end > from ? end - 1 : end;
    at = eol < 0 ? end : eol + 1;
    lines.push({ text: bytes.toString("utf8", from, textEnd), offset: start + at });
  }
  return lines;
}

/** The last place up to `at` that does not cut a UTF-8 character. */
function characterEnd(bytes: Buffer, at: number): number {
  let end = at;
  while (end > at - 3 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return end;
}
