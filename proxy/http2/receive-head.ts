import {
  COMPRESSION_ERROR,
  ENHANCE_YOUR_CALM,
  FLAG_END_HEADERS,
  FLAG_END_STREAM,
  FLAG_PADDED,
  FLAG_PRIORITY,
  FRAME_SIZE_ERROR,
  NO_ERROR,
  PROTOCOL_ERROR,
  REFUSED_STREAM,
  STREAM_CLOSED,
} from "./constants.ts";
import type { Core } from "./core.ts";
import { parseRequestHead, parseResponseHead, trailersProblem } from "./head.ts";
import type { Head } from "./head.ts";
import { AWAITING_HEAD, ENDED, IN_BODY, Stream } from "./stream.ts";

/** Interim responses one exchange may have. */
const INTERIM_MAX = 32;
const REQUEST_TOO_LARGE = ["content-length", "0", "x-gilliam-reason", "head_too_large"] as const;

/** RFC 9113, 6.2. */
export function receiveHeaders(
  core: Core,
  flags: number,
  streamId: number,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  if (streamId === 0) return core.fail(PROTOCOL_ERROR, "HEADERS on stream 0 (RFC 9113, 6.2)");
  if (core.isServer ? (streamId & 1) === 0 : core.isIdle(streamId)) {
    return core.fail(PROTOCOL_ERROR, "HEADERS on a stream that is not the peer's to open (RFC 9113, 5.1.1)");
  }
  let from = start;
  let to = end;
  if ((flags & FLAG_PADDED) !== 0) {
    if (from === to) return core.fail(FRAME_SIZE_ERROR, "padded HEADERS without its length (RFC 9113, 6.2)");
    to -= bytes[from]!;
    from += 1;
  }
  if ((flags & FLAG_PRIORITY) !== 0) from += 5;
  if (from > to) return core.fail(PROTOCOL_ERROR, "padding or priority exceeds HEADERS (RFC 9113, 6.2)");
  const endStream = (flags & FLAG_END_STREAM) !== 0;
  if ((flags & FLAG_END_HEADERS) !== 0) return receiveBlock(core, streamId, endStream, bytes, from, to);
  core.blockStreamId = streamId;
  core.blockEndStream = endStream;
  core.blockPieces = [Buffer.from(bytes.subarray(from, to))];
  core.blockBytes = to - from;
  core.blockStartedMs = core.nowMs();
}

/** RFC 9113, 6.10. That the stream is the right one was checked before. */
export function receiveContinuation(
  core: Core,
  flags: number,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  const streamId = core.blockStreamId;
  if (streamId === 0) return core.fail(PROTOCOL_ERROR, "CONTINUATION without HEADERS (RFC 9113, 6.10)");
  core.blockPieces.push(Buffer.from(bytes.subarray(start, end)));
  core.blockBytes += end - start;
  const { continuationsMax, blockBytesMax } = core.limits;
  if (core.blockPieces.length - 1 > continuationsMax || core.blockBytes > blockBytesMax) {
    return core.fail(ENHANCE_YOUR_CALM, "a head takes too many CONTINUATION frames or octets");
  }
  if ((flags & FLAG_END_HEADERS) === 0) return;
  const block = Buffer.concat(core.blockPieces);
  core.blockStreamId = 0;
  core.blockPieces = [];
  receiveBlock(core, streamId, core.blockEndStream, block, 0, block.length);
}

/** A whole field block: a head, trailers, or late ones nobody wants, which still keep the table in step. */
function receiveBlock(
  core: Core,
  streamId: number,
  endStream: boolean,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  const stream = core.streams.get(streamId);
  if (stream === undefined) {
    if (core.isServer && streamId > core.lastRemoteId) {
      core.lastRemoteId = streamId;
      return openStream(core, streamId, endStream, bytes, start, end);
    }
    if (!core.isForgiven(streamId) && streamId <= core.lastServedId) {
      return core.fail(STREAM_CLOSED, "HEADERS on a closed stream (RFC 9113, 5.1)");
    }
    decode(core, bytes, start, end);
    return;
  }
  if (stream.phase === AWAITING_HEAD) return receiveResponse(core, stream, endStream, bytes, start, end);
  if (!decode(core, bytes, start, end)) return;
  if (stream.phase === ENDED) {
    return core.failStream(stream, STREAM_CLOSED, "HEADERS behind END_STREAM (RFC 9113, 5.1)");
  }
  receiveTrailers(core, stream, endStream);
}

/** False when the block cannot be decoded: the connection has ended. */
function decode(core: Core, bytes: Buffer, start: number, end: number): boolean {
  if (core.decoder.decode(bytes, start, end, core.limits.headBytesMax)) return true;
  core.fail(COMPRESSION_ERROR, "a field block cannot be decoded (RFC 7541)");
  return false;
}

/** Server: a new request. */
function openStream(
  core: Core,
  streamId: number,
  endStream: boolean,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  const head = readHead(core, bytes, start, end);
  if (core.dead || streamId > core.lastServedId) return;
  if (core.streams.size >= core.limits.streamsMax) {
    return core.refuse(streamId, REFUSED_STREAM, "too many streams at once (RFC 9113, 5.1.2)");
  }
  if (head === TOO_LARGE) return refuseLargeHead(core, streamId, endStream);
  if (typeof head === "string") return core.refuse(streamId, PROTOCOL_ERROR, head);
  if (endStream && head.contentLength > 0) {
    return core.refuse(streamId, PROTOCOL_ERROR, "content does not match its length (RFC 9113, 8.1.1)");
  }
  const phase = endStream ? ENDED : IN_BODY;
  const stream = new Stream(streamId, phase, core.sender.initialWindow, core.streamReceiveWindow);
  stream.expected = head.contentLength;
  core.streams.set(streamId, stream);
  core.events.onHead(stream, head, endStream);
}

/** 431, as RFC 9113, 10.5.1 suggests; the rest of the request is not wanted. */
function refuseLargeHead(core: Core, streamId: number, endStream: boolean): void {
  core.sender.head(streamId, [":status", "431"], REQUEST_TOO_LARGE, true);
  core.events.onRefused?.(streamId, ENHANCE_YOUR_CALM, "the head is too large; answered 431");
  if (!endStream) core.writeReset(streamId, NO_ERROR);
  core.chargeReset();
}

/** Client: an interim or the final response. */
function receiveResponse(
  core: Core,
  stream: Stream,
  endStream: boolean,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  const head = readHead(core, bytes, start, end);
  if (core.dead) return;
  if (typeof head === "string") {
    const reason = head === TOO_LARGE ? "the response's head is too large" : head;
    return core.failStream(stream, head === TOO_LARGE ? ENHANCE_YOUR_CALM : PROTOCOL_ERROR, reason);
  }
  if (head.status < 200) return receiveInterim(core, stream, head, endStream);
  const { status } = head;
  const contentless = stream.headRequest || status === 204 || status === 304;
  stream.expected = contentless ? 0 : head.contentLength;
  if (endStream && stream.expected > 0) {
    return core.failStream(stream, PROTOCOL_ERROR, "content does not match its length (RFC 9113, 8.1.1)");
  }
  stream.phase = endStream ? ENDED : IN_BODY;
  core.events.onHead(stream, head, endStream);
  core.settle(stream);
}

function receiveInterim(core: Core, stream: Stream, head: Head, endStream: boolean): void {
  if (endStream)
    return core.failStream(stream, PROTOCOL_ERROR, "an interim response ends the stream (RFC 9113, 8.1)");
  stream.interim += 1;
  if (stream.interim > INTERIM_MAX) {
    return core.failStream(stream, ENHANCE_YOUR_CALM, "too many interim responses");
  }
  core.events.onInterim?.(stream, head);
}

/** RFC 9113, 8.1. The block was decoded. */
function receiveTrailers(core: Core, stream: Stream, endStream: boolean): void {
  const { fields, invalid, tooLarge } = core.decoder;
  if (!endStream)
    return core.failStream(stream, PROTOCOL_ERROR, "trailers without END_STREAM (RFC 9113, 8.1)");
  if (tooLarge) return core.failStream(stream, ENHANCE_YOUR_CALM, "the trailers are too large");
  const problem = invalid === "" ? trailersProblem(fields) : invalid;
  if (problem !== undefined) return core.failStream(stream, PROTOCOL_ERROR, problem);
  if (stream.expected >= 0 && stream.received !== stream.expected) {
    return core.failStream(stream, PROTOCOL_ERROR, "content does not match its length (RFC 9113, 8.1.1)");
  }
  stream.phase = ENDED;
  core.events.onTrailers(stream, fields);
  core.settle(stream);
}

/** Not a sentence, as it never leaves this file. */
const TOO_LARGE = "TOO_LARGE";

/** Decodes and checks a head, or takes it from the cache; in plain words what is wrong with it. */
function readHead(core: Core, bytes: Buffer, start: number, end: number): Head | string {
  const { decoder, heads } = core;
  const generation = decoder.generation;
  const known = heads.get(bytes, start, end, generation);
  if (known !== undefined) return known;
  if (!decode(core, bytes, start, end)) return "";
  if (decoder.tooLarge) return TOO_LARGE;
  if (decoder.invalid !== "") return decoder.invalid;
  const head = core.isServer
    ? parseRequestHead(decoder.fields, core.extendedConnect)
    : parseResponseHead(decoder.fields);
  if (typeof head !== "string" && generation === decoder.generation) {
    heads.set(bytes, start, end, generation, head);
  }
  return head;
}
