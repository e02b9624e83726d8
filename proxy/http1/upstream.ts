import type { EndpointState } from "../cluster.ts";
import type { EngineContext } from "../context.ts";
import type { Timed } from "../deadlines.ts";
import { fieldValue, upstreamHeadText } from "../headers.ts";
import type { Upstream, UpstreamUser } from "../sides.ts";
import { forwardableTrailers, lastChunk } from "../trailers.ts";
import { acceptOf } from "../websocket.ts";
import { Wire, type WireUser } from "../wire.ts";
import { ChunkedDecoder } from "./chunked.ts";
import { FAILED, HeadPieces, NEED_MORE, hasLineFeed } from "./fields.ts";
import { BODY, type BodyKind } from "./request-head.ts";
import { ResponseHead, parseResponseHead } from "./response-head.ts";

/** Connecting → (idle ⇄ head → body) → closed; or → tunnel, when it changes hands. */
const STATE = { connecting: 0, settling: 1, idle: 2, head: 3, body: 4, tunnel: 5, closed: 6 } as const;
type State = (typeof STATE)[keyof typeof STATE];

/** Parsing and handing on are synchronous: one head does for all connections. */
const response = new ResponseHead();

/**
 * One HTTP/1.1 connection to an endpoint, used for one request at a time and kept for the next. Bytes that nobody
 * asked for, before a request or behind a response, mean that the other side is broken: it is never used again.
 */
export class Http1Upstream implements Upstream, WireUser, Timed {
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  readonly #endpoint: EndpointState;
  readonly #context: EngineContext;
  #wire!: Wire;
  #state: State = STATE.connecting;
  #exchange: UpstreamUser | undefined;
  /** Of connecting and of being idle; requests have deadlines of their own. */
  #dueMs = Infinity;
  /** Requests served before the one at hand. */
  #served = 0;
  /** The PROXY header it begins with, for one client only; empty for nearly all. */
  #introduction = "";
  #gotBytes = false;
  #interims = 0;
  #pieces: HeadPieces | undefined;
  #chunkedRequest = false;
  #body: BodyKind = BODY.none;
  #missing = 0;
  #decoder: ChunkedDecoder | undefined;
  #reusable = false;
  #idleMs = 0;

  /** The idle connection used last, of those that may carry `user`'s request, or undefined. */
  static takeIdle(
    endpoint: EndpointState,
    context: EngineContext,
    user: UpstreamUser,
  ): Http1Upstream | undefined {
    if (endpoint.idle.length === 0) return undefined;
    const nowMs = context.wheel.coarseNowMs();
    const introduction = introductionOf(user, endpoint);
    for (;;) {
      const connection = introduction === "" ? popAny(endpoint) : popIntroduced(endpoint, introduction);
      if (connection === undefined) return undefined;
      if (connection.#dueMs > nowMs && !connection.#wire.closed) return connection;
      connection.#close();
    }
  }

  /** Opens a connection for `exchange`, which hears `onUpstreamReady` or `onUpstreamFailed`. */
  static connect(endpoint: EndpointState, context: EngineContext, exchange: UpstreamUser): Http1Upstream {
    const connection = new Http1Upstream(endpoint, context);
    connection.#exchange = exchange;
    connection.#introduction = introductionOf(exchange, endpoint);
    // One that waits for another client makes way.
    if (endpoint.connections >= endpoint.cluster.policy.connectionsPerEndpointMax)
      endpoint.idle[0]?.destroy();
    endpoint.connections += 1;
    context.stats.upstreamConnections += 1;
    connection.#dueMs = context.clock.nowMs() + endpoint.cluster.policy.connectTimeoutMs;
    context.wheel.watch(connection, connection.#dueMs);
    connection.#wire = Wire.dial(endpoint.host, endpoint.port, connection, context.onFault);
    return connection;
  }

  private constructor(endpoint: EndpointState, context: EngineContext) {
    this.#endpoint = endpoint;
    this.#context = context;
  }

  /** The end of a chunked body, trailers included. */
  #sendLast(bytes: Buffer, from: number, to: number): boolean {
    const { trailers } = this.#exchange!.request;
    if (trailers.length === 0) return this.#wire.writeWithText("", bytes, from, to, true, true);
    if (to > from) this.#wire.writeWithText("", bytes, from, to, true, false);
    return this.#wire.writeText(lastChunk(trailers));
  }

  /** The client it is for, where that is told; see `takeIdle`. */
  get introduction(): string {
    return this.#introduction;
  }

  /** Out of the pool, into the hands of an exchange. */
  serve(exchange: UpstreamUser): void {
    this.#exchange = exchange;
  }

  send(
    host: string,
    hopFields: string,
    requestId: string,
    bytes: Buffer,
    from: number,
    to: number,
    last: boolean,
  ): boolean {
    const { request } = this.#exchange!;
    let head = upstreamHeadText(request, host, hopFields, requestId);
    if (this.#introduction !== "" && this.#served === 0) head = this.#introduction + head;
    this.#state = STATE.head;
    this.#dueMs = Infinity;
    this.#gotBytes = false;
    this.#interims = 0;
    this.#chunkedRequest = request.body === BODY.chunked;
    if (last && this.#chunkedRequest && request.trailers.length > 0) {
      this.#wire.writeWithText(head, bytes, from, to, true, false);
      return this.#wire.writeText(lastChunk(request.trailers));
    }
    if (to === from && !(last && this.#chunkedRequest)) return this.#wire.writeText(head);
    return this.#wire.writeWithText(head, bytes, from, to, this.#chunkedRequest, last);
  }

  sendData(bytes: Buffer, from: number, to: number, last: boolean): boolean {
    if (last && this.#chunkedRequest) return this.#sendLast(bytes, from, to);
    if (this.#chunkedRequest) return this.#wire.writeWithText("", bytes, from, to, true, last);
    return to === from || this.#wire.writeBytes(bytes, from, to);
  }

  pause(): void {
    this.#wire.pause();
  }

  resume(): void {
    this.#wire.resume();
  }

  /** The exchange wants nothing more of it: a response that is under way cannot be stopped otherwise. */
  abandon(): void {
    this.#exchange = undefined;
    this.#close();
  }

  /** Hands the connection over to a tunnel, which calls back when it is closed. */
  giveWire(): Wire {
    this.#exchange = undefined;
    this.#state = STATE.tunnel;
    return this.#wire;
  }

  /** The tunnel that had the wire is closed. */
  onTunnelClosed(): void {
    this.#left();
  }

  destroy(): void {
    this.#close();
  }

  onConnected(): void {
    if (this.#state !== STATE.connecting) return;
    this.#state = STATE.settling;
    this.#dueMs = Infinity;
    // Two turns of the event loop, with a look at the socket between: an upstream that speaks before it was asked
    // is broken, and its bytes must not be taken for an answer.
    setImmediate(() => setImmediate(() => this.#settled()));
  }

  onBytes(bytes: Buffer, size: number): void {
    switch (this.#state) {
      case STATE.head:
        return this.#readHead(bytes, size);
      case STATE.body:
        return this.#readBody(bytes, 0, size);
      case STATE.settling:
        return this.#fail("bad_response", "it sent bytes before it was asked", false);
      case STATE.idle:
        return this.#close();
      case STATE.connecting:
      case STATE.tunnel:
      case STATE.closed:
        return;
    }
  }

  onEnd(): void {
    if (this.#state === STATE.body && this.#body === BODY.close) {
      const exchange = this.#exchange;
      this.#exchange = undefined;
      this.#close();
      exchange?.onResponseData(NO_BYTES, 0, 0, true);
      return;
    }
    this.#failClosed("it closed the connection");
  }

  onDrain(): void {
    this.#exchange?.onUpstreamDrained();
  }

  onClosed(error: string): void {
    const state = this.#state;
    if (state === STATE.connecting) {
      this.#fail(
        "connect_failed",
        `cannot connect to ${this.#endpoint.host}:${this.#endpoint.port}: ${error}`,
        false,
      );
    } else if (state !== STATE.closed) this.#failClosed(error === "" ? "it closed the connection" : error);
    this.#left();
  }

  onTick(nowMs: number): number {
    if (nowMs < this.#dueMs) return this.#dueMs;
    if (this.#state === STATE.connecting) {
      const { connectTimeoutMs } = this.#endpoint.cluster.policy;
      const { host, port } = this.#endpoint;
      this.#fail("connect_timeout", `no connection to ${host}:${port} within ${connectTimeoutMs} ms`, false);
    } else this.#close();
    return Infinity;
  }

  #settled(): void {
    if (this.#state !== STATE.settling) return;
    this.#state = STATE.idle;
    this.#exchange?.onUpstreamReady();
  }

  #readHead(received: Buffer, size: number): void {
    this.#gotBytes = true;
    let bytes = received;
    let to = size;
    if (this.#pieces !== undefined) {
      const pieces = this.#pieces;
      pieces.append(received, 0, size);
      if (!hasLineFeed(received, size) && pieces.length <= this.#context.limits.headBytesMax) return;
      bytes = pieces.bytes;
      to = pieces.length;
      this.#pieces = undefined;
    }
    let at = 0;
    while (this.#state === STATE.head && at < to) {
      const method = this.#exchange!.request.method;
      const end = parseResponseHead(bytes, at, to, response, method, this.#context.limits);
      if (end === NEED_MORE) {
        if (to - at > this.#context.limits.headBytesMax) return this.#bad("its head is too large");
        this.#pieces = new HeadPieces();
        this.#pieces.append(bytes, at, to);
        return;
      }
      if (end === FAILED) return this.#bad(response.problem);
      at = end;
      if (response.status === 101) return this.#switch(bytes, at, to);
      if (response.status >= 200) return this.#respond(bytes, at, to);
      this.#interims += 1;
      if (this.#interims > this.#context.limits.interimResponsesMax) return this.#bad("it sent too many 1xx");
      this.#exchange!.onInterim(response);
    }
  }

  /** The final head is there: decides how the body ends and hands on what came with it. */
  #respond(bytes: Buffer, from: number, to: number): void {
    this.#body = response.body;
    this.#reusable = response.keepAlive && response.body !== BODY.close;
    this.#idleMs = this.#context.limits.upstreamIdleTimeoutMs;
    if (response.keepAliveMs > 0) {
      this.#idleMs = Math.min(this.#idleMs, Math.max(response.keepAliveMs - 1000, response.keepAliveMs / 2));
    }
    this.#state = STATE.body;
    this.#wire.mayReceiveOwn();
    switch (this.#body) {
      case BODY.none:
        return this.#hand(bytes, from, from, from < to, true, true);
      case BODY.close:
        return this.#hand(bytes, from, to, false, false, true);
      case BODY.length:
        this.#missing = response.contentLength;
        break;
      case BODY.chunked:
        this.#decoder ??= new ChunkedDecoder();
        this.#decoder.reset();
        break;
    }
    this.#readFramed(bytes, from, to, true);
  }

  #readBody(bytes: Buffer, from: number, to: number): void {
    if (this.#body === BODY.close) return this.#hand(bytes, from, to, false, false, false);
    this.#readFramed(bytes, from, to, false);
  }

  #readFramed(bytes: Buffer, from: number, to: number, withHead: boolean): void {
    if (this.#body === BODY.length) {
      const take = Math.min(this.#missing, to - from);
      this.#missing -= take;
      return this.#hand(bytes, from, from + take, from + take < to, this.#missing === 0, withHead);
    }
    const decoder = this.#decoder!;
    if (!decoder.decode(bytes, from, to)) {
      if (withHead) return this.#bad(`its body has ${decoder.problem}`);
      return this.#fail("bad_response", `its body has ${decoder.problem}`, true);
    }
    if (!withHead && !decoder.done && decoder.dataEnd === decoder.dataStart) return;
    if (decoder.done && decoder.trailers.length > 0) {
      return this.#handTrailers(bytes, decoder, decoder.end < to, withHead);
    }
    this.#hand(bytes, decoder.dataStart, decoder.dataEnd, decoder.end < to, decoder.done, withHead);
  }

  /** Hands on a part of the response; `surplus`: bytes follow the end of the message, which nobody asked for. */
  #hand(bytes: Buffer, from: number, to: number, surplus: boolean, last: boolean, withHead: boolean): void {
    const exchange = this.#exchange!;
    if (last) {
      this.#exchange = undefined;
      this.#wire.receiveShared();
      // First back into the pool, so that the client's next request finds it.
      if (this.#reusable && !surplus && exchange.requestComplete) this.#giveBack();
      else this.#close();
    }
    if (withHead) exchange.onResponse(response, bytes, from, to, last);
    else exchange.onResponseData(bytes, from, to, last);
  }

  /** The rest of a body with trailers behind it: the exchange gets these last. */
  #handTrailers(bytes: Buffer, decoder: ChunkedDecoder, surplus: boolean, withHead: boolean): void {
    const exchange = this.#exchange!;
    const { dataStart, dataEnd, trailers } = decoder;
    if (withHead) exchange.onResponse(response, bytes, dataStart, dataEnd, false);
    else if (dataEnd > dataStart) exchange.onResponseData(bytes, dataStart, dataEnd, false);
    if (this.#exchange !== exchange) return; // It went elsewhere, or is gone.
    this.#exchange = undefined;
    this.#wire.receiveShared();
    if (this.#reusable && !surplus && exchange.requestComplete) this.#giveBack();
    else this.#close();
    exchange.onResponseTrailers(forwardableTrailers(trailers));
  }

  #switch(bytes: Buffer, from: number, to: number): void {
    const exchange = this.#exchange!;
    const wanted = exchange.request.upgrade;
    if (wanted === "" || response.upgrade !== wanted || !exchange.requestComplete) {
      return this.#bad("it changed to a protocol that nobody asked for (101)");
    }
    const { websocketKey } = exchange.request;
    if (
      websocketKey !== "" &&
      fieldValue(response.fields, "sec-websocket-accept") !== acceptOf(websocketKey)
    ) {
      return this.#bad("its Sec-WebSocket-Accept does not answer our key (RFC 6455 4.1)");
    }
    const early = Buffer.from(bytes.subarray(from, to));
    exchange.onUpgraded(response, this, early);
  }

  #giveBack(): void {
    const { limits, mesh, wheel } = this.#context;
    const endpoint = this.#endpoint;
    if (endpoint.removed || endpoint.idle.length >= limits.idlePerEndpointMax) return this.#close();
    this.#state = STATE.idle;
    this.#served += 1;
    this.#wire.resume();
    this.#dueMs = wheel.coarseNowMs() + this.#idleMs;
    wheel.watch(this, this.#dueMs);
    endpoint.idle.push(this);
    if (mesh.someoneWaits(endpoint.cluster.name)) mesh.wake(endpoint.cluster.name);
  }

  /** A response that breaks the rules before any of it was handed on. */
  #bad(problem: string): void {
    this.#fail("bad_response", problem, true);
  }

  /** The connection ended where it should not have. */
  #failClosed(what: string): void {
    const sent = this.#state === STATE.head || this.#state === STATE.body;
    const stale = this.#state === STATE.head && this.#served > 0 && !this.#gotBytes;
    const cut = this.#state === STATE.body ? " in the middle of its response" : "";
    this.#fail(sent ? "upstream_closed" : "connect_failed", `${what}${cut}`, sent, stale);
  }

  #fail(
    code: "bad_response" | "connect_failed" | "connect_timeout" | "upstream_closed",
    what: string,
    sent: boolean,
    stale = false,
  ): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    this.#close();
    exchange?.onUpstreamFailed(code, what, sent, stale);
  }

  #close(): void {
    if (this.#state === STATE.closed) return;
    if (this.#state === STATE.idle) {
      const at = this.#endpoint.idle.indexOf(this);
      if (at >= 0) this.#endpoint.idle.splice(at, 1);
    }
    this.#state = STATE.closed;
    this.#dueMs = Infinity;
    this.#pieces = undefined;
    this.#wire.destroy();
  }

  /** The socket is closed: makes room for another connection. */
  #left(): void {
    this.#context.wheel.forget(this);
    this.#endpoint.connections -= 1;
    this.#context.stats.upstreamConnections -= 1;
    this.#context.mesh.wake(this.#endpoint.cluster.name);
  }
}

const NO_BYTES = Buffer.alloc(0);

/** What a connection for `user` must begin with. */
function introductionOf(user: UpstreamUser, { proxyProtocol }: EndpointState): string {
  return proxyProtocol === undefined ? "" : user.request.client.proxyHeader(proxyProtocol);
}

function popAny({ idle }: EndpointState): Http1Upstream | undefined {
  return idle.pop() as Http1Upstream | undefined;
}

/** A connection speaks for the client it was introduced with, and for nobody else. */
function popIntroduced({ idle }: EndpointState, introduction: string): Http1Upstream | undefined {
  const at = (idle as Http1Upstream[]).findLastIndex((one) => one.introduction === introduction);
  return at < 0 ? undefined : (idle.splice(at, 1)[0] as Http1Upstream);
}
