import { CLASS, COLON, CR, LF, SP, TAB, TOKEN, VALUE, knownField } from "./syntax.ts";

/** Results of a parser besides the offset where it ended. */
export const NEED_MORE = -1;
export const FAILED = -2;

/** More fields than any limit allows; the arrays below are this long. */
export const FIELDS_CAPACITY = 1024;

/**
 * Where the fields of one head are, as offsets into its bytes. Parsing is synchronous, so the two heads of a
 * proxy need one of these each and no request owns any.
 */
export class FieldTable {
  count = 0;
  /** Why the last scan failed. */
  problem = "";
  readonly known = new Uint8Array(FIELDS_CAPACITY);
  readonly nameStart = new Int32Array(FIELDS_CAPACITY);
  readonly nameEnd = new Int32Array(FIELDS_CAPACITY);
  /** Without the white space around it. */
  readonly valueStart = new Int32Array(FIELDS_CAPACITY);
  readonly valueEnd = new Int32Array(FIELDS_CAPACITY);
  /** Behind CR LF: where the next line begins. */
  readonly lineEnd = new Int32Array(FIELDS_CAPACITY);

  /**
   * Reads `name: value CRLF` lines from `at` to the empty line (RFC 9112 5). Returns the offset behind that line,
   * NEED_MORE when `to` comes first, FAILED for anything the grammar does not know: line folding, white space
   * before the colon, a bare CR or LF, control characters, an empty name, more than `countMax` fields.
   */
  scan(bytes: Uint8Array, from: number, to: number, countMax: number): number {
    this.count = 0;
    let at = from;
    while (at < to) {
      const first = bytes[at]!;
      if (first === CR) {
        if (at + 1 >= to) return NEED_MORE;
        return bytes[at + 1] === LF ? at + 2 : this.#fail("a CR without LF");
      }
      const nameStart = at;
      while (at < to && (CLASS[bytes[at]!]! & TOKEN) !== 0) at += 1;
      if (at >= to) return NEED_MORE;
      if (bytes[at] !== COLON || at === nameStart) return this.#failName(bytes[at]!, at === nameStart);
      const nameEnd = at;
      at += 1;
      while (at < to && (bytes[at] === SP || bytes[at] === TAB)) at += 1;
      const valueStart = at;
      while (at < to && (CLASS[bytes[at]!]! & VALUE) !== 0) at += 1;
      if (at + 1 >= to) {
        return at < to && bytes[at] !== CR ? this.#fail("a control character in a field value") : NEED_MORE;
      }
      if (bytes[at] !== CR || bytes[at + 1] !== LF) {
        return this.#fail(
          bytes[at] === CR || bytes[at] === LF
            ? "a bare CR or LF in a field"
            : "a control character in a field value",
        );
      }
      let valueEnd = at;
      while (valueEnd > valueStart && (bytes[valueEnd - 1] === SP || bytes[valueEnd - 1] === TAB))
        valueEnd -= 1;
      at += 2;
      const index = this.count;
      if (index >= countMax) return this.#fail("more header fields than allowed");
      this.known[index] = knownField(bytes, nameStart, nameEnd);
      this.nameStart[index] = nameStart;
      this.nameEnd[index] = nameEnd;
      this.valueStart[index] = valueStart;
      this.valueEnd[index] = valueEnd;
      this.lineEnd[index] = at;
      this.count = index + 1;
    }
    return NEED_MORE;
  }

  #failName(byte: number, atStart: boolean): number {
    if (byte === SP || byte === TAB) {
      return this.#fail(atStart ? "line folding (obs-fold)" : "white space before the colon of a field");
    }
    if (byte === LF || byte === CR) return this.#fail("a field line without a colon, or a bare LF");
    return this.#fail(
      atStart && byte === COLON ? "a field without a name" : "a field name that is not a token",
    );
  }

  #fail(problem: string): number {
    this.problem = problem;
    return FAILED;
  }
}

/** Adds up the pieces of a head that arrived in several reads. Grows by doubling; whoever appends checks its length. */
export class HeadPieces {
  bytes: Buffer = Buffer.allocUnsafe(1024);
  length = 0;

  append(source: Uint8Array, from: number, to: number): void {
    const length = this.length + to - from;
    if (length > this.bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(length, this.bytes.length * 2));
      this.bytes.copy(grown, 0, 0, this.length);
      this.bytes = grown;
    }
    this.bytes.set(source.subarray(from, to), this.length);
    this.length = length;
  }
}

/** Without one in the new bytes a head that was not whole before is not whole now, nor broken in a new line. */
export function hasLineFeed(bytes: Buffer, size: number): boolean {
  const at = bytes.indexOf(LF);
  return at >= 0 && at < size;
}
