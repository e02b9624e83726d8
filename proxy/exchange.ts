import { Lease } from "./balancer.ts";
import type { Binding } from "./binding.ts";
import type { ClusterState, EndpointState } from "./cluster.ts";
import type { EngineContext } from "./context.ts";
import type { Timed } from "./deadlines.ts";
import { type FailureCode, STATUS_BY_CODE, refusalText } from "./failure.ts";
import { recordExchange } from "./finish.ts";
import { cookieValue, fieldValue } from "./headers.ts";
import { RequestHead } from "./http1/request-head.ts";
import type { ResponseHead } from "./http1/response-head.ts";
import { Http1Upstream } from "./http1/upstream.ts";
import { Http2Upstream } from "./http2/upstream.ts";
import type { Waiter } from "./mesh.ts";
import { judgeRetry } from "./retry.ts";
import { isAmbiguousPath, matchRoute } from "./routing.ts";
import { shareOfKey } from "./split.ts";
import type { Tunnel } from "./tunnel.ts";
import type { Wire } from "./wire.ts";

/** Where requests come from and answers go to: an HTTP/1.1 connection, or a stream of HTTP/2. */
export interface Downstream {
  readonly peerAddress: string;
  /** Lines this listener adds to every request. */
  readonly hopFields: string;
  /** Sends a 1xx. */
  sendInterim(head: ResponseHead): void;
  /**
   * Sends the head and what came of the body in the same read; `last`: that is all of it. Bytes are valid during the
   * call only. False: stop, until `exchange.onDownstreamDrained`.
   */
  respond(
    head: ResponseHead,
    extraFields: string,
    bytes: Buffer,
    from: number,
    to: number,
    last: boolean,
  ): boolean;
  sendData(bytes: Buffer, from: number, to: number, last: boolean): boolean;
  /** Sends what follows the body, names and values in turn, which ends the response; dropped where it has no place. */
  sendTrailers(fields: readonly string[]): void;
  /** Sends an answer of our own: `code` and its text. */
  refuse(code: FailureCode, text: string): void;
  /** The response cannot be completed: make sure that nobody takes it for the whole. */
  cut(): void;
  /** Do not read more of the request's body; and do again. */
  pauseBody(): void;
  resumeBody(): void;
  /** Sends the 101 and joins both connections; `onDone` when both are closed. */
  openTunnel(
    head: ResponseHead,
    extraFields: string,
    upstream: Wire,
    idleTimeoutMs: number,
    onDone: () => void,
  ): Tunnel;
  /** The exchange is over and may be used for the next request. */
  onExchangeOver(): void;
}

/** Where a request goes: a connection of HTTP/1.1 for itself, or a stream of HTTP/2. */
export interface Upstream {
  /**
   * Sends the exchange's request for `host` with the lines of this hop, and what there is of its body. False: the
   * body has to wait for `exchange.onUpstreamDrained`.
   */
  send(
    host: string,
    hopFields: string,
    requestId: string,
    bytes: Buffer,
    from: number,
    to: number,
    last: boolean,
  ): boolean;
  sendData(bytes: Buffer, from: number, to: number, last: boolean): boolean;
  /** Do not read more of the response; and do again. */
  pause(): void;
  resume(): void;
  /** The exchange wants nothing more of it. */
  abandon(): void;
}

/** What an exchange must know of the listener it came through. */
export interface ExchangeOrigin {
  readonly id: string;
  readonly kind: "edge" | "local";
  readonly from: string;
  /** Of a local listener; the edge asks its routes. */
  readonly binding: Binding | undefined;
  bindingTo(cluster: string): Binding;
}

const PHASE = { idle: 0, waiting: 1, connecting: 2, sending: 3, responding: 4, tunnel: 5 } as const;
type Phase = (typeof PHASE)[keyof typeof PHASE];

const NO_BYTES = Buffer.alloc(0);

/**
 * One request from its first byte to its log line. Every way it can end leads through `#finish`, once.
 * idle → waiting ⇄ connecting → sending → (again, see retry.ts) → responding → idle.
 */
export class Exchange implements Timed, Waiter {
  readonly request = new RequestHead();
  readonly lease = new Lease();
  readonly context: EngineContext;
  readonly origin: ExchangeOrigin;
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  /** For the record. */
  startedMs = 0;
  status = 0;
  bytesIn = 0;
  bytesOut = 0;
  retries = 0;
  reason: FailureCode | "" = "";
  binding: Binding | undefined;
  requestId = "";
  /** The last endpoint tried. */
  endpoint: EndpointState | undefined;
  upgraded = false;
  /** The whole request has come in. */
  requestComplete = false;
  readonly #downstream: Downstream;
  #phase: Phase = PHASE.idle;
  #cluster: ClusterState | undefined;
  #upstream: Upstream | undefined;
  #tunnel: Tunnel | undefined;
  #waitCode: FailureCode = "no_cluster";
  #responseStarted = false;
  #requestDueMs = Infinity;
  #phaseDueMs = Infinity;
  /** The release that the split has dealt to this request; -1: not yet. */
  #release = -1;
  #setCookie = "";
  #staleRetried = false;
  /** Body bytes of the read that is being handled; shared, so gone when it is over. */
  #fresh: Buffer = NO_BYTES;
  #freshFrom = 0;
  #freshTo = 0;
  /** Body bytes kept because they are not sent yet or may have to be sent again. */
  #kept: Buffer = NO_BYTES;
  #replayable = true;

  constructor(context: EngineContext, origin: ExchangeOrigin, downstream: Downstream) {
    this.context = context;
    this.origin = origin;
    this.#downstream = downstream;
  }

  get active(): boolean {
    return this.#phase !== PHASE.idle;
  }

  /** `request` is filled; `bytes[from, to)` is what came of its body with it; `last`: that is all. */
  begin(bytes: Buffer, from: number, to: number, last: boolean, startedMs: number): void {
    this.startedMs = startedMs;
    this.status = 0;
    this.bytesIn = to - from;
    this.bytesOut = 0;
    this.retries = 0;
    this.reason = "";
    this.endpoint = undefined;
    this.upgraded = false;
    this.requestComplete = last;
    this.requestId = this.request.requestId === "" ? this.context.newRequestId() : this.request.requestId;
    this.#responseStarted = false;
    this.#release = -1;
    this.#setCookie = "";
    this.#staleRetried = false;
    this.#replayable = true;
    this.#requestDueMs = Infinity;
    this.#phase = PHASE.waiting;
    this.context.stats.inFlight += 1;
    this.#fresh = bytes;
    this.#freshFrom = from;
    this.#freshTo = to;
    this.binding = this.origin.binding;
    this.binding ??= this.#route();
    if (this.binding !== undefined) this.#dispatch();
    if (this.#freshTo > this.#freshFrom && this.active) this.#keep(bytes, from, to);
    this.#forgetFresh();
    if (this.#upstream === undefined && this.active && !last) this.#downstream.pauseBody();
  }

  /** More of the request's body. */
  onRequestData(bytes: Buffer, from: number, to: number, last: boolean): void {
    if (!this.active) return;
    this.requestComplete = last;
    this.bytesIn += to - from;
    if (this.#phase < PHASE.sending) {
      this.#keep(bytes, from, to);
      if (!last) this.#downstream.pauseBody();
      return;
    }
    if (this.#upstream === undefined) return; // Answered already; the rest is swallowed.
    this.#keepForReplay(bytes, from, to);
    if (!this.#upstream.sendData(bytes, from, to, last) && !last) this.#downstream.pauseBody();
    this.#expectProgress();
  }

  /** The client is gone, or broke its own request; nobody can be answered any more. */
  onDownstreamGone(reason: FailureCode = "client_gone"): void {
    if (!this.active) return;
    this.#upstream?.abandon();
    this.#tunnel?.cut();
    if (!this.active) return; // The tunnel ended it.
    if (!this.#responseStarted) this.status = STATUS_BY_CODE[reason];
    this.reason = reason;
    this.#finish();
  }

  /** The body turned out to break the rules; `text` is for the client, if it has no answer yet. */
  onBadBody(code: FailureCode, problem: string): void {
    if (!this.active) return;
    this.#upstream?.abandon();
    this.#fail(code, problem);
  }

  onDownstreamDrained(): void {
    this.#upstream?.resume();
    if (this.#phase === PHASE.responding) this.#expectProgress();
  }

  /** The connection is there. */
  onUpstreamReady(): void {
    this.#send();
  }

  onUpstreamDrained(): void {
    this.#downstream.resumeBody();
  }

  onInterim(head: ResponseHead): void {
    const wanted = this.request.minor === 1 && (head.status !== 100 || this.request.expectContinue);
    if (wanted) this.#downstream.sendInterim(head);
  }

  onResponse(head: ResponseHead, bytes: Buffer, from: number, to: number, last: boolean): void {
    const cluster = this.#cluster!;
    const endpoint = this.endpoint!;
    const nowMs = this.context.clock.nowMs();
    if (head.status >= 500) {
      cluster.noteFailure(endpoint, `status ${head.status}`, nowMs);
      if (head.status === 503 && this.#retryElsewhere()) return;
    } else cluster.noteSuccess(endpoint, nowMs);
    this.#responseStarted = true;
    this.#phase = PHASE.responding;
    this.status = head.status;
    this.bytesOut = to - from;
    const upstream = this.#upstream;
    if (last) this.#upstream = undefined;
    const flowing = this.#downstream.respond(head, this.#setCookie, bytes, from, to, last);
    if (last) return this.#finish();
    if (!flowing) upstream?.pause();
    this.#phaseDueMs = nowMs + this.context.limits.bodyStallTimeoutMs;
    this.context.wheel.watch(this, Math.min(this.#phaseDueMs, this.#requestDueMs));
  }

  onResponseData(bytes: Buffer, from: number, to: number, last: boolean): void {
    this.bytesOut += to - from;
    const upstream = this.#upstream;
    if (last) this.#upstream = undefined;
    const flowing = this.#downstream.sendData(bytes, from, to, last);
    if (last) return this.#finish();
    if (!flowing) upstream?.pause();
    this.#expectProgress();
  }

  /** What follows the body, names and values in turn: the response is over. */
  onResponseTrailers(fields: readonly string[]): void {
    this.#upstream = undefined;
    this.#downstream.sendTrailers(fields);
    this.#finish();
  }

  /** The upstream changed the protocol as asked; `early` is what it already sent in the new one. */
  onUpgraded(head: ResponseHead, upstream: Http1Upstream, early: Buffer): void {
    this.#upstream = undefined;
    this.#responseStarted = true;
    this.upgraded = true;
    this.status = 101;
    this.#phase = PHASE.tunnel;
    this.#requestDueMs = Infinity;
    this.#phaseDueMs = Infinity;
    this.#cluster?.noteSuccess(this.endpoint!, this.context.clock.nowMs());
    const { idleTimeoutMs } = this.endpoint!.cluster.policy;
    const tunnel = this.#downstream.openTunnel(
      head,
      this.#setCookie,
      upstream.giveWire(),
      idleTimeoutMs,
      () => {
        upstream.onTunnelClosed();
        this.bytesIn = tunnel.bytesIn;
        this.bytesOut = tunnel.bytesOut;
        this.#tunnel = undefined;
        this.#finish();
      },
    );
    this.#tunnel = tunnel;
    tunnel.sendLeft(early, 0, early.length);
  }

  /**
   * The attempt failed before its response was complete. `sent`: the application may have seen the request;
   * `stale`: the connection had been idle and ended without a byte.
   */
  onUpstreamFailed(code: FailureCode, what: string, sent: boolean, stale: boolean): void {
    this.#upstream = undefined;
    const cluster = this.#cluster!;
    if (!stale) cluster.noteFailure(this.endpoint!, what, this.context.clock.nowMs());
    if (!this.#responseStarted && code !== "bad_response") {
      const attempt = {
        sent,
        idempotent: this.request.idempotent,
        replayable: this.#replayable,
        staleConnection: stale && !this.#staleRetried,
        retries: this.retries,
      };
      const verdict = judgeRetry(attempt, cluster.policy.retry);
      if (verdict === "reconnect") {
        this.#staleRetried = true;
        return this.#attempt(this.endpoint!, true);
      }
      if (verdict === "retry" && cluster.budget.withdraw()) return this.#again();
    }
    this.#fail(code, what);
  }

  retryNow(): boolean {
    const before = this.#waitCode;
    this.#phase = PHASE.connecting;
    this.#waitCode = "internal";
    const found = this.#dispatchNow();
    if (!found && this.active) {
      this.#phase = PHASE.waiting;
      if (this.#waitCode === "internal") this.#waitCode = before;
    }
    return found;
  }

  onTick(nowMs: number): number {
    if (!this.active) return Infinity;
    const dueMs = Math.min(this.#requestDueMs, this.#phaseDueMs);
    if (nowMs < dueMs) return dueMs;
    this.#expire(nowMs >= this.#requestDueMs);
    return Infinity;
  }

  #route(): Binding | undefined {
    const { target, host } = this.request;
    if (isAmbiguousPath(target)) {
      this.#fail("bad_target", "the path has dot segments or backslashes");
      return undefined;
    }
    const route = matchRoute(this.context.mesh.routes, host, target);
    if (route === undefined && this.context.mesh.epoch === 0) {
      this.#fail("no_configuration", "this proxy has no configuration yet");
      return undefined;
    }
    if (route === undefined) {
      this.#fail("no_route", `no route for ${host}${target.split("?")[0]}`);
      return undefined;
    }
    return this.origin.bindingTo(route.cluster);
  }

  /** Finds an endpoint, or waits for one within bounds. */
  #dispatch(): void {
    if (this.#dispatchNow()) return;
    const { mesh, limits, wheel, clock } = this.context;
    const name = this.binding!.cluster;
    const max = this.#cluster?.policy.pendingMax ?? 1024;
    if (!mesh.wait(name, this, max)) return this.#fail("overloaded", `${max} requests wait already`);
    this.#phase = PHASE.waiting;
    this.#phaseDueMs = clock.nowMs() + limits.pendingTimeoutMs;
    wheel.watch(this, this.#phaseDueMs);
  }

  #dispatchNow(): boolean {
    const binding = this.binding!;
    const cluster = this.context.mesh.clusters.get(binding.cluster);
    if (this.#cluster !== cluster) this.#enter(cluster);
    if (cluster === undefined) return this.#notYet("no_cluster");
    if (cluster.endpoints.size === 0) return this.#notYet("no_endpoint");
    const sticky = cluster.sticky !== undefined && cluster.shares.length > 0;
    if (sticky && this.#release < 0) this.#release = this.#stickyRelease(cluster);
    const stuckTo = this.#release;
    const endpoint = cluster.choose(
      binding.split,
      stuckTo < 0 ? undefined : stuckTo,
      this.endpoint,
      this.context.random,
    );
    if (endpoint === undefined) return this.#notYet("overloaded");
    this.#release = endpoint.release;
    if (sticky && endpoint.release !== stuckTo) this.#setCookie = stickyCookie(cluster, endpoint.release);
    this.#attempt(endpoint, false);
    return true;
  }

  #notYet(code: FailureCode): false {
    this.#waitCode = code;
    return false;
  }

  #enter(cluster: ClusterState | undefined): void {
    this.#cluster = cluster;
    if (cluster === undefined) return;
    cluster.budget.deposit();
    const { requestTimeoutMs } = cluster.policy;
    this.#requestDueMs = requestTimeoutMs === 0 ? Infinity : this.startedMs + requestTimeoutMs;
  }

  /** The release this client was sent to before; -1: it is new. */
  #stickyRelease(cluster: ClusterState): number {
    const { sticky, shares } = cluster;
    if (sticky?.by === "header") {
      const value = fieldValue(this.request.fields, sticky.name.toLowerCase());
      return value === undefined ? -1 : (shareOfKey(shares, value)?.release ?? -1);
    }
    const value = sticky === undefined ? undefined : cookieValue(this.request.cookie, sticky.name);
    return value !== undefined && /^\d{1,9}$/.test(value) && cluster.serves(Number(value))
      ? Number(value)
      : -1;
  }

  /** Claims the endpoint, then sends; so a drain never races a pick. */
  #attempt(endpoint: EndpointState, freshOnly: boolean): void {
    const { context } = this;
    this.endpoint = endpoint;
    this.lease.take(endpoint);
    if (endpoint.cluster.speaksHttp2) return this.#attemptHttp2(endpoint);
    const idle = freshOnly ? undefined : Http1Upstream.takeIdle(endpoint, context);
    if (idle === undefined) {
      this.#phase = PHASE.connecting;
      this.#phaseDueMs = Infinity; // The connection has its own deadline.
      this.#upstream = Http1Upstream.connect(endpoint, context, this);
      context.wheel.watch(this, this.#requestDueMs);
      return;
    }
    idle.serve(this);
    this.#upstream = idle;
    this.#send();
  }

  /** As `#attempt`, on a connection that others use at the same time. */
  #attemptHttp2(endpoint: EndpointState): void {
    const upstream = Http2Upstream.open(endpoint, this.context, this);
    this.#upstream = upstream;
    if (upstream.ready) return this.#send();
    this.#phase = PHASE.connecting;
    this.#phaseDueMs = Infinity;
    this.context.wheel.watch(this, this.#requestDueMs);
  }

  #send(): void {
    const { limits, clock, wheel } = this.context;
    const upstream = this.#upstream!;
    const endpoint = this.endpoint!;
    const host = endpoint.hostField === "" ? this.request.host : endpoint.hostField;
    let hopFields = this.#downstream.hopFields;
    if (this.origin.kind === "edge") hopFields += `x-forwarded-host: ${this.request.host}\r\n`;
    const authority = host === "" ? endpoint.cluster.name : host;
    const { requestId, requestComplete } = this;
    this.#phase = PHASE.sending;
    const kept = this.#kept;
    let flowing: boolean;
    if (kept.length > 0) {
      flowing = upstream.send(authority, hopFields, requestId, kept, 0, kept.length, requestComplete);
      this.#keepForReplay(NO_BYTES, 0, 0);
    } else {
      const fresh = this.#fresh;
      const [from, to] = [this.#freshFrom, this.#freshTo];
      flowing = upstream.send(authority, hopFields, requestId, fresh, from, to, requestComplete);
      this.#keepForReplay(fresh, from, to);
      this.#forgetFresh();
    }
    const nowMs = this.retries === 0 && !this.#staleRetried ? this.startedMs : clock.nowMs();
    const { responseTimeoutMs } = endpoint.cluster.policy;
    this.#phaseDueMs = !this.requestComplete
      ? nowMs + limits.bodyStallTimeoutMs
      : responseTimeoutMs === 0
        ? Infinity
        : nowMs + responseTimeoutMs;
    wheel.watch(this, Math.min(this.#phaseDueMs, this.#requestDueMs));
    if (!this.requestComplete && flowing) this.#downstream.resumeBody();
  }

  /** Another attempt after a failed one. */
  #again(): void {
    this.retries += 1;
    this.binding!.stats(this.endpoint!.release).retries += 1;
    this.lease[Symbol.dispose]();
    this.#phase = PHASE.waiting;
    this.#dispatch();
  }

  /** An upstream says 503: another endpoint may do better, for a request that may be sent twice. */
  #retryElsewhere(): boolean {
    const cluster = this.#cluster!;
    const { retry } = cluster.policy;
    const may =
      this.requestComplete &&
      this.#replayable &&
      (this.request.idempotent || retry.nonIdempotent) &&
      this.retries < retry.retriesMax &&
      cluster.hasOther(this.endpoint!);
    if (!may || !cluster.budget.withdraw()) return false;
    this.#upstream?.abandon();
    this.#upstream = undefined;
    this.#again();
    return true;
  }

  #keep(bytes: Buffer, from: number, to: number): void {
    if (to === from) return;
    const piece = Buffer.from(bytes.subarray(from, to));
    this.#kept = this.#kept.length === 0 ? piece : Buffer.concat([this.#kept, piece]);
  }

  /** Bytes were sent: keeps them if they may be sent again, or gives up sending this request twice. */
  #keepForReplay(bytes: Buffer, from: number, to: number): void {
    if (this.bytesIn === 0) return;
    const { policy, speaksHttp2 } = this.#cluster!;
    // HTTP/2 can say that a request was not looked at, body or not (RFC 9113 8.7).
    const resendable = this.request.idempotent || policy.retry.nonIdempotent || speaksHttp2;
    if (!resendable || this.#kept.length + to - from > this.context.limits.replayBytesMax) {
      this.#replayable = false;
      this.#kept = NO_BYTES;
    } else if (this.#replayable) this.#keep(bytes, from, to);
  }

  #forgetFresh(): void {
    this.#fresh = NO_BYTES;
    this.#freshFrom = 0;
    this.#freshTo = 0;
  }

  /** A byte went through: the stall deadline starts anew, or the wait for the response begins. */
  #expectProgress(): void {
    const nowMs = this.context.wheel.coarseNowMs();
    const { responseTimeoutMs } = this.endpoint!.cluster.policy;
    this.#phaseDueMs =
      this.#phase === PHASE.sending && this.requestComplete
        ? responseTimeoutMs === 0
          ? Infinity
          : nowMs + responseTimeoutMs
        : nowMs + this.context.limits.bodyStallTimeoutMs;
    this.context.wheel.watch(this, Math.min(this.#phaseDueMs, this.#requestDueMs));
  }

  #expire(total: boolean): void {
    const upstream = this.#upstream;
    this.#upstream = undefined;
    upstream?.abandon();
    if (this.#phase === PHASE.waiting && !total) return this.#failWaiting();
    if (total) {
      const { requestTimeoutMs } = this.#cluster!.policy;
      return this.#fail("request_timeout", `not answered completely within ${requestTimeoutMs} ms`);
    }
    const stallMs = this.context.limits.bodyStallTimeoutMs;
    if (this.#phase === PHASE.responding) {
      return this.#fail("response_timeout", `no byte of the body moved for ${stallMs} ms`);
    }
    if (!this.requestComplete) {
      return this.#fail("body_timeout", `no byte of the request's body came for ${stallMs} ms`);
    }
    const { responseTimeoutMs } = this.#cluster!.policy;
    const what = `no response within ${responseTimeoutMs} ms`;
    this.#cluster!.noteFailure(this.endpoint!, what, this.context.clock.nowMs());
    this.#fail("response_timeout", what);
  }

  #failWaiting(): void {
    const waitedMs = this.context.limits.pendingTimeoutMs;
    const name = this.binding!.cluster;
    const what: Partial<Record<FailureCode, string>> = {
      no_cluster: `"${name}" is not in the configuration of this proxy (epoch ${this.context.mesh.epoch})`,
      no_endpoint: `"${name}" has no ready instance`,
      overloaded: `every connection to "${name}" is in use`,
    };
    this.#fail(this.#waitCode, `${what[this.#waitCode] ?? this.#waitCode}, waited ${waitedMs} ms`);
  }

  /** Answers with the failure if nothing was answered yet, else cuts the response off. */
  #fail(code: FailureCode, what: string): void {
    this.reason = code;
    if (this.#responseStarted) this.#downstream.cut();
    else {
      this.status = STATUS_BY_CODE[code];
      this.#downstream.refuse(code, refusalText(code, what, this.#where()));
    }
    this.context.log.debug({ code, requestId: this.requestId, where: this.#where() }, what);
    this.#finish();
  }

  #where(): string {
    const { name } = this.context;
    const { kind, from, id } = this.origin;
    const at = this.endpoint === undefined ? "" : `, instance ${this.endpoint.id}`;
    const to = this.binding === undefined ? "" : ` to ${this.binding.cluster}`;
    return `${name}, ${kind} listener ${id}, from ${from}${to}${at}; request ${this.requestId}`;
  }

  #finish(): void {
    if (this.#phase === PHASE.waiting && this.binding !== undefined) {
      this.context.mesh.stopWaiting(this.binding.cluster, this);
    }
    this.#phase = PHASE.idle;
    this.#cluster = undefined;
    this.#upstream = undefined;
    this.#kept = NO_BYTES;
    this.lease[Symbol.dispose]();
    recordExchange(this);
    this.#downstream.onExchangeOver();
  }
}

function stickyCookie({ sticky }: ClusterState, release: number): string {
  return sticky?.by === "cookie"
    ? `set-cookie: ${sticky.name}=${release}; Path=/; HttpOnly; SameSite=Lax\r\n`
    : "";
}
