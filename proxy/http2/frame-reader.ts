import { FRAME_BYTES_DEFAULT, FRAME_HEADER_BYTES, PREFACE } from "./constants.ts";

/** Where whole frames go. The payload is `bytes[start, end)`, valid until the call returns. */
export interface FrameSink {
  frame(type: number, flags: number, streamId: number, bytes: Buffer, start: number, end: number): void;
  /** A frame longer than we announced; nothing of its payload was kept. */
  frameTooLong(type: number, streamId: number): void;
  /** The first octets are not the client's connection preface. */
  badPreface(): void;
  /** True when nothing more is to be read. */
  readonly dead: boolean;
}

/**
 * Cuts a stream of octets into frames (RFC 9113, 4.1). Frames that lie whole in what is received are not copied; of
 * one that does not, at most its own length is kept.
 */
export class FrameReader {
  /** Octets of the preface still to come; 0 in a client. */
  #prefaceLeft: number;
  #kept: Buffer | undefined;
  #keptBytes = 0;

  constructor(expectPreface: boolean) {
    this.#prefaceLeft = expectPreface ? PREFACE.length : 0;
  }

  /** Octets of an unfinished frame, which idle timeouts may want to know. */
  get keptBytes(): number {
    return this.#keptBytes;
  }

  read(bytes: Buffer, sink: FrameSink): void {
    let at = 0;
    while (this.#prefaceLeft > 0 && at < bytes.length) {
      if (bytes[at] !== PREFACE[PREFACE.length - this.#prefaceLeft]) return sink.badPreface();
      at += 1;
      this.#prefaceLeft -= 1;
    }
    if (this.#kept !== undefined) at = this.#complete(bytes, at, sink);
    while (!sink.dead && bytes.length - at >= FRAME_HEADER_BYTES) {
      const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
      if (length > FRAME_BYTES_DEFAULT) return sink.frameTooLong(bytes[at + 3]!, streamIdAt(bytes, at));
      const end = at + FRAME_HEADER_BYTES + length;
      if (end > bytes.length) break;
      sink.frame(bytes[at + 3]!, bytes[at + 4]!, streamIdAt(bytes, at), bytes, at + FRAME_HEADER_BYTES, end);
      at = end;
    }
    if (!sink.dead && at < bytes.length) this.#keep(bytes, at);
  }

  /** Fills the kept frame from `bytes[at…]` and hands it over when whole; returns how far it read. */
  #complete(bytes: Buffer, offset: number, sink: FrameSink): number {
    let at = offset;
    while (this.#kept !== undefined && at < bytes.length) {
      const kept: Buffer = this.#kept;
      const wanted = this.#keptBytes < FRAME_HEADER_BYTES ? FRAME_HEADER_BYTES : kept.length;
      const taken = Math.min(wanted - this.#keptBytes, bytes.length - at);
      bytes.copy(kept, this.#keptBytes, at, at + taken);
      this.#keptBytes += taken;
      at += taken;
      if (this.#keptBytes < wanted) return at;
      if (wanted === FRAME_HEADER_BYTES && this.#grow(kept, sink)) return bytes.length;
      if (this.#keptBytes < this.#kept.length) continue;
      const frame = this.#kept;
      this.#kept = undefined;
      this.#keptBytes = 0;
      sink.frame(frame[3]!, frame[4]!, streamIdAt(frame, 0), frame, FRAME_HEADER_BYTES, frame.length);
    }
    return at;
  }

  /** Makes room for the payload whose length is now known. True when it is too long. */
  #grow(kept: Buffer, sink: FrameSink): boolean {
    const length = (kept[0]! << 16) | (kept[1]! << 8) | kept[2]!;
    if (length > FRAME_BYTES_DEFAULT) {
      sink.frameTooLong(kept[3]!, streamIdAt(kept, 0));
      return true;
    }
    if (kept.length !== FRAME_HEADER_BYTES + length) {
      this.#kept = Buffer.allocUnsafeSlow(FRAME_HEADER_BYTES + length);
      kept.copy(this.#kept, 0, 0, FRAME_HEADER_BYTES);
    }
    return false;
  }

  #keep(bytes: Buffer, at: number): void {
    const left = bytes.length - at;
    const length =
      left < FRAME_HEADER_BYTES ? 0 : (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    this.#kept = Buffer.allocUnsafeSlow(FRAME_HEADER_BYTES + length);
    bytes.copy(this.#kept, 0, at);
    this.#keptBytes = left;
  }
}

/** The reserved bit is ignored (RFC 9113, 4.1). */
function streamIdAt(bytes: Buffer, at: number): number {
  return ((bytes[at + 5]! & 0x7f) << 24) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 8) | bytes[at + 8]!;
}
