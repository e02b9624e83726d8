import type { Timed } from "../deadlines.ts";
import { Exchange } from "../exchange.ts";
import type { Downstream } from "../exchange.ts";
import { type FailureCode, STATUS_BY_CODE, refusalText } from "../failure.ts";
import type { ResponseHead } from "../http1/response-head.ts";
import type { Connection as ListenerConnection, Listener } from "../listener.ts";
import type { Tunnel } from "../tunnel.ts";
import type { Wire, WireUser } from "../wire.ts";
import { Connection } from "./connection.ts";
import { INTERNAL_ERROR, PREFACE } from "./constants.ts";
import { fieldsOfLines, readHttp2Request } from "./convert.ts";
import type { Head } from "./head.ts";
import { ENDED } from "./stream.ts";
import type { Stream } from "./stream.ts";

/** Exchanges kept for the next streams of a connection. */
const SPARE_EXCHANGES_MAX = 64;
const TICK_MS = 1_000;
const NO_BYTES = Buffer.alloc(0);

/** The preface's first line: an HTTP/1.1 parser fails on its version, and here is why. */
const FIRST_LINE_BYTES = 16;

/** True when the first `to` octets of a connection are HTTP/2's preface, as far as they go. */
export function beginsLikeHttp2(bytes: Buffer, to: number): boolean {
  const length = Math.min(to, PREFACE.length);
  return length >= FIRST_LINE_BYTES && bytes.compare(PREFACE, 0, length, 0, length) === 0;
}

/** One HTTP/2 client: many exchanges at once over one wire. */
export class Http2Downstream implements WireUser, ListenerConnection, Timed {
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  readonly peerAddress: string;
  readonly hopFields: string;
  readonly listener: Listener;
  readonly codec: Connection<Http2Exchange>;
  readonly #wire: Wire;
  readonly #spares: Http2Exchange[] = [];
  #idleSinceMs: number;
  /** Set when our side has ended: then the client's may take this long. */
  #lingerDueMs = Infinity;
  #closed = false;

  /** Takes over a wire whose first bytes are the preface; they follow by `onBytes`. */
  constructor(wire: Wire, listener: Listener, hopFields: string) {
    const { context } = listener;
    this.listener = listener;
    this.hopFields = hopFields;
    this.peerAddress = wire.peerAddress;
    this.#wire = wire;
    this.#idleSinceMs = context.clock.nowMs();
    wire.user = this;
    this.codec = new Connection<Http2Exchange>({
      role: "server",
      limits: context.http2Limits,
      nowMs: () => context.clock.nowMs(),
      schedule: context.scheduleFlush,
      write: (bytes) => wire.closed || wire.writeWhole(bytes),
      events: {
        onHead: (stream, head, endStream) => this.#begin(stream, head, endStream),
        onData: (stream, bytes, from, to, last) => this.#data(stream, bytes, from, to, last),
        onTrailers: (stream) => stream.context?.onData(NO_BYTES, 0, 0, true),
        onReset: (stream) => stream.context?.onGone(),
        onDrain: (stream) => stream.context?.exchange.onDownstreamDrained(),
        onRefused: (_id, _code, reason) => this.#refused(reason),
        onClose: () => this.#linger(),
      },
    });
    context.wheel.watch(this, this.#idleSinceMs + TICK_MS);
    if (listener.retiring) this.codec.shutdown();
  }

  get idle(): boolean {
    return this.codec.streamCount === 0;
  }

  retire(): void {
    this.codec.shutdown();
  }

  destroy(): void {
    this.#wire.destroy();
  }

  onConnected(): void {}

  onBytes(bytes: Buffer, size: number): void {
    this.codec.receive(bytes.subarray(0, size));
  }

  onEnd(): void {
    if (this.codec.closed) this.#wire.end();
    else this.codec.shutdown(true);
  }

  onDrain(): void {
    this.codec.writable();
  }

  onClosed(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.codec.abort("the client closed the connection");
    const { wheel } = this.listener.context;
    wheel.forget(this);
    for (const spare of this.#spares) wheel.forget(spare.exchange);
    this.listener.onConnectionClosed(this);
  }

  onTick(nowMs: number): number {
    if (this.#closed) return Infinity;
    if (nowMs >= this.#lingerDueMs) this.#wire.destroy();
    if (this.codec.closed) return this.#lingerDueMs;
    this.codec.tick(nowMs);
    const { downstreamIdleTimeoutMs } = this.listener.context.limits;
    if (!this.idle) this.#idleSinceMs = nowMs;
    else if (nowMs - this.#idleSinceMs >= downstreamIdleTimeoutMs) this.codec.shutdown();
    return nowMs + TICK_MS;
  }

  /** An exchange is over and may serve another stream. */
  release(spare: Http2Exchange): void {
    if (this.#spares.length < SPARE_EXCHANGES_MAX && !this.#closed) this.#spares.push(spare);
    else this.listener.context.wheel.forget(spare.exchange);
  }

  #begin(stream: Stream<Http2Exchange>, head: Head, endStream: boolean): void {
    const exchange = this.#spares.pop() ?? new Http2Exchange(this);
    stream.context = exchange;
    exchange.begin(stream, head, endStream);
  }

  #data(stream: Stream<Http2Exchange>, bytes: Buffer, from: number, to: number, last: boolean): void {
    // Answered already: the rest is swallowed, within the limits of its window.
    if (stream.context === undefined) this.codec.consumed(stream, to - from);
    else stream.context.onData(bytes, from, to, last);
  }

  #refused(reason: string): void {
    const { context, id } = this.listener;
    context.stats.refused("bad_request");
    context.log.debug({ code: "bad_request", listener: id, client: this.peerAddress }, reason);
  }

  /** Our last octets are written: ends our direction and gives the client a while to read them. */
  #linger(): void {
    const { context } = this.listener;
    if (this.#closed) return;
    this.#wire.end();
    this.#lingerDueMs = context.clock.nowMs() + context.limits.lingerTimeoutMs;
    context.wheel.watch(this, this.#lingerDueMs);
  }
}

/** One stream of a client as the exchange sees it. Used again for later streams of the connection. */
class Http2Exchange implements Downstream {
  readonly exchange: Exchange;
  readonly peerAddress: string;
  readonly hopFields: string;
  readonly #parent: Http2Downstream;
  #stream: Stream<Http2Exchange> | undefined;
  /** Request content is not taken now; octets already taken but not given back. */
  #paused = false;
  #held = 0;

  constructor(parent: Http2Downstream) {
    this.#parent = parent;
    this.peerAddress = parent.peerAddress;
    this.hopFields = parent.hopFields;
    this.exchange = new Exchange(parent.listener.context, parent.listener, this);
  }

  begin(stream: Stream<Http2Exchange>, head: Head, endStream: boolean): void {
    const { context, trustsForwarded } = this.#parent.listener;
    const { request } = this.exchange;
    this.#stream = stream;
    this.#paused = false;
    this.#held = 0;
    if (!readHttp2Request(head, endStream, request, context.limits, trustsForwarded)) {
      return this.#refuseHead(request.failure, request.problem);
    }
    this.exchange.begin(NO_BYTES, 0, 0, endStream, context.clock.nowMs());
  }

  onData(bytes: Buffer, from: number, to: number, last: boolean): void {
    const stream = this.#stream!;
    this.exchange.onRequestData(bytes, from, to, last);
    if (this.#paused && this.#stream === stream) this.#held += to - from;
    else this.#parent.codec.consumed(stream, to - from);
  }

  /** The client reset the stream, or broke its rules, or is gone. */
  onGone(): void {
    this.#stream = undefined;
    this.exchange.onDownstreamGone();
  }

  sendInterim(head: ResponseHead): void {
    this.#parent.codec.respondInterim(this.#stream!, head.status, fieldsOfLines(head.fields));
  }

  respond(
    head: ResponseHead,
    extraFields: string,
    bytes: Buffer,
    from: number,
    to: number,
    last: boolean,
  ): boolean {
    const { codec, listener } = this.#parent;
    const date = head.hasDate ? "" : listener.context.dateField();
    const plain = extraFields === "" && date === "";
    const fields = fieldsOfLines(plain ? head.fields : head.fields + extraFields + date);
    codec.respond(this.#stream!, head.status, fields, last && to === from);
    return to === from || codec.sendData(this.#stream!, bytes, from, to, last);
  }

  sendData(bytes: Buffer, from: number, to: number, last: boolean): boolean {
    return this.#parent.codec.sendData(this.#stream!, bytes, from, to, last);
  }

  sendTrailers(fields: readonly string[]): void {
    this.#parent.codec.sendTrailers(this.#stream!, fields);
  }

  refuse(code: FailureCode, text: string): void {
    const { codec, listener } = this.#parent;
    const body = Buffer.from(text);
    const status = STATUS_BY_CODE[code];
    const fields = ["content-type", "text/plain; charset=utf-8", "content-length", String(body.length)];
    fields.push("x-gilliam-reason", code);
    if (status === 503) fields.push("retry-after", "1");
    if (status === 405) fields.push("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    fields.push("date", listener.context.dateField().slice(6, -2));
    const headOnly = this.exchange.request.method === "HEAD";
    codec.respond(this.#stream!, status, fields, headOnly);
    if (!headOnly) codec.sendData(this.#stream!, body, 0, body.length, true);
  }

  cut(): void {
    this.#parent.codec.reset(this.#stream!, INTERNAL_ERROR);
  }

  pauseBody(): void {
    this.#paused = true;
  }

  resumeBody(): void {
    this.#paused = false;
    if (this.#held === 0 || this.#stream === undefined) return;
    this.#parent.codec.consumed(this.#stream, this.#held);
    this.#held = 0;
  }

  /** Never asked for: no request of HTTP/2 has an upgrade. */
  openTunnel(): Tunnel {
    throw new Error("an HTTP/2 stream cannot be upgraded");
  }

  onExchangeOver(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    if (stream !== undefined) {
      stream.context = undefined;
      this.#parent.codec.consumed(stream, this.#held);
      if (stream.phase !== ENDED) this.#parent.codec.discard(stream);
    }
    this.#parent.release(this);
  }

  /** A head that HTTP/2 allows and the engine does not: answered, but never an exchange. */
  #refuseHead(code: FailureCode, problem: string): void {
    const { context, id, kind, from } = this.#parent.listener;
    const where = `${context.name}, ${kind} listener ${id}, from ${from}, client ${this.peerAddress}`;
    context.stats.refused(code);
    context.log.debug({ code, where }, problem);
    this.refuse(code, refusalText(code, problem, where));
    this.onExchangeOver();
  }
}
