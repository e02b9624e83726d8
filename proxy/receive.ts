/**
 * Where wires receive. Nearly every read is small and ends in a string, so all wires share one buffer. A wire that
 * fills it is moving something big: it gets a buffer of its own, whose bytes are sent on without being copied.
 */

const SHARED_BYTES = 65_536;
const OWN_BYTES = 131_072;
/** Around an own buffer, for the framing of a chunk: its size in front, CR LF and the last chunk behind. */
const MARGIN_BYTES = 16;
const SPARES_MAX = 32;

/** Whoever is called with it must be done with it when the call returns. */
export const sharedBytes: Buffer = Buffer.allocUnsafeSlow(SHARED_BYTES);

const spares: OwnBuffer[] = [];
const owners = new WeakMap<ArrayBufferLike, OwnBuffer>();

/** A buffer that one wire receives into. It goes back among the spares when nobody sends from it any more. */
export class OwnBuffer {
  readonly bytes: Buffer;
  #sending = 0;
  #released = false;

  static take(): OwnBuffer {
    const buffer = spares.pop() ?? new OwnBuffer();
    buffer.#released = false;
    return buffer;
  }

  /** The own buffer that `bytes` are a part of; undefined for others, the shared one among them. */
  static of(bytes: Uint8Array): OwnBuffer | undefined {
    return owners.get(bytes.buffer);
  }

  private constructor() {
    const memory = Buffer.allocUnsafeSlow(OWN_BYTES + 2 * MARGIN_BYTES);
    this.bytes = memory.subarray(MARGIN_BYTES, MARGIN_BYTES + OWN_BYTES);
    owners.set(memory.buffer, this);
  }

  /** `text`, `bytes[from, to)` and `behind` in one piece, made in place: at most the margin on each side is written. */
  frame(bytes: Buffer, from: number, to: number, text: string, behind: string): Buffer | undefined {
    if (text.length > MARGIN_BYTES || behind.length > MARGIN_BYTES) return undefined;
    const start = bytes.byteOffset + from - text.length;
    const piece = Buffer.from(bytes.buffer, start, text.length + to - from + behind.length);
    piece.write(text, 0, "latin1");
    piece.write(behind, text.length + to - from, "latin1");
    return piece;
  }

  /** A write from it waits for the kernel. */
  hold(): void {
    this.#sending += 1;
  }

  /** That write is over. */
  letGo(): void {
    this.#sending -= 1;
    this.#park();
  }

  /** Nothing is received into it any more. */
  release(): void {
    this.#released = true;
    this.#park();
  }

  #park(): void {
    if (this.#released && this.#sending === 0 && spares.length < SPARES_MAX) spares.push(this);
  }
}
