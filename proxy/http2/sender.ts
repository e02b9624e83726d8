import {
  CONTINUATION,
  DATA,
  FLAG_END_HEADERS,
  FLAG_END_STREAM,
  FRAME_BYTES_DEFAULT,
  FRAME_HEADER_BYTES,
  HEADERS,
  WINDOW_DEFAULT,
  WINDOW_LIMIT,
} from "./constants.ts";
import { HpackEncoder } from "./hpack-encoder.ts";
import { writeFrameHeader } from "./output.ts";
import type { Output } from "./output.ts";
import type { Stream } from "./stream.ts";

/** Below this much room a data frame starts a new slab rather than being cut small. */
const DATA_ROOM_MIN = 1_024;

const NO_FIELDS: readonly string[] = [];

export interface SenderEvents {
  /** END_STREAM has left on `stream`. */
  sent(stream: Stream): void;
  /** What `stream` had queued is on its way; the application may go on. */
  drained(stream: Stream): void;
  nowMs(): number;
}

/**
 * The sending half: heads, content within the peer's windows (RFC 9113, 5.2), and the queue of what does not fit.
 * Streams with queued content take turns, one frame each.
 */
export class Sender {
  readonly encoder = new HpackEncoder();
  /** Octets we may send on the connection. */
  window = WINDOW_DEFAULT;
  /** What a new stream may send: the peer's SETTINGS_INITIAL_WINDOW_SIZE. */
  initialWindow = WINDOW_DEFAULT;
  readonly #output: Output;
  readonly #events: SenderEvents;
  #round: Stream[] = [];
  #pumping = false;

  constructor(output: Output, events: SenderEvents) {
    this.#output = output;
    this.#events = events;
  }

  /**
   * Sends a field block as HEADERS and as many CONTINUATION frames as it needs. `pseudo` and `fields` are names and
   * values in turn; those in `fields` are cached, so what differs each time belongs into `extra`, which stands last.
   */
  head(
    streamId: number,
    pseudo: readonly string[],
    fields: readonly string[],
    endStream: boolean,
    extra: readonly string[] = NO_FIELDS,
  ): void {
    const output = this.#output;
    const listsBound = HpackEncoder.bound(pseudo) + HpackEncoder.bound(fields) + HpackEncoder.bound(extra);
    const bound = listsBound + FRAME_HEADER_BYTES;
    const bytes = output.reserve(bound);
    const begin = output.offset;
    const from = begin + FRAME_HEADER_BYTES;
    let at = this.encoder.start(bytes, from);
    for (let index = 0; index < pseudo.length; index += 2) {
      at = this.encoder.field(pseudo[index]!, pseudo[index + 1]!, bytes, at);
    }
    at = this.encoder.fields(fields, bytes, at);
    for (let index = 0; index < extra.length; index += 2) {
      at = this.encoder.field(extra[index]!, extra[index + 1]!, bytes, at);
    }
    const flags = endStream ? FLAG_END_STREAM : 0;
    if (at - from <= FRAME_BYTES_DEFAULT) {
      writeFrameHeader(bytes, begin, at - from, HEADERS, flags | FLAG_END_HEADERS, streamId);
      output.advance(at);
      return;
    }
    this.#longHead(streamId, Buffer.from(bytes.subarray(from, at)), flags);
  }

  #longHead(streamId: number, block: Buffer, flags: number): void {
    for (let at = 0; at < block.length; at += FRAME_BYTES_DEFAULT) {
      const piece = block.subarray(at, at + FRAME_BYTES_DEFAULT);
      const last = at + piece.length === block.length ? FLAG_END_HEADERS : 0;
      const type = at === 0 ? HEADERS : CONTINUATION;
      this.#output.frame(type, (at === 0 ? flags : 0) | last, streamId, piece);
    }
  }

  /**
   * Sends content, queueing a copy of what the windows or the socket do not take now. False when something was
   * queued: send no more on this stream before `drained`.
   */
  data(stream: Stream, bytes: Buffer, start: number, end: number, endStream: boolean): boolean {
    let at = start;
    if (stream.queuedBytes === 0) at = this.#write(stream, bytes, start, end, endStream);
    if (endStream) {
      stream.localEnded = true;
      if (at === end && stream.queuedBytes === 0) {
        if (!stream.localSent) this.#end(stream);
        return true;
      }
      stream.endQueued = true;
    }
    if (at < end) this.#enqueue(stream, Buffer.from(bytes.subarray(at, end)));
    if (stream.queuedBytes === 0) return true;
    stream.wantsDrain = true;
    return false;
  }

  /** Sends trailers, behind the content that is still queued. */
  trailers(stream: Stream, fields: readonly string[]): void {
    stream.localEnded = true;
    if (stream.queuedBytes > 0) {
      stream.trailers = fields;
      stream.endQueued = true;
      return;
    }
    this.head(stream.id, [], fields, true);
    this.#events.sent(stream);
  }

  /** WINDOW_UPDATE for a stream. False when the window would overflow. */
  openStream(stream: Stream, increment: number): boolean {
    if (stream.sendWindow + increment > WINDOW_LIMIT) return false;
    stream.sendWindow += increment;
    if (stream.queuedBytes > 0 && stream.sendWindow > 0) this.#join(stream);
    return true;
  }

  /** WINDOW_UPDATE for the connection. False when the window would overflow. */
  openConnection(increment: number): boolean {
    if (this.window + increment > WINDOW_LIMIT) return false;
    this.window += increment;
    return true;
  }

  /** SETTINGS_INITIAL_WINDOW_SIZE moves the windows of all streams (RFC 9113, 6.9.2). False on overflow. */
  setInitialWindow(bytes: number, streams: Iterable<Stream>): boolean {
    const change = bytes - this.initialWindow;
    this.initialWindow = bytes;
    for (const stream of streams) {
      if (!this.openStream(stream, change)) return false;
    }
    return true;
  }

  /** Sends queued content as far as windows and socket allow, a frame of each stream in turn. */
  pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    const now = this.#round.length > 0 ? this.#events.nowMs() : 0;
    while (this.#round.length > 0 && this.window > 0 && !this.#output.blocked) {
      const stream = this.#round.shift()!;
      stream.waiting = false;
      if (stream.closed) continue;
      stream.progressAtMs = now;
      this.#sendQueued(stream);
    }
    this.#pumping = false;
  }

  #sendQueued(stream: Stream): void {
    const piece = stream.queue[0]!;
    const end = Math.min(piece.length, FRAME_BYTES_DEFAULT);
    const last = stream.queue.length === 1 && end === piece.length;
    const ends = last && stream.endQueued && stream.trailers === undefined;
    const at = this.#write(stream, piece, 0, end, ends);
    stream.queuedBytes -= at;
    if (at === piece.length) stream.queue.shift();
    else stream.queue[0] = piece.subarray(at);
    if (stream.queuedBytes > 0) {
      if (stream.sendWindow > 0) this.#join(stream);
      return;
    }
    if (stream.trailers !== undefined) this.trailers(stream, stream.trailers);
    if (stream.wantsDrain && !stream.closed) {
      stream.wantsDrain = false;
      this.#events.drained(stream);
    }
  }

  #join(stream: Stream): void {
    if (stream.waiting) return;
    stream.waiting = true;
    this.#round.push(stream);
  }

  #enqueue(stream: Stream, bytes: Buffer): void {
    if (stream.queuedBytes === 0) stream.progressAtMs = this.#events.nowMs();
    stream.queue.push(bytes);
    stream.queuedBytes += bytes.length;
    if (stream.sendWindow > 0) this.#join(stream);
  }

  /** An empty DATA frame with END_STREAM; needs no window (RFC 9113, 6.9). */
  #end(stream: Stream): void {
    const bytes = this.#output.reserve(FRAME_HEADER_BYTES);
    const at = this.#output.offset;
    this.#output.advance(writeFrameHeader(bytes, at, 0, DATA, FLAG_END_STREAM, stream.id));
    this.#events.sent(stream);
  }

  /** Writes DATA frames as far as windows and socket allow; returns how far. */
  #write(stream: Stream, bytes: Buffer, start: number, end: number, endStream: boolean): number {
    const output = this.#output;
    let at = start;
    while (at < end && !output.blocked) {
      let length = Math.min(end - at, FRAME_BYTES_DEFAULT, stream.sendWindow, this.window);
      if (length <= 0) break;
      const room = output.room;
      if (length + FRAME_HEADER_BYTES > room && room >= DATA_ROOM_MIN) length = room - FRAME_HEADER_BYTES;
      const out = output.reserve(length + FRAME_HEADER_BYTES);
      if (output.blocked) break;
      const last = endStream && at + length === end;
      const from = writeFrameHeader(out, output.offset, length, DATA, last ? FLAG_END_STREAM : 0, stream.id);
      bytes.copy(out, from, at, at + length);
      output.advance(from + length);
      stream.sendWindow -= length;
      this.window -= length;
      at += length;
      if (!last) continue;
      this.#events.sent(stream);
    }
    return at;
  }
}
