import { FRAME_HEADER_BYTES } from "./constants.ts";

const SLAB_BYTES = 65_536;
/** A slab with less room than this is not worth handing on. */
const ROOM_MIN = 2_048;
const SPARE_MAX = 16;

/** Memory that frames are written to. Handed from connection to connection: an idle one holds none. */
interface Slab {
  readonly bytes: Buffer;
  at: number;
}
const spares: Slab[] = [];

/** Takes what a connection wants to send. The bytes stay as they are, so they may be kept. False: enough for now. */
export type WriteBytes = (bytes: Buffer) => boolean;

/**
 * Collects the frames of one turn, so that many of them leave in one write. What was written is never touched
 * again; the socket may keep it without copying.
 */
export class Output {
  /** The socket has enough: data waits, control frames still go. */
  blocked = false;
  /** Octets of control frames written while blocked: what a peer costs us that does not read. */
  unreadBytes = 0;
  readonly #write: WriteBytes;
  readonly #schedule: (flush: () => void) => void;
  readonly #flush = (): void => {
    this.#scheduled = false;
    this.flush();
  };
  #slab: Slab | undefined;
  #start = 0;
  #scheduled = false;
  #held = false;

  constructor(write: WriteBytes, schedule: (flush: () => void) => void) {
    this.#write = write;
    this.#schedule = schedule;
  }

  /** Memory for `bytes` octets in a row from `offset` on. Follow with `advance`. */
  reserve(bytes: number): Buffer {
    let slab = this.#slab;
    if (slab !== undefined && slab.bytes.length - slab.at < bytes) {
      this.flush();
      slab = undefined;
    }
    if (slab === undefined) {
      slab = spares.pop();
      if (slab === undefined || slab.bytes.length - slab.at < bytes) {
        slab = { bytes: Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, bytes)), at: 0 };
      }
      this.#slab = slab;
      this.#start = slab.at;
    }
    return slab.bytes;
  }

  /** Where the next frame begins in what `reserve` returned. */
  get offset(): number {
    return this.#slab!.at;
  }

  /** Octets left without a new slab. */
  get room(): number {
    return this.#slab === undefined ? SLAB_BYTES : this.#slab.bytes.length - this.#slab.at;
  }

  /** Everything before `offset` is written. */
  advance(offset: number): void {
    this.#slab!.at = offset;
    if (!this.#held && !this.#scheduled) {
      this.#scheduled = true;
      this.#schedule(this.#flush);
    }
  }

  /** From here to `release` frames are only collected. */
  hold(): void {
    this.#held = true;
  }

  release(): void {
    this.#held = false;
    this.flush();
  }

  /** Hands over what was collected. */
  flush(): void {
    const slab = this.#slab;
    if (slab === undefined) return;
    this.#slab = undefined;
    const { bytes, at } = slab;
    if (bytes.length - at >= ROOM_MIN && spares.length < SPARE_MAX) spares.push(slab);
    if (at > this.#start && !this.#write(bytes.subarray(this.#start, at))) this.blocked = true;
  }

  /** A whole frame without payload beyond `word`, a 32-bit number: RST_STREAM and WINDOW_UPDATE. */
  wordFrame(type: number, streamId: number, word: number): void {
    const bytes = this.reserve(FRAME_HEADER_BYTES + 4);
    const at = writeFrameHeader(bytes, this.offset, 4, type, 0, streamId);
    this.control(bytes.writeUInt32BE(word >>> 0, at));
  }

  /** A frame with a payload: for the rare ones. */
  frame(type: number, flags: number, streamId: number, payload: Uint8Array): void {
    const bytes = this.reserve(FRAME_HEADER_BYTES + payload.length);
    const at = writeFrameHeader(bytes, this.offset, payload.length, type, flags, streamId);
    bytes.set(payload, at);
    this.control(at + payload.length);
  }

  /** Like `advance`, for a control frame. */
  control(offset: number): void {
    if (this.blocked) this.unreadBytes += offset - this.offset;
    this.advance(offset);
  }
}

/** Writes the nine octets of RFC 9113, 4.1; returns the offset behind them. */
export function writeFrameHeader(
  bytes: Buffer,
  offset: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): number {
  bytes[offset] = length >>> 16;
  bytes[offset + 1] = length >>> 8;
  bytes[offset + 2] = length;
  bytes[offset + 3] = type;
  bytes[offset + 4] = flags;
  bytes[offset + 5] = streamId >>> 24;
  bytes[offset + 6] = streamId >>> 16;
  bytes[offset + 7] = streamId >>> 8;
  bytes[offset + 8] = streamId;
  return offset + FRAME_HEADER_BYTES;
}

/**
 * One `schedule` for all the connections of a process: whatever they collect while sockets are being read leaves
 * together when the event loop has read them all.
 */
export function createFlushBatch(): (flush: () => void) => void {
  let waiting: (() => void)[] = [];
  const flushAll = () => {
    const due = waiting;
    waiting = [];
    for (const flush of due) flush();
  };
  return (flush) => {
    if (waiting.push(flush) === 1) setImmediate(flushAll);
  };
}
