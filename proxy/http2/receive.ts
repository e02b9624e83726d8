import {
  CONTINUATION,
  DATA,
  ENHANCE_YOUR_CALM,
  FLAG_END_STREAM,
  FLAG_PADDED,
  FLOW_CONTROL_ERROR,
  FRAME_SIZE_ERROR,
  GOAWAY,
  HEADERS,
  NO_ERROR,
  PING,
  PRIORITY,
  PROTOCOL_ERROR,
  PUSH_PROMISE,
  RST_STREAM,
  SETTINGS,
  STREAM_CLOSED,
  WINDOW_UPDATE,
} from "./constants.ts";
import type { Core } from "./core.ts";
import { receiveGoaway, receivePing, receiveSettings, receiveWindowUpdate } from "./receive-control.ts";
import { receiveContinuation, receiveHeaders } from "./receive-head.ts";
import { AWAITING_HEAD, ENDED } from "./stream.ts";

/** One whole frame (RFC 9113, 6); its payload is `bytes[start, end)`. */
export function receiveFrame(
  core: Core,
  type: number,
  flags: number,
  streamId: number,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  if (core.blockStreamId !== 0 && (type !== CONTINUATION || streamId !== core.blockStreamId)) {
    return core.fail(PROTOCOL_ERROR, "a head was interrupted by another frame (RFC 9113, 4.3)");
  }
  if (!core.settingsReceived && type !== SETTINGS) {
    return core.fail(PROTOCOL_ERROR, "the first frame is not SETTINGS (RFC 9113, 3.4)");
  }
  switch (type) {
    case DATA:
      return receiveData(core, flags, streamId, bytes, start, end);
    case HEADERS:
      return receiveHeaders(core, flags, streamId, bytes, start, end);
    case CONTINUATION:
      return receiveContinuation(core, flags, bytes, start, end);
    case RST_STREAM:
      return receiveReset(core, streamId, bytes, start, end);
    case WINDOW_UPDATE:
      return receiveWindowUpdate(core, streamId, bytes, start, end);
    case SETTINGS:
      return receiveSettings(core, flags, streamId, bytes, start, end);
    case PING:
      return receivePing(core, flags, streamId, bytes, start, end);
    case GOAWAY:
      return receiveGoaway(core, streamId, bytes, start, end);
    case PRIORITY:
      return receivePriority(core, streamId, end - start);
    case PUSH_PROMISE:
      // We never allow push, and a client may not (RFC 9113, 8.4).
      return core.fail(PROTOCOL_ERROR, "PUSH_PROMISE without leave (RFC 9113, 8.4)");
    default:
      // Unknown types are ignored (RFC 9113, 5.5), not free of charge.
      core.chargeControl("unknown");
  }
}

/** RFC 9113, 6.1. */
function receiveData(
  core: Core,
  flags: number,
  streamId: number,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  if (streamId === 0) return core.fail(PROTOCOL_ERROR, "DATA on stream 0 (RFC 9113, 6.1)");
  const frameBytes = end - start;
  let from = start;
  let to = end;
  if ((flags & FLAG_PADDED) !== 0) {
    if (frameBytes === 0)
      return core.fail(FRAME_SIZE_ERROR, "padded DATA without its length (RFC 9113, 6.1)");
    from += 1;
    to -= bytes[start]!;
    if (to < from) return core.fail(PROTOCOL_ERROR, "padding exceeds DATA (RFC 9113, 6.1)");
  }
  if (frameBytes > core.receiveWindow) {
    return core.fail(FLOW_CONTROL_ERROR, "DATA exceeds the connection's window (RFC 9113, 6.9.1)");
  }
  core.receiveWindow -= frameBytes;
  const stream = core.streams.get(streamId);
  if (stream === undefined) {
    if (core.isIdle(streamId)) return core.fail(PROTOCOL_ERROR, "DATA on an idle stream (RFC 9113, 5.1)");
    if (!core.isForgiven(streamId) && streamId <= core.lastServedId) {
      return core.fail(STREAM_CLOSED, "DATA on a closed stream (RFC 9113, 5.1)");
    }
    return core.giveBack(frameBytes);
  }
  const endStream = (flags & FLAG_END_STREAM) !== 0;
  const contentBytes = to - from;
  // From here on octets that do not reach the application are given back at once.
  const problem = dataProblem(stream.phase, frameBytes > stream.receiveWindow);
  if (problem !== undefined) {
    core.giveBack(frameBytes);
    return core.failStream(stream, problem.code, problem.reason);
  }
  stream.receiveWindow -= frameBytes;
  stream.received += contentBytes;
  if (stream.expected >= 0) {
    const wrong = endStream ? stream.received !== stream.expected : stream.received > stream.expected;
    if (wrong) {
      core.giveBack(frameBytes);
      return core.failStream(stream, PROTOCOL_ERROR, "content does not match its length (RFC 9113, 8.1.1)");
    }
  }
  if (contentBytes === 0 && !endStream && !core.chargeControl("empty DATA")) return;
  if (frameBytes > contentBytes) {
    core.giveBack(frameBytes - contentBytes);
    core.giveBackStream(stream, frameBytes - contentBytes);
  }
  stream.unconsumed += contentBytes;
  if (endStream) stream.phase = ENDED;
  core.events.onData(stream, bytes, from, to, endStream);
  if (endStream) core.settle(stream);
}

function dataProblem(phase: number, overflows: boolean): { code: number; reason: string } | undefined {
  if (phase === ENDED) return { code: STREAM_CLOSED, reason: "DATA behind END_STREAM (RFC 9113, 5.1)" };
  if (phase === AWAITING_HEAD)
    return { code: PROTOCOL_ERROR, reason: "DATA before the head (RFC 9113, 8.1)" };
  if (!overflows) return undefined;
  return { code: FLOW_CONTROL_ERROR, reason: "DATA exceeds the stream's window (RFC 9113, 6.9.1)" };
}

/** RFC 9113, 6.4. */
function receiveReset(core: Core, streamId: number, bytes: Buffer, start: number, end: number): void {
  if (end - start !== 4) return core.fail(FRAME_SIZE_ERROR, "RST_STREAM is not 4 octets (RFC 9113, 6.4)");
  if (streamId === 0 || core.isIdle(streamId)) {
    return core.fail(PROTOCOL_ERROR, "RST_STREAM on an idle stream (RFC 9113, 6.4)");
  }
  const code = bytes.readUInt32BE(start);
  const stream = core.streams.get(streamId);
  if (stream !== undefined) {
    stream.resetByPeer = true;
    core.drop(stream);
    core.events.onReset(stream, code, core.describeReset(streamId, code));
  }
  // A server may reset what it has answered completely (RFC 9113, 8.1); a client has no such reason.
  if (!core.isServer && (stream !== undefined || code === NO_ERROR)) return;
  if (!core.resets.take(core.nowMs)) core.fail(ENHANCE_YOUR_CALM, "too many streams were reset");
}

/** Priorities are ignored (RFC 9113, 5.3.2). */
function receivePriority(core: Core, streamId: number, length: number): void {
  if (streamId === 0) return core.fail(PROTOCOL_ERROR, "PRIORITY on stream 0 (RFC 9113, 6.3)");
  if (!core.chargeControl("PRIORITY")) return;
  if (length === 5) return;
  const stream = core.streams.get(streamId);
  if (stream === undefined) return core.fail(FRAME_SIZE_ERROR, "PRIORITY is not 5 octets (RFC 9113, 6.3)");
  core.failStream(stream, FRAME_SIZE_ERROR, "PRIORITY is not 5 octets (RFC 9113, 6.3)");
}
