import type { Client } from "../client.ts";
import type { Timed } from "../deadlines.ts";
import { Exchange } from "../exchange.ts";
import { type FailureCode, STATUS_BY_CODE, refusalText } from "../failure.ts";
import { downstreamHeadText } from "../headers.ts";
import type { Downstream } from "../exchange.ts";
import { recordRefusal } from "../finish.ts";
import type { Listener } from "../listener.ts";
import type { SecuredConnection } from "../tls/secured.ts";
import { Http2Downstream, beginsLikeHttp2 } from "../http2/downstream.ts";
import { forwardableTrailers, lastChunk } from "../trailers.ts";
import { Tunnel, type TunnelEnd } from "../tunnel.ts";
import { Wire, type WireUser } from "../wire.ts";
import { ChunkedDecoder } from "./chunked.ts";
import { FAILED, HeadPieces, NEED_MORE, hasLineFeed } from "./fields.ts";
import { BODY, parseRequestHead } from "./request-head.ts";
import { refusalResponse } from "./refusal.ts";
import type { ResponseHead } from "./response-head.ts";
import { CR, LF } from "./syntax.ts";

/**
 * head → body → busy (the request is complete, its answer is not) → head …
 * From any of them: linger (the last answer is sent, what still comes is swallowed), tunnel, closed.
 */
const STATE = { head: 0, body: 1, busy: 2, linger: 3, tunnel: 4, closed: 5 } as const;
type State = (typeof STATE)[keyof typeof STATE];

const NO_BYTES = Buffer.alloc(0);

/** One HTTP/1.1 client: requests in, one after the other, answers out in the same order. */
export class Http1Downstream implements WireUser, Downstream, Timed {
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  readonly peerAddress: string;
  readonly hopFields: string;
  readonly secured: SecuredConnection | undefined;
  readonly #listener: Listener;
  readonly #exchange: Exchange;
  readonly #wire: Wire;
  #state: State = STATE.head;
  /** Of a head, of being idle, and of lingering; the exchange has its own. */
  #dueMs: number;
  /** The first bytes of a head that is not whole yet. */
  #pieces: HeadPieces | undefined;
  #headStartedMs = 0;
  #emptyLineSeen = false;
  /** A request was read: no other protocol may begin any more. */
  #served = false;
  /** Bytes of the next requests, read while one is being served. */
  #pipelined: Buffer | undefined;
  #processing = false;
  #missing = 0;
  #tunnel: Tunnel | undefined;
  #decoder: ChunkedDecoder | undefined;
  #chunkedResponse = false;
  /** After this response the connection ends. */
  #closeAfter = false;
  /** The client has ended its direction. */
  #ended = false;

  /** With `secured`, the handle is a TLS stream. */
  constructor(handle: unknown, listener: Listener, client: Client, secured?: SecuredConnection) {
    const { context } = listener;
    this.#listener = listener;
    this.#wire = Wire.accept(handle, this, context.onFault);
    this.peerAddress = client.address;
    this.secured = secured;
    this.hopFields = listener.hopFieldsFor(this.peerAddress, secured !== undefined);
    this.#exchange = new Exchange(context, listener, this);
    this.#exchange.request.client = client;
    this.#dueMs = context.clock.nowMs() + context.limits.headTimeoutMs;
    context.wheel.watch(this, this.#dueMs);
  }

  /** Nothing is being served here. */
  get idle(): boolean {
    return this.#state === STATE.head || this.#state === STATE.linger;
  }

  /** Ends as soon as what is being served is done. */
  retire(): void {
    this.#closeAfter = true;
    if (this.#state !== STATE.head || this.#pieces !== undefined) return;
    // A request may be on its way, and a client that may not send it twice would lose it: it is told by the answer.
    const { clock, limits, wheel } = this.#listener.context;
    this.#dueMs = Math.min(this.#dueMs, clock.nowMs() + limits.lingerTimeoutMs);
    wheel.watch(this, this.#dueMs);
  }

  destroy(): void {
    if (this.#tunnel === undefined) this.#wire.destroy();
    else this.#tunnel.cut();
  }

  /** Answers the first bytes with a refusal, whatever they are. */
  turnAway(code: FailureCode, what: string): void {
    this.#refuseConnection(code, what);
  }

  onConnected(): void {}

  onBytes(bytes: Buffer, size: number): void {
    switch (this.#state) {
      case STATE.head:
        return this.#process(bytes, 0, size);
      case STATE.body:
        return this.#readBody(bytes, size);
      case STATE.busy:
        return this.#setAside(bytes, 0, size);
      case STATE.linger:
      case STATE.tunnel:
      case STATE.closed:
        return;
    }
  }

  onEnd(): void {
    this.#ended = true;
    switch (this.#state) {
      case STATE.head:
        if (this.#pieces === undefined) this.#wire.end();
        else this.#wire.destroy();
        return;
      case STATE.busy:
        this.#closeAfter = true; // The request was whole: it gets its answer.
        this.#exchange.onDownstreamEnded();
        return;
      case STATE.body:
      case STATE.linger:
        return this.#wire.destroy();
      case STATE.tunnel:
      case STATE.closed:
        return;
    }
  }

  onDrain(): void {
    this.#exchange.onDownstreamDrained();
  }

  onClosed(): void {
    this.#state = STATE.closed;
    this.#pipelined = undefined;
    this.#pieces = undefined;
    const { wheel } = this.#listener.context;
    this.#exchange.onDownstreamGone();
    wheel.forget(this);
    this.#exchange.forgetDeadlines();
    this.#listener.onConnectionClosed(this);
  }

  onTick(nowMs: number): number {
    if (nowMs < this.#dueMs) return this.#dueMs;
    if (this.#state === STATE.head && this.#pieces !== undefined) {
      const { headTimeoutMs } = this.#listener.context.limits;
      this.#refuseConnection("head_timeout", `the head was not complete within ${headTimeoutMs} ms`);
    } else if (this.#state === STATE.head || this.#state === STATE.linger) this.#wire.destroy();
    return this.#dueMs > nowMs ? this.#dueMs : Infinity;
  }

  sendInterim(head: ResponseHead): void {
    this.#wire.writeText(`HTTP/1.1 ${head.status} ${head.reason}\r\n${head.fields}\r\n`);
  }

  respond(
    head: ResponseHead,
    extraFields: string,
    bytes: Buffer,
    from: number,
    to: number,
    last: boolean,
  ): boolean {
    const { request } = this.#exchange;
    const unsized = head.body === BODY.chunked || head.body === BODY.close;
    this.#chunkedResponse = unsized && request.minor === 1;
    if (!request.keepAlive || !this.#exchange.requestComplete || this.#listener.retiring)
      this.#closeAfter = true;
    if (unsized && request.minor === 0) this.#closeAfter = true;
    let hop = this.#chunkedResponse ? "transfer-encoding: chunked\r\n" : "";
    if (this.secured !== undefined) hop += this.secured.hstsField;
    if (this.#closeAfter) hop += "connection: close\r\n";
    else if (request.minor === 0) hop += "connection: keep-alive\r\n";
    if (!head.hasDate) hop += this.#listener.context.dateField();
    const text = downstreamHeadText(head, extraFields, hop);
    if (to === from && !(last && this.#chunkedResponse)) return this.#wire.writeText(text);
    return this.#wire.writeWithText(text, bytes, from, to, this.#chunkedResponse, last);
  }

  sendData(bytes: Buffer, from: number, to: number, last: boolean): boolean {
    if (this.#chunkedResponse) return this.#wire.writeWithText("", bytes, from, to, true, last);
    return to === from || this.#wire.writeBytes(bytes, from, to);
  }

  /** To a client that did not say that it understands trailers they are not sent (RFC 9110 6.5.1). */
  sendTrailers(fields: readonly string[]): void {
    const wanted = this.#chunkedResponse && this.#exchange.request.acceptsTrailers;
    if (wanted) this.#wire.writeText(lastChunk(fields));
    else this.sendData(NO_BYTES, 0, 0, true);
  }

  refuse(code: FailureCode, text: string): void {
    const { request, requestComplete } = this.#exchange;
    const distrusted = STATUS_BY_CODE[code] === 400;
    if (distrusted || !request.keepAlive || !requestComplete || this.#listener.retiring)
      this.#closeAfter = true;
    this.#writeRefusal(code, text, request.method === "HEAD");
  }

  cut(): void {
    this.#wire.reset();
  }

  pauseBody(): void {
    if (this.#state === STATE.body) this.#wire.pause();
  }

  resumeBody(): void {
    if (this.#state === STATE.body) this.#wire.resume();
  }

  openTunnel(
    head: ResponseHead,
    extraFields: string,
    upstream: TunnelEnd,
    idleTimeoutMs: number,
    onDone: () => void,
  ): Tunnel {
    const hop = `connection: upgrade\r\nupgrade: ${head.upgrade}\r\n`;
    this.#wire.writeText(downstreamHeadText(head, extraFields, hop));
    this.#state = STATE.tunnel;
    this.#dueMs = Infinity;
    const early = this.#pipelined;
    this.#pipelined = undefined;
    const tunnel = new Tunnel(this.#wire, upstream, this.#listener.context, idleTimeoutMs, () => {
      onDone();
      this.onClosed();
    });
    this.#tunnel = tunnel;
    if (early !== undefined) tunnel.sendRight(early, 0, early.length);
    if (this.#ended) upstream.end();
    return tunnel;
  }

  onExchangeOver(): void {
    if (this.#state === STATE.closed || this.#state === STATE.tunnel || this.#state === STATE.linger) return;
    if (this.#closeAfter) return this.#linger();
    const { context } = this.#listener;
    this.#state = STATE.head;
    this.#emptyLineSeen = false;
    this.#dueMs = context.wheel.coarseNowMs() + context.limits.downstreamIdleTimeoutMs;
    context.wheel.watch(this, this.#dueMs);
    if (this.#processing) return; // The loop that began this exchange goes on.
    const next = this.#pipelined;
    this.#pipelined = undefined;
    if (next !== undefined) this.#process(next, 0, next.length);
    if (this.#pipelined === undefined) this.#wire.resume();
  }

  /** Requests in `received`, and what was left of earlier reads before them, until one has to be waited for. */
  #process(received: Buffer, from: number, size: number): void {
    let bytes = received;
    let at = from;
    let to = size;
    if (this.#pieces !== undefined) {
      const pieces = this.#pieces;
      pieces.append(received, from, size);
      if (!hasLineFeed(received, size) && pieces.length <= this.#listener.context.limits.headBytesMax) return;
      bytes = pieces.bytes;
      at = 0;
      to = pieces.length;
      this.#pieces = undefined;
    } else this.#headStartedMs = 0;
    this.#processing = true;
    while (at < to && this.#state === STATE.head) at = this.#readRequest(bytes, at, to);
    this.#processing = false;
    if (at < to && this.#state === STATE.busy) this.#setAside(bytes, at, to);
  }

  /** Reads one head and the beginning of its body, and starts the exchange. Returns where the next one begins. */
  #readRequest(bytes: Buffer, from: number, to: number): number {
    const { context, trustsForwarded } = this.#listener;
    const { request } = this.#exchange;
    let at = from;
    if (bytes[at] === CR && !this.#emptyLineSeen) {
      if (at + 1 === to) return this.#awaitHead(bytes, at, to);
      if (bytes[at + 1] === LF) {
        this.#emptyLineSeen = true; // RFC 9112 2.2: one is to be ignored; some clients send it behind a body.
        at += 2;
        if (at === to) return to;
      }
    }
    const end = parseRequestHead(bytes, at, to, request, context.limits, trustsForwarded);
    if (end === NEED_MORE) return this.#awaitHead(bytes, at, to);
    if (end === FAILED) {
      const mayBecome = at === 0 && !this.#served && this.secured === undefined; // Else ALPN decides.
      if (mayBecome && beginsLikeHttp2(bytes, to)) return this.#becomeHttp2(bytes, to);
      this.#refuseConnection(request.failure, request.problem);
      return to;
    }
    const nowMs = context.clock.nowMs();
    const startedMs = this.#headStartedMs === 0 ? nowMs : this.#headStartedMs;
    this.#headStartedMs = 0;
    this.#dueMs = Infinity;
    this.#served = true;
    this.#state = STATE.busy;
    if (request.body === BODY.none) {
      this.#exchange.begin(bytes, end, end, true, startedMs, nowMs);
      return end;
    }
    if (request.body === BODY.length) {
      const take = Math.min(request.contentLength, to - end);
      this.#missing = request.contentLength - take;
      if (this.#missing > 0) this.#beginBody();
      this.#exchange.begin(bytes, end, end + take, this.#missing === 0, startedMs, nowMs);
      return end + take;
    }
    this.#decoder ??= new ChunkedDecoder();
    const decoder = this.#decoder;
    decoder.reset();
    if (!decoder.decode(bytes, end, to)) {
      this.#refuseConnection("bad_chunk", `the body has ${decoder.problem}`);
      return to;
    }
    const { dataStart, dataEnd, done } = decoder;
    const rest = decoder.end;
    if (!done) this.#beginBody();
    else if (decoder.trailers.length > 0) request.trailers = forwardableTrailers(decoder.trailers);
    this.#exchange.begin(bytes, dataStart, dataEnd, done, startedMs, nowMs);
    return rest;
  }

  /** The first bytes are HTTP/2's preface, which no request line can be: prior knowledge (RFC 9113, 3.3). */
  #becomeHttp2(bytes: Buffer, to: number): number {
    const { wheel } = this.#listener.context;
    const { client } = this.#exchange.request;
    this.#state = STATE.closed;
    this.#dueMs = Infinity;
    wheel.forget(this);
    this.#exchange.forgetDeadlines();
    const successor = new Http2Downstream(this.#wire, this.#listener, client, this.hopFields);
    this.#listener.replaceConnection(this, successor);
    successor.onBytes(bytes, to);
    return to;
  }

  #beginBody(): void {
    this.#state = STATE.body;
    this.#wire.mayReceiveOwn();
  }

  /** The request is complete. */
  #endBody(): void {
    this.#state = STATE.busy;
    this.#wire.receiveShared();
  }

  #readBody(bytes: Buffer, size: number): void {
    if (this.#exchange.request.body === BODY.length) {
      const take = Math.min(this.#missing, size);
      this.#missing -= take;
      if (this.#missing === 0) this.#endBody();
      if (take < size) this.#setAside(bytes, take, size);
      this.#exchange.onRequestData(bytes, 0, take, this.#missing === 0);
      return;
    }
    const decoder = this.#decoder!;
    if (!decoder.decode(bytes, 0, size)) {
      this.#closeAfter = true;
      this.#exchange.onBadBody("bad_chunk", `the body has ${decoder.problem}`);
      return;
    }
    const { dataStart, dataEnd, done } = decoder;
    if (done) {
      this.#endBody();
      if (decoder.trailers.length > 0)
        this.#exchange.request.trailers = forwardableTrailers(decoder.trailers);
    }
    if (decoder.end < size) this.#setAside(bytes, decoder.end, size);
    if (done || dataEnd > dataStart) this.#exchange.onRequestData(bytes, dataStart, dataEnd, done);
  }

  /** The head is not whole: keeps what there is. Returns `to`. */
  #awaitHead(bytes: Buffer, from: number, to: number): number {
    const { context } = this.#listener;
    if (to - from > context.limits.headBytesMax) {
      this.#refuseConnection(
        "head_too_large",
        `the head is longer than ${context.limits.headBytesMax} bytes`,
      );
      return to;
    }
    this.#pieces = new HeadPieces();
    this.#pieces.append(bytes, from, to);
    if (this.#headStartedMs === 0) {
      this.#headStartedMs = context.clock.nowMs();
      this.#dueMs = this.#headStartedMs + context.limits.headTimeoutMs;
      context.wheel.watch(this, this.#dueMs);
    }
    return to;
  }

  /** Pipelined bytes: kept, one read of them, until the answer before them is out. */
  #setAside(bytes: Buffer, from: number, to: number): void {
    const piece = Buffer.from(bytes.subarray(from, to));
    this.#pipelined = this.#pipelined === undefined ? piece : Buffer.concat([this.#pipelined, piece]);
    this.#wire.pause();
  }

  /** A refusal without an exchange: what came cannot be read any further, so the connection ends. */
  #refuseConnection(code: FailureCode, problem: string): void {
    const { context, id, from, kind } = this.#listener;
    const requestId = context.newRequestId();
    const where = `${context.name}, ${kind} listener ${id}, from ${from}, client ${this.peerAddress}; request ${requestId}`;
    context.log.debug({ code, requestId, where }, problem);
    this.#closeAfter = true;
    this.#writeRefusal(code, refusalText(code, problem, where), false);
    const durationMs = this.#headStartedMs === 0 ? 0 : context.clock.nowMs() - this.#headStartedMs;
    recordRefusal(context, this.#listener, this.peerAddress, code, requestId, { durationMs });
    this.#linger();
  }

  #writeRefusal(code: FailureCode, text: string, headOnly: boolean): void {
    const { request } = this.#exchange;
    const connection = this.#closeAfter ? "close" : request.minor === 0 ? "keep-alive" : "";
    this.#wire.writeText(
      refusalResponse(
        code,
        text,
        connection,
        this.#listener.context.dateField(),
        headOnly,
        this.secured?.hstsField,
      ),
    );
  }

  /**
   * Ends our direction and swallows the client's for a while: closing with unread bytes would reset the connection
   * and could take the answer away from the client (RFC 9112 9.6).
   */
  #linger(): void {
    const { context } = this.#listener;
    this.#state = STATE.linger;
    this.#pipelined = undefined;
    this.#pieces = undefined;
    this.#wire.end();
    if (this.#ended) return;
    this.#wire.resume();
    this.#dueMs = context.clock.nowMs() + context.limits.lingerTimeoutMs;
    context.wheel.watch(this, this.#dueMs);
  }
}
