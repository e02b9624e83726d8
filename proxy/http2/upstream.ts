import type { EndpointState, SharedConnection } from "../cluster.ts";
import type { EngineContext } from "../context.ts";
import type { Timed } from "../deadlines.ts";
import { fieldValue } from "../headers.ts";
import type { ResponseHead } from "../http1/response-head.ts";
import type { SwitchedUpstream, Upstream, UpstreamUser } from "../sides.ts";
import { forwardableTrailers } from "../trailers.ts";
import type { TunnelEnd } from "../tunnel.ts";
import { Wire, type WireUser } from "../wire.ts";
import { Connection } from "./connection.ts";
import { CANCEL, REFUSED_STREAM } from "./constants.ts";
import { fieldsOfLines, readHttp2Response, readUpgraded } from "./convert.ts";
import type { Head } from "./head.ts";
import { StreamWire } from "./stream-wire.ts";
import { ENDED } from "./stream.ts";
import type { Stream } from "./stream.ts";

const TICK_MS = 1_000;
const NO_BYTES = Buffer.alloc(0);

/** connecting (until the peer's SETTINGS are there) → open → closing (the last streams finish) → closed */
const STATE = { connecting: 0, open: 1, closing: 2, closed: 3 } as const;
type State = (typeof STATE)[keyof typeof STATE];

/** One HTTP/2 connection to an endpoint, with prior knowledge; shared by many exchanges, each on a stream. */
export class Http2Upstream implements WireUser, Timed, SharedConnection {
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  readonly codec: Connection<UpstreamStream>;
  readonly #endpoint: EndpointState;
  readonly #context: EngineContext;
  readonly #wire: Wire;
  /** Exchanges that wait for the connection. */
  readonly #waiting = new Set<UpstreamStream>();
  /** Streams whose response's head came in this read, in case content follows at once. */
  #heads: UpstreamStream[] = [];
  #state: State = STATE.connecting;
  #connectDueMs: number;
  #idleSinceMs = Infinity;

  /** A stream for `exchange` on a connection with room. When it is not `ready`, `exchange.onUpstreamReady` follows. */
  static open(endpoint: EndpointState, context: EngineContext, exchange: UpstreamUser): UpstreamStream {
    const connection = Http2Upstream.#withRoom(endpoint, context);
    const stream = new UpstreamStream(connection, exchange);
    if (connection.#state === STATE.connecting) connection.#waiting.add(stream);
    return stream;
  }

  static #withRoom(endpoint: EndpointState, context: EngineContext): Http2Upstream {
    const shared = endpoint.shared.find(({ hasRoom }) => hasRoom);
    if (shared !== undefined) return shared as Http2Upstream;
    const connection = new Http2Upstream(endpoint, context);
    endpoint.shared.push(connection);
    return connection;
  }

  /** Takes over a stream that found no place elsewhere. */
  adopt(stream: UpstreamStream): void {
    if (this.#state === STATE.connecting) this.#waiting.add(stream);
    else stream.exchange.onUpstreamReady();
  }

  private constructor(endpoint: EndpointState, context: EngineContext) {
    const nowMs = context.clock.nowMs();
    this.#endpoint = endpoint;
    this.#context = context;
    this.#connectDueMs = nowMs + endpoint.cluster.policy.connectTimeoutMs;
    endpoint.connections += 1;
    context.stats.upstreamConnections += 1;
    this.#wire = Wire.dial(endpoint.host, endpoint.port, this, context.onFault);
    this.codec = new Connection<UpstreamStream>({
      role: "client",
      limits: context.http2Limits,
      nowMs: () => context.clock.nowMs(),
      schedule: context.scheduleFlush,
      write: (bytes) => this.#wire.closed || this.#wire.writeWhole(bytes),
      events: {
        onHead: (stream, head, endStream) => this.#head(stream, head, endStream),
        onInterim: (stream, head) => stream.context?.onInterim(head),
        onData: (stream, bytes, from, to, last) => this.#data(stream, bytes, from, to, last),
        onTrailers: (stream, fields) => stream.context?.onTrailers(fields),
        onReset: (stream, code, reason) => stream.context?.onReset(stream.resetByPeer, code, reason),
        onDrain: (stream) => stream.context?.onDrain(),
        onCapacity: () => this.#room(),
        onGoaway: () => this.#leave(),
        onClose: (_, reason) => this.#end(reason),
      },
    });
    context.wheel.watch(this, Math.min(this.#connectDueMs, nowMs + TICK_MS));
  }

  get connected(): boolean {
    return this.#state === STATE.open;
  }

  get hasRoom(): boolean {
    if (this.#state === STATE.connecting) return this.#waiting.size < this.#endpoint.streamsPerConnection;
    return this.#state === STATE.open && this.codec.capacity > 0;
  }

  retire(): void {
    this.#leave();
    if (this.#connectDueMs === Infinity || this.#waiting.size === 0) this.codec.shutdown();
  }

  /** The exchange gave up before the connection was there. */
  forget(stream: UpstreamStream): void {
    this.#waiting.delete(stream);
  }

  onConnected(): void {}

  onBytes(bytes: Buffer, size: number): void {
    this.codec.receive(bytes.subarray(0, size));
    if (this.#heads.length === 0) return;
    const heads = this.#heads;
    this.#heads = [];
    for (const stream of heads) stream.flushHead();
  }

  onEnd(): void {
    this.#lost("it closed the connection");
  }

  onDrain(): void {
    this.codec.writable();
  }

  onClosed(error: string): void {
    const { host, port } = this.#endpoint;
    this.#lost(
      this.#connectDueMs === Infinity
        ? error || "it closed the connection"
        : `cannot connect to ${host}:${port}: ${error}`,
    );
    this.#context.wheel.forget(this);
    this.#endpoint.connections -= 1;
    this.#context.stats.upstreamConnections -= 1;
    this.#context.mesh.wake(this.#endpoint.cluster.name);
  }

  onTick(nowMs: number): number {
    if (this.#state === STATE.closed) return Infinity;
    if (nowMs >= this.#connectDueMs) {
      const { host, port, cluster } = this.#endpoint;
      this.#lost(
        `no connection to ${host}:${port} within ${cluster.policy.connectTimeoutMs} ms`,
        "connect_timeout",
      );
      return Infinity;
    }
    if (this.#connectDueMs !== Infinity) return this.#connectDueMs;
    this.codec.tick(nowMs);
    if (this.codec.streamCount > 0) this.#idleSinceMs = Infinity;
    else if (this.#idleSinceMs === Infinity) this.#idleSinceMs = nowMs;
    // Closing an idle connection races with nobody: a stream the peer has not seen is refused, and sent again.
    else if (nowMs - this.#idleSinceMs >= this.#context.limits.downstreamIdleTimeoutMs) this.retire();
    return nowMs + TICK_MS;
  }

  /** Content follows its head in the same read, most often: both are handed on together. */
  #head(stream: Stream<UpstreamStream>, head: Head, endStream: boolean): void {
    const { context } = stream;
    if (context === undefined) return;
    context.onHead(head, endStream);
    if (!endStream) this.#heads.push(context);
  }

  #data(stream: Stream<UpstreamStream>, bytes: Buffer, from: number, to: number, last: boolean): void {
    if (stream.context === undefined) this.codec.consumed(stream, to - from);
    else stream.context.onData(bytes, from, to, last);
  }

  /** A stream may be opened: the first SETTINGS came, or another stream ended. */
  #room(): void {
    if (this.#connectDueMs !== Infinity) return this.#opened();
    const { mesh } = this.#context;
    const { name } = this.#endpoint.cluster;
    if (mesh.someoneWaits(name)) mesh.wake(name);
  }

  /** Serves those who waited; who finds no place after all moves on to another connection. */
  #opened(): void {
    this.#connectDueMs = Infinity;
    const leaving = this.#state === STATE.closing;
    this.#state = STATE.open;
    this.#endpoint.streamsPerConnection = Math.max(1, Math.min(this.codec.capacity, 1_000));
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const [index, stream] of waiting.entries()) {
      if (this.codec.capacity > 0) stream.exchange.onUpstreamReady();
      else if (index === 0) stream.fail("it allows no streams");
      else stream.moveTo(Http2Upstream.#withRoom(this.#endpoint, this.#context));
    }
    if (leaving) this.retire();
  }

  /** No new requests from now on. */
  #leave(): void {
    const at = this.#endpoint.shared.indexOf(this);
    if (at >= 0) this.#endpoint.shared.splice(at, 1);
    if (this.#state === STATE.open || this.#state === STATE.connecting) this.#state = STATE.closing;
  }

  /** The codec is done and has written its goodbye. */
  #end(reason: string): void {
    if (this.#state === STATE.closed) return;
    this.#leave();
    this.#state = STATE.closed;
    this.#failWaiting("connect_failed", reason);
    this.#wire.end();
    // Whatever the peer still says is of no interest.
    setImmediate(() => this.#wire.destroy());
  }

  /** The connection is gone, or never came. */
  #lost(what: string, code: "connect_failed" | "connect_timeout" = "connect_failed"): void {
    if (this.#state === STATE.closed) return;
    this.#leave();
    this.#state = STATE.closed;
    this.#failWaiting(code, what);
    this.codec.abort(what);
    this.#wire.destroy();
  }

  #failWaiting(code: "connect_failed" | "connect_timeout", what: string): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const { exchange } of waiting) exchange.onUpstreamFailed(code, what, false, false);
  }
}

/** One request on a connection that it shares. */
class UpstreamStream implements Upstream, SwitchedUpstream {
  readonly exchange: UpstreamUser;
  #connection: Http2Upstream;
  #stream: Stream<UpstreamStream> | undefined;
  /** A head that waits for what follows it in the same read. */
  #head: ResponseHead | undefined;
  #paused = false;
  #held = 0;
  #over = false;
  /** Set once the stream carries another protocol. */
  #tunnel: StreamWire<UpstreamStream> | undefined;

  constructor(connection: Http2Upstream, exchange: UpstreamUser) {
    this.#connection = connection;
    this.exchange = exchange;
  }

  get ready(): boolean {
    return this.#connection.connected;
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
    const { codec } = this.#connection;
    const { method, target, fields, upgrade } = this.exchange.request;
    if (upgrade !== "") return this.#sendConnect(host, hopFields, requestId);
    const { trailers } = this.exchange.request;
    const whole = last && to === from && trailers.length === 0;
    const lines = fieldsOfLines(fields + hopFields);
    // `te` says that trailers are understood, without which a gRPC server may refuse (RFC 9110, 10.1.4).
    const extra = ["te", "trailers", "x-request-id", requestId];
    const request = { method, scheme: "http", authority: host, path: target };
    const stream = codec.request(request, lines, whole, this, extra);
    this.#stream = stream;
    if (stream === undefined) {
      // The last place was taken between the choice and now, or a GOAWAY came: nothing was sent.
      queueMicrotask(() =>
        this.#failed("connect_failed", "its connection takes no more requests", false, true),
      );
      return true;
    }
    return whole || (to === from && !last) || this.sendData(bytes, from, to, last);
  }

  sendData(bytes: Buffer, from: number, to: number, last: boolean): boolean {
    const stream = this.#stream;
    if (stream === undefined) return true;
    const { codec } = this.#connection;
    const { trailers } = this.exchange.request;
    if (!last || trailers.length === 0) return codec.sendData(stream, bytes, from, to, last);
    const flowing = to === from || codec.sendData(stream, bytes, from, to, false);
    codec.sendTrailers(stream, trailers);
    return flowing;
  }

  /** An upgrade is an extended CONNECT here (RFC 8441 4); with a peer that does not take them it fails. */
  #sendConnect(host: string, hopFields: string, requestId: string): boolean {
    const { codec } = this.#connection;
    const { target, fields, upgrade } = this.exchange.request;
    const lines = fieldsOfLines(fields + hopFields);
    const kept = lines.filter((_, at) => lines[at - (at % 2)]!.toLowerCase() !== "sec-websocket-key");
    const request = { method: "CONNECT", scheme: "http", authority: host, path: target, protocol: upgrade };
    if (codec.takesExtendedConnect && upgrade === "websocket") {
      this.#stream = codec.request(request, kept, false, this, ["x-request-id", requestId]);
    }
    if (this.#stream !== undefined) return true;
    queueMicrotask(() => {
      if (this.#over) return;
      if (codec.takesExtendedConnect) {
        return this.#failed("connect_failed", "its connection takes no more requests", false, true);
      }
      this.#failed(
        "upgrade_unsupported",
        `it does not take ${upgrade} over HTTP/2 (RFC 8441 3)`,
        false,
        true,
      );
    });
    return true;
  }

  /** Hands the stream over to a tunnel. */
  giveWire(): TunnelEnd {
    const stream = this.#stream!;
    this.#tunnel = new StreamWire(this.#connection.codec, stream);
    return this.#tunnel;
  }

  onTunnelClosed(): void {
    this.#letGo();
  }

  onDrain(): void {
    if (this.#tunnel === undefined) this.exchange.onUpstreamDrained();
    else this.#tunnel.onDrain();
  }

  /** Waits for another connection than the one it was given. */
  moveTo(connection: Http2Upstream): void {
    this.#connection = connection;
    connection.adopt(this);
  }

  /** The connection cannot serve it; nothing was sent. */
  fail(what: string): void {
    this.#failed("connect_failed", what, false, false);
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    if (this.#held === 0 || this.#stream === undefined) return;
    this.#connection.codec.consumed(this.#stream, this.#held);
    this.#held = 0;
  }

  abandon(): void {
    this.#over = true;
    this.#connection.forget(this);
    this.#letGo();
  }

  onHead(head: Head, endStream: boolean): void {
    const { request } = this.exchange;
    if (request.upgrade !== "" && head.status < 300 && !endStream) {
      const key = fieldValue(request.fields, "sec-websocket-key") ?? "";
      return this.exchange.onUpgraded(readUpgraded(head, request.upgrade, key), this, NO_BYTES);
    }
    const response = readHttp2Response(head, this.exchange.request.method === "HEAD");
    if (!endStream) {
      this.#head = response;
      return;
    }
    this.#letGo();
    this.exchange.onResponse(response, NO_BYTES, 0, 0, true);
  }

  /** Nothing followed the head: it goes alone. */
  flushHead(): void {
    const head = this.#head;
    if (head === undefined) return;
    this.#head = undefined;
    this.exchange.onResponse(head, NO_BYTES, 0, 0, false);
  }

  onInterim(head: Head): void {
    this.exchange.onInterim(readHttp2Response(head, false));
  }

  onData(bytes: Buffer, from: number, to: number, last: boolean): void {
    if (this.#tunnel !== undefined) return this.#tunnel.onData(bytes, from, to, last);
    const stream = this.#stream!;
    const head = this.#head;
    this.#head = undefined;
    if (last) this.#letGo();
    if (head !== undefined) this.exchange.onResponse(head, bytes, from, to, last);
    else this.exchange.onResponseData(bytes, from, to, last);
    if (this.#paused && !last) this.#held += to - from;
    else this.#connection.codec.consumed(stream, to - from);
  }

  onTrailers(fields: readonly string[]): void {
    if (this.#tunnel !== undefined) return this.#tunnel.onPeerEnd();
    this.flushHead();
    if (this.#over) return;
    this.#letGo();
    this.exchange.onResponseTrailers(forwardableTrailers(fields));
  }

  onReset(byPeer: boolean, code: number, reason: string): void {
    if (this.#tunnel !== undefined) return this.#tunnel.onReset();
    this.flushHead();
    const refused = code === REFUSED_STREAM;
    const bad = !byPeer && !this.#connection.codec.closed;
    this.#failed(bad ? "bad_response" : "upstream_closed", reason, !refused, refused && byPeer);
  }

  #failed(
    code: "bad_response" | "upstream_closed" | "connect_failed" | "upgrade_unsupported",
    what: string,
    sent: boolean,
    stale: boolean,
  ): void {
    if (this.#over) return;
    this.#letGo();
    this.exchange.onUpstreamFailed(code, what, sent, stale);
  }

  /** The exchange is done with the stream; what the peer still sends on it is not wanted. */
  #letGo(): void {
    const stream = this.#stream;
    this.#over = true;
    this.#stream = undefined;
    this.#head = undefined;
    if (stream === undefined) return;
    stream.context = undefined;
    const { codec } = this.#connection;
    codec.consumed(stream, this.#held);
    this.#held = 0;
    if (!stream.closed && !(stream.localSent && stream.phase === ENDED)) codec.reset(stream, CANCEL);
  }
}
