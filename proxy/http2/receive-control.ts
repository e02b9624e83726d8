import {
  ENHANCE_YOUR_CALM,
  FLAG_ACK,
  FLOW_CONTROL_ERROR,
  FRAME_BYTES_DEFAULT,
  FRAME_BYTES_LIMIT,
  FRAME_SIZE_ERROR,
  PING,
  PROTOCOL_ERROR,
  REFUSED_STREAM,
  SETTINGS,
  SETTINGS_ENABLE_CONNECT_PROTOCOL,
  SETTINGS_ENABLE_PUSH,
  SETTINGS_HEADER_TABLE_SIZE,
  SETTINGS_INITIAL_WINDOW_SIZE,
  SETTINGS_MAX_CONCURRENT_STREAMS,
  SETTINGS_MAX_FRAME_SIZE,
  STREAM_ID_LIMIT,
  WINDOW_LIMIT,
} from "./constants.ts";
import type { Core } from "./core.ts";

/** Payloads of our PINGs, by which their answers are told apart. */
export const PING_ALIVE: Buffer = Buffer.from("alive?  ", "latin1");
export const PING_GOING: Buffer = Buffer.from("goodbye ", "latin1");
const NOTHING = Buffer.alloc(0);

/** RFC 9113, 6.5. */
export function receiveSettings(
  core: Core,
  flags: number,
  streamId: number,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  if (streamId !== 0) return core.fail(PROTOCOL_ERROR, "SETTINGS on a stream (RFC 9113, 6.5)");
  if ((flags & FLAG_ACK) !== 0) return receiveSettingsAck(core, end - start);
  if ((end - start) % 6 !== 0) return core.fail(FRAME_SIZE_ERROR, "SETTINGS is cut off (RFC 9113, 6.5)");
  if (core.settingsReceived && !core.chargeControl("SETTINGS")) return;
  // What a peer does not say is unlimited (RFC 9113, 6.5.2), once it has spoken.
  if (!core.settingsReceived) core.peerStreamsMax = STREAM_ID_LIMIT;
  core.settingsReceived = true;
  for (let at = start; at < end; at += 6) {
    applySetting(core, bytes.readUInt16BE(at), bytes.readUInt32BE(at + 2));
    if (core.dead) return;
  }
  core.output.frame(SETTINGS, FLAG_ACK, 0, NOTHING);
  chargeUnread(core);
  core.sender.pump();
  if (!core.isServer) core.events.onCapacity?.();
}

function receiveSettingsAck(core: Core, length: number): void {
  if (length !== 0) return core.fail(FRAME_SIZE_ERROR, "acknowledged SETTINGS with content (RFC 9113, 6.5)");
  if (!core.settingsReceived)
    return core.fail(PROTOCOL_ERROR, "SETTINGS acknowledged before any (RFC 9113, 3.4)");
  if (core.settingsAcknowledged) {
    core.chargeControl("SETTINGS");
    return;
  }
  core.settingsAcknowledged = true;
  const change = core.limits.streamWindowBytes - core.streamReceiveWindow;
  core.streamReceiveWindow += change;
  for (const stream of core.streams.values()) stream.receiveWindow += change;
}

/** RFC 9113, 6.5.2. Unknown settings are ignored; MAX_HEADER_LIST_SIZE is advice we leave to the peer to enforce. */
function applySetting(core: Core, setting: number, value: number): void {
  switch (setting) {
    case SETTINGS_HEADER_TABLE_SIZE:
      return core.sender.encoder.setPeerTableBytesMax(value);
    case SETTINGS_ENABLE_PUSH:
      // A server may only say 0 (RFC 9113, 6.5.2).
      if (value > (core.isServer ? 1 : 0))
        core.fail(PROTOCOL_ERROR, "ENABLE_PUSH is wrong (RFC 9113, 6.5.2)");
      return;
    case SETTINGS_MAX_CONCURRENT_STREAMS:
      core.peerStreamsMax = value;
      return;
    case SETTINGS_INITIAL_WINDOW_SIZE:
      if (value > WINDOW_LIMIT) {
        core.fail(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is above 2^31-1 (RFC 9113, 6.5.2)");
      } else if (!core.sender.setInitialWindow(value, core.streams.values())) {
        core.fail(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE overflows a stream's window (RFC 9113, 6.9.2)");
      }
      return;
    case SETTINGS_MAX_FRAME_SIZE:
      if (value < FRAME_BYTES_DEFAULT || value > FRAME_BYTES_LIMIT) {
        core.fail(PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of bounds (RFC 9113, 6.5.2)");
      }
      return;
    case SETTINGS_ENABLE_CONNECT_PROTOCOL:
      if (value > 1 || (value === 0 && core.peerConnectProtocol)) {
        core.fail(PROTOCOL_ERROR, "ENABLE_CONNECT_PROTOCOL is wrong (RFC 8441, 3)");
      }
      core.peerConnectProtocol = value === 1;
      return;
    default:
  }
}

/** RFC 9113, 6.7. */
export function receivePing(
  core: Core,
  flags: number,
  streamId: number,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  if (streamId !== 0) return core.fail(PROTOCOL_ERROR, "PING on a stream (RFC 9113, 6.7)");
  if (end - start !== 8) return core.fail(FRAME_SIZE_ERROR, "PING is not 8 octets (RFC 9113, 6.7)");
  const payload = bytes.subarray(start, end);
  if ((flags & FLAG_ACK) === 0) {
    if (!core.chargeControl("PING")) return;
    core.output.frame(PING, FLAG_ACK, 0, payload);
    return chargeUnread(core);
  }
  core.pingSentAtMs = -1;
  if (core.going === "announced" && payload.equals(PING_GOING)) core.settleGoing();
  else core.chargeControl("PING");
}

/** RFC 9113, 6.8. */
export function receiveGoaway(core: Core, streamId: number, bytes: Buffer, start: number, end: number): void {
  if (streamId !== 0) return core.fail(PROTOCOL_ERROR, "GOAWAY on a stream (RFC 9113, 6.8)");
  if (end - start < 8) return core.fail(FRAME_SIZE_ERROR, "GOAWAY is cut off (RFC 9113, 6.8)");
  if (!core.chargeControl("GOAWAY")) return;
  const lastId = bytes.readUInt32BE(start) & STREAM_ID_LIMIT;
  const code = bytes.readUInt32BE(start + 4);
  core.peerGoing = true;
  if (!core.isServer) {
    for (const stream of core.streams.values()) {
      if (stream.id <= lastId) continue;
      stream.resetByPeer = true;
      core.drop(stream);
      core.events.onReset(stream, REFUSED_STREAM, "the peer went away before it saw the request");
    }
  }
  core.events.onGoaway?.(code, bytes.latin1Slice(start + 8, Math.min(end, start + 208)));
  core.finishIfDone();
}

/** RFC 9113, 6.9. */
export function receiveWindowUpdate(
  core: Core,
  streamId: number,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  if (end - start !== 4) return core.fail(FRAME_SIZE_ERROR, "WINDOW_UPDATE is not 4 octets (RFC 9113, 6.9)");
  if (!core.windowUpdates.take(core.nowMs)) {
    return core.fail(ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames");
  }
  const increment = bytes.readUInt32BE(start) & WINDOW_LIMIT;
  if (streamId === 0) {
    if (increment === 0) return core.fail(PROTOCOL_ERROR, "WINDOW_UPDATE by 0 (RFC 9113, 6.9)");
    if (!core.sender.openConnection(increment)) {
      return core.fail(FLOW_CONTROL_ERROR, "the connection's window overflows (RFC 9113, 6.9.1)");
    }
    return core.sender.pump();
  }
  const stream = core.streams.get(streamId);
  if (stream === undefined) {
    if (core.isIdle(streamId)) core.fail(PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream (RFC 9113, 5.1)");
    return;
  }
  if (increment === 0) return core.failStream(stream, PROTOCOL_ERROR, "WINDOW_UPDATE by 0 (RFC 9113, 6.9)");
  if (!core.sender.openStream(stream, increment)) {
    return core.failStream(stream, FLOW_CONTROL_ERROR, "the stream's window overflows (RFC 9113, 6.9.1)");
  }
  core.sender.pump();
}

/** Ends a connection whose peer asks for answers and does not read them. */
function chargeUnread(core: Core): void {
  if (core.output.unreadBytes > core.limits.unreadBytesMax) {
    core.fail(ENHANCE_YOUR_CALM, "answers to control frames are not being read");
  }
}
