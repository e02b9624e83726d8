import {
  ENHANCE_YOUR_CALM,
  FRAME_SIZE_ERROR,
  INTERNAL_ERROR,
  NO_ERROR,
  PING,
  PREFACE,
  PROTOCOL_ERROR,
  SETTINGS,
  SETTINGS_ENABLE_CONNECT_PROTOCOL,
  SETTINGS_ENABLE_PUSH,
  SETTINGS_INITIAL_WINDOW_SIZE,
  SETTINGS_MAX_CONCURRENT_STREAMS,
  SETTINGS_MAX_HEADER_LIST_SIZE,
  SETTINGS_TIMEOUT,
  STREAM_ID_LIMIT,
  WINDOW_DEFAULT,
  WINDOW_UPDATE,
} from "./constants.ts";
import { Core } from "./core.ts";
import type { ConnectionOptions } from "./core.ts";
import { FrameReader } from "./frame-reader.ts";
import type { FrameSink } from "./frame-reader.ts";
import { PING_ALIVE, PING_GOING } from "./receive-control.ts";
import { receiveFrame } from "./receive.ts";
import { AWAITING_HEAD, ENDED, Stream } from "./stream.ts";

/** What a client asks for. */
export interface RequestTarget {
  readonly method: string;
  /** "http" or "https"; "" for a CONNECT without `protocol`. */
  readonly scheme: string;
  readonly authority: string;
  /** "" for a CONNECT without `protocol`. */
  readonly path: string;
  /** `:protocol` of an extended CONNECT. */
  readonly protocol?: string;
}

/**
 * One HTTP/2 connection (RFC 9113), server or client, without I/O. Octets go in through `receive`, events come out
 * of it synchronously; what is to be sent goes out through `write`, in one piece for each turn. It never throws on
 * anything a peer sends. After `onClose` every call does nothing.
 */
export class Connection<C = unknown> {
  readonly #core: Core;
  readonly #reader: FrameReader;
  readonly #sink: FrameSink;
  #receiving = false;

  constructor(options: ConnectionOptions<C>) {
    const core = new Core(options);
    this.#core = core;
    this.#reader = new FrameReader(core.isServer);
    this.#sink = {
      frame: (type, flags, id, bytes, start, end) => receiveFrame(core, type, flags, id, bytes, start, end),
      frameTooLong: () => core.fail(FRAME_SIZE_ERROR, "a frame is longer than announced (RFC 9113, 4.2)"),
      badPreface: () => core.fail(PROTOCOL_ERROR, "the connection preface is wrong (RFC 9113, 3.4)"),
      get dead() {
        return core.dead;
      },
    };
    this.#sendPreface();
  }

  /** Streams that are open. */
  get streamCount(): number {
    return this.#core.streams.size;
  }

  /** The peer has said what it allows. A client does well to wait: before that it can only guess. */
  get greeted(): boolean {
    return this.#core.settingsReceived;
  }

  /** Client: the peer takes extended CONNECT requests (RFC 8441 3). */
  get takesExtendedConnect(): boolean {
    return this.#core.peerConnectProtocol;
  }

  get closed(): boolean {
    return this.#core.dead;
  }

  /** Client: streams that may be opened now. 0 after GOAWAY in either direction. */
  get capacity(): number {
    const { peerStreamsMax, streams, going, peerGoing, nextLocalId, dead } = this.#core;
    if (dead || going !== "open" || peerGoing || nextLocalId > STREAM_ID_LIMIT) return 0;
    return Math.max(0, peerStreamsMax - streams.size);
  }

  /** Takes octets from the transport. They are not kept: the buffer may be used again. */
  receive(bytes: Buffer): void {
    const core = this.#core;
    if (core.dead || this.#receiving) return;
    core.heardSinceTick = true;
    this.#receiving = true;
    core.output.hold();
    try {
      this.#reader.read(bytes, this.#sink);
    } finally {
      this.#receiving = false;
      core.output.release();
    }
  }

  /** The transport has drained after `write` said false. */
  writable(): void {
    const { output, sender, dead } = this.#core;
    output.blocked = false;
    output.unreadBytes = 0;
    if (!dead) sender.pump();
  }

  /** The transport is gone: resets what is open, says nothing to the peer. */
  abort(reason: string): void {
    this.#core.finish(INTERNAL_ERROR, reason);
  }

  /**
   * Client: sends a request's head. `fields` are names, in any case, and values in turn; they must not change
   * afterwards, as their encoding is cached by identity; what differs each time belongs into `extra`. Undefined when
   * `capacity` is 0.
   */
  request(
    target: RequestTarget,
    fields: readonly string[],
    endStream: boolean,
    context?: C,
    extra?: readonly string[],
  ): Stream<C> | undefined {
    const core = this.#core;
    if (core.isServer || this.capacity === 0) return undefined;
    const { method, scheme, authority, path, protocol } = target;
    const stream = new Stream<C>(
      core.nextLocalId,
      AWAITING_HEAD,
      core.sender.initialWindow,
      core.streamReceiveWindow,
    );
    core.nextLocalId += 2;
    stream.context = context;
    stream.headRequest = method === "HEAD";
    core.streams.set(stream.id, stream);
    const pseudo = [":method", method, ":authority", authority];
    if (scheme !== "") pseudo.push(":scheme", scheme, ":path", path);
    if (protocol !== undefined) pseudo.push(":protocol", protocol);
    core.sender.head(stream.id, pseudo, fields, endStream, extra);
    stream.localEnded = stream.localSent = endStream;
    return stream;
  }

  /** Server: sends the final response's head. `fields` as for `request`. */
  respond(stream: Stream<C>, status: number, fields: readonly string[], endStream: boolean): void {
    const core = this.#core;
    if (stream.closed || stream.localEnded || core.dead) return;
    core.sender.head(stream.id, statusField(status), fields, endStream);
    if (endStream) core.endLocal(stream);
  }

  /** Server: sends an interim response, 100 or 102 to 199. */
  respondInterim(stream: Stream<C>, status: number, fields: readonly string[]): void {
    if (stream.closed || stream.localEnded || this.#core.dead) return;
    this.#core.sender.head(stream.id, statusField(status), fields, false);
  }

  /**
   * Sends content; `bytes` may be used again afterwards. False when some had to be queued for want of a window or
   * because the transport is full: send no more on this stream before `onDrain`.
   */
  sendData(stream: Stream<C>, bytes: Buffer, start: number, end: number, endStream: boolean): boolean {
    if (stream.closed || stream.localEnded || this.#core.dead) return true;
    return this.#core.sender.data(stream, bytes, start, end, endStream);
  }

  /** Sends trailers, which end our side. */
  sendTrailers(stream: Stream<C>, fields: readonly string[]): void {
    if (stream.closed || stream.localEnded || this.#core.dead) return;
    this.#core.sender.trailers(stream, fields);
  }

  /** The application is done with octets it got by `onData`: the peer may send as many again. */
  consumed(stream: Stream<C>, bytes: number): void {
    const taken = Math.min(bytes, stream.unconsumed);
    stream.unconsumed -= taken;
    this.#core.giveBackStream(stream, taken);
    this.#core.giveBack(taken);
  }

  /**
   * Server: the rest of the request is not wanted. When the response has left, what is queued of it included, the
   * client is told to stop (RFC 9113, 8.1). No event follows.
   */
  discard(stream: Stream<C>): void {
    const core = this.#core;
    if (stream.closed || core.dead || stream.phase === ENDED) return;
    stream.unwanted = true;
    if (stream.localSent) core.endLocal(stream);
  }

  /** Ends an exchange early. No event follows. NO_ERROR: the response is complete, the rest of the request is not needed. */
  reset(stream: Stream<C>, code: number): void {
    const core = this.#core;
    if (stream.closed || core.dead) return;
    core.writeReset(stream.id, code);
    core.drop(stream);
  }

  /**
   * Lets what is open end and takes nothing new: GOAWAY in two steps, so that a request already on its way is still
   * served (RFC 9113, 6.8). `onClose` follows with the last stream. `peerEnded`: nothing is on its way, one step does.
   */
  shutdown(peerEnded = false): void {
    const core = this.#core;
    if (core.dead || core.going === "final") return;
    if (!core.isServer || peerEnded) return core.settleGoing();
    if (core.going !== "open") return;
    core.announceGoing();
    core.output.frame(PING, 0, 0, PING_GOING);
    core.pingSentAtMs = core.nowMs();
  }

  /** Ends the connection now: GOAWAY with `code`, everything open is reset. */
  destroy(code: number, reason: string): void {
    this.#core.fail(code, reason);
    this.#core.output.flush();
  }

  /** Sends what was collected now, not when `schedule` says. */
  flush(): void {
    this.#core.output.flush();
  }

  /** Enforces what is bounded by time. Call it every second or so. */
  tick(nowMs: number): void {
    const core = this.#core;
    const { limits } = core;
    if (core.dead) return;
    if (core.heardSinceTick) core.heardAtMs = nowMs;
    core.heardSinceTick = false;
    if (!core.settingsAcknowledged && nowMs - core.settingsSentAtMs > limits.settingsTimeoutMs) {
      return core.fail(SETTINGS_TIMEOUT, "SETTINGS were not acknowledged in time (RFC 9113, 6.5.3)");
    }
    if (core.blockStreamId !== 0 && nowMs - core.blockStartedMs > limits.headTimeoutMs) {
      return core.fail(ENHANCE_YOUR_CALM, "a head was not completed in time");
    }
    this.#checkAlive(nowMs);
    for (const stream of core.streams.values()) {
      if (stream.queuedBytes === 0 || nowMs - stream.progressAtMs <= limits.stallTimeoutMs) continue;
      core.failStream(stream, ENHANCE_YOUR_CALM, "the peer took no content for too long");
    }
  }

  #checkAlive(nowMs: number): void {
    const core = this.#core;
    const { pingAfterMs, pingTimeoutMs } = core.limits;
    if (core.pingSentAtMs >= 0) {
      if (nowMs - core.pingSentAtMs <= pingTimeoutMs) return;
      if (core.going === "announced") return core.settleGoing();
      return core.fail(NO_ERROR, "the peer does not answer PING");
    }
    if (core.streams.size === 0 || nowMs - core.heardAtMs < pingAfterMs) return;
    core.pingSentAtMs = nowMs;
    core.output.frame(PING, 0, 0, PING_ALIVE);
  }

  #sendPreface(): void {
    const core = this.#core;
    const { limits, output } = core;
    const settings: [number, number][] = [
      core.isServer ? [SETTINGS_MAX_CONCURRENT_STREAMS, limits.streamsMax] : [SETTINGS_ENABLE_PUSH, 0],
      [SETTINGS_INITIAL_WINDOW_SIZE, limits.streamWindowBytes],
      [SETTINGS_MAX_HEADER_LIST_SIZE, limits.headBytesMax],
    ];
    if (core.isServer && core.extendedConnect) settings.push([SETTINGS_ENABLE_CONNECT_PROTOCOL, 1]);
    const payload = Buffer.allocUnsafe(6 * settings.length);
    for (const [index, [setting, value]] of settings.entries()) {
      payload.writeUInt16BE(setting, 6 * index);
      payload.writeUInt32BE(value, 6 * index + 2);
    }
    if (!core.isServer) {
      const bytes = output.reserve(PREFACE.length);
      PREFACE.copy(bytes, output.offset);
      output.advance(output.offset + PREFACE.length);
    }
    output.frame(SETTINGS, 0, 0, payload);
    core.settingsSentAtMs = core.nowMs();
    const extra = limits.connectionWindowBytes - WINDOW_DEFAULT;
    if (extra <= 0) return;
    output.wordFrame(WINDOW_UPDATE, 0, extra);
    core.receiveWindow += extra;
  }
}

/** [":status", "200"]; made once for each status. */
function statusField(status: number): readonly string[] {
  return (STATUS_FIELDS[status] ??= [":status", String(status)]);
}
const STATUS_FIELDS: (readonly string[] | undefined)[] = Array.from({ length: 600 });
