import { NO_TRAILERS, isRefusedTrailer } from "../trailers.ts";
import { CLASS, COLON, CR, LF, TOKEN, VALUE } from "./syntax.ts";

const SEMICOLON = 59;
const EQUALS = 61;
const QUOTE = 34;
const BACKSLASH = 92;

/** Hexadecimal digits of a chunk's size: 13 say more than any body is long and are exact in a double. */
const SIZE_DIGITS_MAX = 13;
/** Bytes of chunk extensions in one body; they are dropped, so there is no reason to send many. */
const EXTENSION_BYTES_MAX = 4096;
/** Bytes of all trailer lines. */
const TRAILER_BYTES_MAX = 8192;

const STATE = {
  sizeFirst: 0,
  size: 1,
  /** `;name`, `=value` or `="value"`, without white space (RFC 9112 7.1.1; what it calls bad is refused). */
  extensionFirst: 2,
  sizeLf: 3,
  data: 4,
  dataCr: 5,
  dataLf: 6,
  trailerFirst: 7,
  trailerName: 8,
  trailerValue: 9,
  trailerLf: 10,
  endLf: 11,
  done: 12,
  failed: 13,
  extensionName: 14,
  extensionValueFirst: 15,
  extensionValue: 16,
  extensionQuoted: 17,
  extensionEscaped: 18,
  extensionEnd: 19,
} as const;
type State = (typeof STATE)[keyof typeof STATE];
type ExtensionState = (typeof STATE)[Extract<keyof typeof STATE, `extension${string}`>];

const HEX = new Int8Array(256).fill(-1);
for (let digit = 0; digit < 10; digit += 1) HEX[48 + digit] = digit;
for (let digit = 10; digit < 16; digit += 1) HEX[55 + digit] = HEX[87 + digit] = digit;

/**
 * Takes the chunked coding off a body (RFC 9112 7.1) as it arrives. The data of all chunks in one read is moved
 * together inside the caller's buffer, so it travels on in one piece: `bytes[dataStart, dataEnd)`.
 */
export class ChunkedDecoder {
  dataStart = 0;
  dataEnd = 0;
  /** Where the body ended in the last read; only when `done`. */
  end = 0;
  problem = "";
  /** Names, lower case, and values in turn; complete when `done`. */
  trailers: readonly string[] = NO_TRAILERS;
  #state: State = STATE.sizeFirst;
  #missing = 0;
  #digits = 0;
  #extensionBytes = 0;
  #trailerBytes = 0;
  #trailerName = "";
  #trailerValue = "";

  get done(): boolean {
    return this.#state === STATE.done;
  }

  reset(): void {
    this.#state = STATE.sizeFirst;
    this.#missing = 0;
    this.#digits = 0;
    this.#extensionBytes = 0;
    this.#trailerBytes = 0;
    this.trailers = NO_TRAILERS;
  }

  /** Reads `bytes[from, to)`, which it may change. False when the coding is broken; `problem` says how. */
  decode(bytes: Buffer, from: number, to: number): boolean {
    let at = from;
    let state = this.#state;
    this.dataStart = from;
    this.dataEnd = from;
    while (at < to && state !== STATE.done) {
      if (state === STATE.data) {
        const take = Math.min(this.#missing, to - at);
        this.#collect(bytes, at, at + take);
        at += take;
        this.#missing -= take;
        if (this.#missing === 0) state = STATE.dataCr;
        continue;
      }
      state = this.#step(state, bytes[at]!);
      at += 1;
      if (state === STATE.failed) break;
    }
    this.#state = state;
    this.end = at;
    return state !== STATE.failed;
  }

  #collect(bytes: Buffer, from: number, to: number): void {
    if (this.dataEnd === this.dataStart) {
      this.dataStart = from;
      this.dataEnd = to;
      return;
    }
    bytes.copyWithin(this.dataEnd, from, to);
    this.dataEnd += to - from;
  }

  /** The state behind one byte of framing. */
  #step(state: State, byte: number): State {
    switch (state) {
      case STATE.sizeFirst:
      case STATE.size:
        return this.#sizeByte(state, byte);
      case STATE.extensionFirst:
      case STATE.extensionName:
      case STATE.extensionValueFirst:
      case STATE.extensionValue:
      case STATE.extensionQuoted:
      case STATE.extensionEscaped:
      case STATE.extensionEnd:
        this.#extensionBytes += 1;
        if (this.#extensionBytes > EXTENSION_BYTES_MAX) return this.#fail("too many chunk extensions");
        return nextInExtension(state, byte) ?? this.#fail("a chunk extension that is not name=value");
      case STATE.sizeLf:
        if (byte !== LF) return this.#fail("a bare CR behind a chunk size");
        return this.#missing > 0 ? STATE.data : STATE.trailerFirst;
      case STATE.dataCr:
        return byte === CR ? STATE.dataLf : this.#fail("a chunk longer than its size");
      case STATE.dataLf:
        if (byte !== LF) return this.#fail("a chunk that does not end in CR LF");
        this.#digits = 0;
        return STATE.sizeFirst;
      case STATE.trailerFirst:
        if (byte === CR) return STATE.endLf;
        this.#trailerName = "";
        return this.#trailerNameByte(byte);
      case STATE.trailerName:
        if (byte !== COLON) return this.#trailerNameByte(byte);
        this.#trailerValue = "";
        return isRefusedTrailer(this.#trailerName)
          ? this.#fail(`${this.#trailerName} as a trailer`)
          : this.#trailer(true, STATE.trailerValue);
      case STATE.trailerValue:
        if (byte === CR) return STATE.trailerLf;
        this.#trailerValue += String.fromCharCode(byte);
        return this.#trailer((CLASS[byte]! & VALUE) !== 0, STATE.trailerValue);
      case STATE.trailerLf:
        if (byte !== LF) return this.#fail("a bare CR in a trailer");
        this.trailers = [...this.trailers, this.#trailerName, trimmed(this.#trailerValue)];
        return STATE.trailerFirst;
      case STATE.endLf:
        return byte === LF ? STATE.done : this.#fail("a bare CR at the end of the body");
      case STATE.data:
      case STATE.done:
      case STATE.failed:
        return state;
    }
  }

  #sizeByte(state: State, byte: number): State {
    const digit = HEX[byte]!;
    if (digit >= 0) {
      this.#digits += 1;
      if (this.#digits > SIZE_DIGITS_MAX) return this.#fail("a chunk size that is too long");
      this.#missing = this.#missing * 16 + digit;
      return STATE.size;
    }
    if (state === STATE.size && byte === CR) return STATE.sizeLf;
    if (state === STATE.size && byte === SEMICOLON) return STATE.extensionFirst;
    return this.#fail("a chunk size that is not hexadecimal");
  }

  #trailerNameByte(byte: number): State {
    this.#trailerName += String.fromCharCode(byte).toLowerCase();
    return this.#trailer((CLASS[byte]! & TOKEN) !== 0, STATE.trailerName);
  }

  #trailer(valid: boolean, next: State): State {
    this.#trailerBytes += 1;
    if (this.#trailerBytes > TRAILER_BYTES_MAX) return this.#fail("trailers that are too long");
    return valid ? next : this.#fail("a trailer that is not a field");
  }

  #fail(problem: string): State {
    this.problem = problem;
    return STATE.failed;
  }
}

/** Undefined when `byte` cannot stand there. */
function nextInExtension(state: ExtensionState, byte: number): State | undefined {
  const isToken = (CLASS[byte]! & TOKEN) !== 0;
  switch (state) {
    case STATE.extensionFirst:
      return isToken ? STATE.extensionName : undefined;
    case STATE.extensionName:
      if (byte === EQUALS) return STATE.extensionValueFirst;
      return isToken ? STATE.extensionName : endOfExtension(byte);
    case STATE.extensionValueFirst:
      if (byte === QUOTE) return STATE.extensionQuoted;
      return isToken ? STATE.extensionValue : undefined;
    case STATE.extensionValue:
      return isToken ? STATE.extensionValue : endOfExtension(byte);
    case STATE.extensionQuoted:
      if (byte === QUOTE) return STATE.extensionEnd;
      if (byte === BACKSLASH) return STATE.extensionEscaped;
      return (CLASS[byte]! & VALUE) !== 0 ? STATE.extensionQuoted : undefined;
    case STATE.extensionEscaped:
      return (CLASS[byte]! & VALUE) !== 0 ? STATE.extensionQuoted : undefined;
    case STATE.extensionEnd:
      return endOfExtension(byte);
  }
}

function endOfExtension(byte: number): State | undefined {
  if (byte === CR) return STATE.sizeLf;
  return byte === SEMICOLON ? STATE.extensionFirst : undefined;
}

/** Without the white space around it: SP and HTAB alone (RFC 9110 5.6.3), so no `trim`. */
function trimmed(value: string): string {
  return value.replace(/^[ \t]+|[ \t]+$/g, "");
}
