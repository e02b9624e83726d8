import {
  ENHANCE_YOUR_CALM,
  GOAWAY,
  NO_ERROR,
  RST_STREAM,
  STREAM_ID_LIMIT,
  TABLE_BYTES_DEFAULT,
  WINDOW_DEFAULT,
  WINDOW_UPDATE,
  errorName,
} from "./constants.ts";
import type { ConnectionEvents } from "./events.ts";
import { HeadCache } from "./head-cache.ts";
import { HpackDecoder } from "./hpack-decoder.ts";
import { Bucket } from "./limits.ts";
import type { Http2Limits } from "./limits.ts";
import { Output } from "./output.ts";
import type { WriteBytes } from "./output.ts";
import { Sender } from "./sender.ts";
import { ENDED } from "./stream.ts";
import type { Stream } from "./stream.ts";

/** Streams we reset whose late frames are still ignored, not punished (RFC 9113, 5.1 "closed"). */
const REMEMBERED_RESETS = 1_024;

export interface ConnectionOptions<C = unknown> {
  readonly role: "server" | "client";
  readonly events: ConnectionEvents<C>;
  readonly limits: Http2Limits;
  /** Takes what is to be sent; the bytes may be kept. False: call `writable` when the transport has drained. */
  readonly write: WriteBytes;
  /** Calls `flush` soon, once; see `createFlushBatch`. */
  readonly schedule: (flush: () => void) => void;
  /** Milliseconds from an arbitrary start. */
  readonly nowMs: () => number;
  /** Server: offer RFC 8441. @default false */
  readonly extendedConnect?: boolean;
}

/** How far our own end of the connection has come (RFC 9113, 6.8). */
export type Going = "open" | "announced" | "final";

/** The state of a connection and the moves that every part of the codec needs. Not for applications. */
export class Core {
  readonly isServer: boolean;
  readonly extendedConnect: boolean;
  readonly limits: Http2Limits;
  readonly events: ConnectionEvents;
  readonly nowMs: () => number;
  readonly output: Output;
  readonly sender: Sender;
  readonly decoder = new HpackDecoder(TABLE_BYTES_DEFAULT);
  readonly heads = new HeadCache();
  readonly streams = new Map<number, Stream>();
  readonly resets: Bucket;
  readonly controls: Bucket;
  readonly windowUpdates: Bucket;

  dead = false;
  going: Going = "open";
  /** Highest stream we promise to serve once `going` is "final". */
  lastServedId = STREAM_ID_LIMIT;
  peerGoing = false;
  lastRemoteId = 0;
  nextLocalId = 1;

  /** Octets the peer may still send on the connection, and those given back but not announced. */
  receiveWindow = WINDOW_DEFAULT;
  unannounced = 0;
  /** What the peer may send on a new stream: ours, once acknowledged. */
  streamReceiveWindow = WINDOW_DEFAULT;

  settingsReceived = false;
  settingsAcknowledged = false;
  settingsSentAtMs = 0;
  /** Streams the peer lets a client open; a modest guess before its SETTINGS. */
  peerStreamsMax = 100;
  peerConnectProtocol = false;

  /** A head whose CONTINUATION frames are still to come; 0 none. */
  blockStreamId = 0;
  blockEndStream = false;
  blockPieces: Buffer[] = [];
  blockBytes = 0;
  blockStartedMs = 0;

  heardSinceTick = false;
  heardAtMs: number;
  pingSentAtMs = -1;
  #forgiven: Set<number> | undefined;

  constructor(options: ConnectionOptions) {
    const { limits, nowMs } = options;
    const now = nowMs();
    this.isServer = options.role === "server";
    this.extendedConnect = options.extendedConnect ?? false;
    this.limits = limits;
    this.events = options.events;
    this.nowMs = nowMs;
    this.output = new Output(options.write, options.schedule);
    this.sender = new Sender(this.output, {
      sent: (stream) => this.endLocal(stream),
      drained: (stream) => this.events.onDrain?.(stream),
      nowMs,
    });
    this.resets = new Bucket(limits.resetsBurst, limits.resetsPerSecond, now);
    this.controls = new Bucket(limits.controlsBurst, limits.controlsPerSecond, now);
    this.windowUpdates = new Bucket(limits.windowUpdatesBurst, limits.windowUpdatesPerSecond, now);
    this.heardAtMs = now;
  }

  /** A connection error (RFC 9113, 5.4.1): says goodbye, resets every stream, ends. */
  fail(code: number, reason: string): void {
    if (this.dead) return;
    this.#goodbye(this.isServer ? this.lastRemoteId : 0, code, reason);
    this.finish(code, reason);
  }

  /** Ends without a word: every stream is reset, nothing more happens. */
  finish(code: number, reason: string): void {
    if (this.dead) return;
    this.dead = true;
    const streams = [...this.streams.values()];
    this.streams.clear();
    for (const stream of streams) {
      stream.closed = true;
      stream.queue = [];
      stream.queuedBytes = 0;
      this.events.onReset(stream, code, reason);
    }
    this.output.flush(); // Whoever hears `onClose` may end the transport at once.
    this.events.onClose(code, reason);
  }

  /** Writes GOAWAY; `reason` travels as debug data, for whoever reads the other end's log. */
  #goodbye(lastId: number, code: number, reason: string): void {
    const debug = Buffer.from(reason.slice(0, 200), "latin1");
    const payload = Buffer.allocUnsafe(8 + debug.length);
    payload.writeUInt32BE(lastId, 0);
    payload.writeUInt32BE(code, 4);
    debug.copy(payload, 8);
    this.output.frame(GOAWAY, 0, 0, payload);
  }

  /** The first of two steps: no stream is lost, as none is refused yet (RFC 9113, 6.8). */
  announceGoing(): void {
    this.going = "announced";
    this.#goodbye(STREAM_ID_LIMIT, NO_ERROR, "");
  }

  /** The second step, a round trip later. */
  settleGoing(): void {
    if (this.going === "final" || this.dead) return;
    this.going = "final";
    this.lastServedId = this.lastRemoteId;
    this.#goodbye(this.isServer ? this.lastRemoteId : 0, NO_ERROR, "");
    this.finishIfDone();
  }

  /** After `settleGoing`, or a peer's GOAWAY: over when the last stream is. */
  finishIfDone(): void {
    if (this.streams.size > 0 || this.dead) return;
    if (this.going === "final") this.finish(NO_ERROR, "shut down");
    else if (this.peerGoing) this.finish(NO_ERROR, "the peer is going away");
  }

  /** The peer broke a stream's rules (RFC 9113, 5.4.2). Such faults are rationed like its own resets. */
  failStream(stream: Stream, code: number, reason: string): void {
    if (this.dead || stream.closed) return;
    this.writeReset(stream.id, code);
    this.drop(stream);
    this.events.onReset(stream, code, reason);
    this.chargeReset();
  }

  /** As `failStream`, for what never became a stream. */
  refuse(streamId: number, code: number, reason: string): void {
    this.writeReset(streamId, code);
    this.events.onRefused?.(streamId, code, reason);
    this.chargeReset();
  }

  writeReset(streamId: number, code: number): void {
    this.output.wordFrame(RST_STREAM, streamId, code);
    this.#forgiven ??= new Set();
    this.#forgiven.add(streamId);
    if (this.#forgiven.size > REMEMBERED_RESETS) {
      for (const oldest of this.#forgiven) {
        this.#forgiven.delete(oldest);
        break;
      }
    }
  }

  /** Neither side has opened this stream yet. */
  isIdle(streamId: number): boolean {
    if ((streamId & 1) === 0) return true;
    return this.isServer ? streamId > this.lastRemoteId : streamId >= this.nextLocalId;
  }

  /** We reset this stream not long ago: what still arrives on it was sent in good faith. */
  isForgiven(streamId: number): boolean {
    return this.#forgiven?.has(streamId) ?? false;
  }

  chargeReset(): void {
    if (!this.resets.take(this.nowMs)) this.fail(ENHANCE_YOUR_CALM, "too many streams were reset");
  }

  /** Counts a frame that asks for nothing useful. False when there were too many: the connection has ended. */
  chargeControl(what: string): boolean {
    if (this.controls.take(this.nowMs)) return true;
    this.fail(ENHANCE_YOUR_CALM, `too many ${what} frames`);
    return false;
  }

  /** Our message is complete and has left. */
  endLocal(stream: Stream): void {
    stream.localEnded = true;
    stream.localSent = true;
    if (stream.phase === ENDED) return this.close(stream);
    if (!stream.unwanted) return;
    this.writeReset(stream.id, NO_ERROR);
    this.drop(stream);
  }

  /** After the last event of the peer's message: closes the stream if ours is complete, too. */
  settle(stream: Stream): void {
    if (stream.phase === ENDED && stream.localSent) this.close(stream);
  }

  /** Both sides are done. */
  close(stream: Stream): void {
    if (stream.closed) return;
    stream.closed = true;
    this.streams.delete(stream.id);
    if (this.dead) return;
    if (!this.isServer && this.going === "open" && !this.peerGoing) this.events.onCapacity?.();
    if (this.going !== "open" || this.peerGoing) this.finishIfDone();
  }

  /** Closes before its time; octets nobody will take any more are given back. */
  drop(stream: Stream): void {
    stream.queue = [];
    stream.queuedBytes = 0;
    stream.phase = ENDED;
    this.giveBack(stream.unconsumed);
    stream.unconsumed = 0;
    this.close(stream);
  }

  /** Octets received and done with: opens the connection's window when it is worth a frame. */
  giveBack(bytes: number): void {
    if (bytes === 0) return;
    this.unannounced += bytes;
    if (this.dead || this.unannounced * 2 < this.limits.connectionWindowBytes) return;
    this.output.wordFrame(WINDOW_UPDATE, 0, this.unannounced);
    this.receiveWindow += this.unannounced;
    this.unannounced = 0;
  }

  /** The same for a stream. Not for one whose message is complete: the peer has nothing more to send. */
  giveBackStream(stream: Stream, bytes: number): void {
    stream.unannounced += bytes;
    if (this.dead || stream.closed || stream.phase === ENDED) return;
    if (stream.unannounced * 2 < this.limits.streamWindowBytes) return;
    this.output.wordFrame(WINDOW_UPDATE, stream.id, stream.unannounced);
    stream.receiveWindow += stream.unannounced;
    stream.unannounced = 0;
  }

  /** "stream 5: the peer reset it (CANCEL)". */
  describeReset(streamId: number, code: number): string {
    return `stream ${streamId}: the peer reset it (${errorName(code)})`;
  }
}
