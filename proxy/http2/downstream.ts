import type { Client } from "../client.ts";
import type { Timed } from "../deadlines.ts";
import { Exchange } from "../exchange.ts";
import type { Downstream } from "../exchange.ts";
import { recordRefusal } from "../finish.ts";
import { type FailureCode, STATUS_BY_CODE, refusalText } from "../failure.ts";
import { grpcRefusalFields, isGrpc } from "../grpc-status.ts";
import type { ResponseHead } from "../http1/response-head.ts";
import type { Connection as ListenerConnection, Listener } from "../listener.ts";
import type { SecuredConnection } from "../tls/secured.ts";
import { forwardableTrailers } from "../trailers.ts";
import { Tunnel, type TunnelEnd } from "../tunnel.ts";
import type { Wire, WireUser } from "../wire.ts";
import { Connection } from "./connection.ts";
import { ENHANCE_YOUR_CALM, INTERNAL_ERROR, PREFACE, REFUSED_STREAM } from "./constants.ts";
import { fieldsOfLines, readHttp2Request } from "./convert.ts";
import type { Head } from "./head.ts";
import { StreamWire } from "./stream-wire.ts";
import { ENDED } from "./stream.ts";
import type { Stream } from "./stream.ts";

/** Exchanges kept for the next streams of a connection. */
const SPARE_EXCHANGES_MAX = 64;
const TICK_MS = 1_000;
const NO_BYTES = Buffer.alloc(0);

/** The preface's first line: an HTTP/1.1 parser fails on its version, and here is why. */
const FIRST_LINE_BYTES = 16;

/** What it means that the codec refused a stream with an error code; everything else is a malformed request. */
const REFUSALS: Readonly<Record<number, FailureCode>> = {
  [ENHANCE_YOUR_CALM]: "head_too_large",
  [REFUSED_STREAM]: "overloaded",
};

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
  readonly client: Client;
  readonly peerAddress: string;
  readonly hopFields: string;
  readonly secured: SecuredConnection | undefined;
  readonly listener: Listener;
  readonly codec: Connection<Http2Exchange>;
  readonly #wire: Wire;
  readonly #spares: Http2Exchange[] = [];
  #idleSinceMs: number;
  /** Set when our side has ended: then the client's may take this long. */
  #lingerDueMs = Infinity;
  #closed = false;

  /** Takes over a wire whose first bytes are the preface; they follow by `onBytes`. `secured`: ALPN chose it. */
  constructor(
    wire: Wire,
    listener: Listener,
    client: Client,
    hopFields: string,
    secured?: SecuredConnection,
  ) {
    const { context } = listener;
    this.listener = listener;
    this.hopFields = hopFields;
    this.client = client;
    this.peerAddress = client.address;
    this.secured = secured;
    this.#wire = wire;
    this.#idleSinceMs = context.clock.nowMs();
    wire.user = this;
    this.codec = new Connection<Http2Exchange>({
      role: "server",
      limits: context.http2Limits,
      nowMs: () => context.clock.nowMs(),
      schedule: context.scheduleFlush,
      extendedConnect: true,
      write: (bytes) => wire.closed || wire.writeWhole(bytes),
      events: {
        onHead: (stream, head, endStream) => this.#begin(stream, head, endStream),
        onData: (stream, bytes, from, to, last) => this.#data(stream, bytes, from, to, last),
        onTrailers: (stream, fields) => stream.context?.onTrailers(fields),
        onReset: (stream) => stream.context?.onGone(),
        onDrain: (stream) => stream.context?.onDrain(),
        onRefused: (_id, code, reason) => this.#refused(code, reason),
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
    for (const spare of this.#spares) spare.exchange.forgetDeadlines();
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
    else spare.exchange.forgetDeadlines();
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

  /** The codec answered it: what came was no request. */
  #refused(error: number, reason: string): void {
    const { context, id } = this.listener;
    const code = REFUSALS[error] ?? "bad_request";
    const requestId = context.newRequestId();
    context.log.debug({ code, requestId, listener: id, client: this.peerAddress }, reason);
    recordRefusal(context, this.listener, this.peerAddress, code, requestId);
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
  readonly secured: SecuredConnection | undefined;
  readonly #parent: Http2Downstream;
  #stream: Stream<Http2Exchange> | undefined;
  /** Request content is not taken now; octets already taken but not given back. */
  #paused = false;
  #held = 0;
  /** Of an extended CONNECT: the stream as a wire, and what came before it was one. */
  #tunnel: StreamWire<Http2Exchange> | undefined;
  #early: Buffer | undefined;
  #earlyEnd = false;

  constructor(parent: Http2Downstream) {
    this.#parent = parent;
    this.peerAddress = parent.peerAddress;
    this.hopFields = parent.hopFields;
    this.secured = parent.secured;
    this.exchange = new Exchange(parent.listener.context, parent.listener, this);
    this.exchange.request.client = parent.client;
  }

  begin(stream: Stream<Http2Exchange>, head: Head, endStream: boolean): void {
    const { context, trustsForwarded } = this.#parent.listener;
    const { request } = this.exchange;
    this.#stream = stream;
    this.#paused = false;
    this.#held = 0;
    this.#early = undefined;
    this.#earlyEnd = false;
    if (!readHttp2Request(head, endStream, request, context.limits, trustsForwarded, context.random)) {
      return this.#refuseHead(request.failure, request.problem, head);
    }
    if (this.#parent.listener.kind === "edge" && head.scheme !== this.#scheme) {
      const problem = `:scheme is ${head.scheme} on a connection of ${this.#scheme}`;
      return this.#refuseHead("misdirected", problem, head);
    }
    // The request of a tunnel is its head.
    const whole = endStream || request.upgrade !== "";
    this.exchange.begin(NO_BYTES, 0, 0, whole, context.clock.nowMs());
  }

  onData(bytes: Buffer, from: number, to: number, last: boolean): void {
    if (this.#tunnel !== undefined) return this.#tunnel.onData(bytes, from, to, last);
    if (this.exchange.request.upgrade !== "") return this.#setAside(bytes, from, to, last);
    const stream = this.#stream!;
    this.exchange.onRequestData(bytes, from, to, last);
    if (this.#paused && this.#stream === stream) this.#held += to - from;
    else this.#parent.codec.consumed(stream, to - from);
  }

  onTrailers(fields: readonly string[]): void {
    this.exchange.request.trailers = forwardableTrailers(fields);
    this.onData(NO_BYTES, 0, 0, true);
  }

  /** The client reset the stream, or broke its rules, or is gone. */
  onGone(): void {
    this.#stream = undefined;
    if (this.#tunnel !== undefined) return this.#tunnel.onReset();
    this.exchange.onDownstreamGone();
  }

  onDrain(): void {
    if (this.#tunnel === undefined) this.exchange.onDownstreamDrained();
    else this.#tunnel.onDrain();
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
    const own = this.secured === undefined ? extraFields : extraFields + this.secured.hstsField;
    const plain = own === "" && date === "";
    const fields = fieldsOfLines(plain ? head.fields : head.fields + own + date);
    codec.respond(this.#stream!, head.status, fields, last && to === from);
    return to === from || codec.sendData(this.#stream!, bytes, from, to, last);
  }

  sendData(bytes: Buffer, from: number, to: number, last: boolean): boolean {
    return this.#parent.codec.sendData(this.#stream!, bytes, from, to, last);
  }

  sendTrailers(fields: readonly string[]): void {
    if (fields.length > 0) this.#parent.codec.sendTrailers(this.#stream!, fields);
    else this.sendData(NO_BYTES, 0, 0, true);
  }

  refuse(code: FailureCode, text: string): void {
    const { codec, listener } = this.#parent;
    const status = STATUS_BY_CODE[code];
    if (isGrpc(this.exchange.request)) {
      const trailers = grpcRefusalFields(code, status, text);
      trailers.push("date", listener.context.dateField().slice(6, -2));
      codec.respond(this.#stream!, 200, trailers, true);
      return;
    }
    const body = Buffer.from(text);
    const fields = ["content-type", "text/plain; charset=utf-8", "content-length", String(body.length)];
    fields.push("x-gilliam-reason", code);
    if (status === 503) fields.push("retry-after", "1");
    if (status === 405) fields.push("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    fields.push("date", listener.context.dateField().slice(6, -2));
    if (this.secured !== undefined) fields.push(...fieldsOfLines(this.secured.hstsField));
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

  /** Answers an extended CONNECT: from here on the stream is a wire (RFC 8441 5). */
  openTunnel(
    head: ResponseHead,
    extraFields: string,
    upstream: TunnelEnd,
    idleTimeoutMs: number,
    onDone: () => void,
  ): Tunnel {
    const { codec, listener } = this.#parent;
    const stream = this.#stream!;
    const date = head.hasDate ? "" : listener.context.dateField();
    const fields = fieldsOfLines(head.fields + extraFields + date);
    codec.respond(stream, 200, withoutAccept(fields), false);
    const wire = new StreamWire(codec, stream, this.#held);
    this.#held = 0;
    this.#tunnel = wire;
    const early = this.#early;
    this.#early = undefined;
    const tunnel = new Tunnel(wire, upstream, listener.context, idleTimeoutMs, () => {
      this.#tunnel = undefined;
      onDone();
    });
    if (early !== undefined) tunnel.sendRight(early, 0, early.length);
    if (this.#earlyEnd) wire.onPeerEnd();
    return tunnel;
  }

  /** Sent before we agreed to the tunnel: kept, and not given back, so the stream's window bounds it. */
  #setAside(bytes: Buffer, from: number, to: number, last: boolean): void {
    this.#held += to - from;
    const piece = Buffer.from(bytes.subarray(from, to));
    this.#early = this.#early === undefined ? piece : Buffer.concat([this.#early, piece]);
    this.#earlyEnd = last;
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

  get #scheme(): string {
    return this.secured === undefined ? "http" : "https";
  }

  /** A head that HTTP/2 allows and the engine does not: answered, but never an exchange. */
  #refuseHead(code: FailureCode, problem: string, { method, path, authority }: Head): void {
    const { context, id, kind, from } = this.#parent.listener;
    const requestId = context.newRequestId();
    const where = `${context.name}, ${kind} listener ${id}, from ${from}, client ${this.peerAddress}; request ${requestId}`;
    context.log.debug({ code, requestId, where }, problem);
    this.refuse(code, refusalText(code, problem, where));
    recordRefusal(context, this.#parent.listener, this.peerAddress, code, requestId, {
      method,
      path,
      host: authority,
    });
    this.onExchangeOver();
  }
}

/** HTTP/2 has no keys, so no answer to one either (RFC 8441 5). */
function withoutAccept(fields: readonly string[]): string[] {
  return fields.filter((_, at) => fields[at - (at % 2)]!.toLowerCase() !== "sec-websocket-accept");
}
