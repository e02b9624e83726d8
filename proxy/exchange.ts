import { type Answer, answerHead } from "./actions/answer.ts";
import type { CompiledActions } from "./actions/compile.ts";
import { editResponse } from "./actions/header-edits.ts";
import { actOnRequest } from "./actions/request.ts";
import { Attempt } from "./attempt.ts";
import type { Binding } from "./binding.ts";
import { Choice } from "./choice.ts";
import type { EndpointState } from "./cluster.ts";
import type { EngineContext } from "./context.ts";
import type { Timed } from "./deadlines.ts";
import { type FailureCode, STATUS_BY_CODE, refusalText } from "./failure.ts";
import { recordExchange } from "./finish.ts";
import { BODY, RequestHead } from "./http1/request-head.ts";
import type { ResponseHead } from "./http1/response-head.ts";
import type { Waiter } from "./mesh.ts";
import { ReplayBody } from "./replay.ts";
import { judgeRetry } from "./retry.ts";
import { isAmbiguousPath, matchRoute } from "./routing.ts";
import type { Downstream, ExchangeOrigin, SwitchedUpstream } from "./sides.ts";
import type { Tunnel } from "./tunnel.ts";

export type { Downstream, ExchangeOrigin } from "./sides.ts";

const NO_BYTES = Buffer.alloc(0);
const PHASE = { idle: 0, waiting: 1, connecting: 2, sending: 3, responding: 4, tunnel: 5 } as const;
type Phase = (typeof PHASE)[keyof typeof PHASE];

/**
 * One request from its first byte to its log line. Every way it can end leads through `#finish`, once.
 * idle → waiting ⇄ connecting → sending → (again, see retry.ts) → responding → idle.
 */
export class Exchange implements Timed, Waiter {
  readonly request = new RequestHead();
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
  /** What the client wrote, when the request is sent on with another target; else empty. */
  clientTarget = "";
  upgraded = false;
  /** The whole request has come in. */
  requestComplete = false;
  readonly #downstream: Downstream;
  #phase: Phase = PHASE.idle;
  readonly #choice = new Choice();
  readonly #attempt = new Attempt(this);
  #tunnel: Tunnel | undefined;
  #responseStarted = false;
  #requestDueMs = Infinity;
  #phaseDueMs = Infinity;
  #staleRetried = false;
  /** Of its route or declared edge; undefined for nearly all. */
  #actions: CompiledActions | undefined;
  /** The time while the read is handled that the request came in with; else 0. */
  #readMs = 0;
  readonly #body = new ReplayBody();

  constructor(context: EngineContext, origin: ExchangeOrigin, downstream: Downstream) {
    this.context = context;
    this.origin = origin;
    this.#downstream = downstream;
  }

  /** The last endpoint tried. */
  get endpoint(): EndpointState | undefined {
    return this.#attempt.endpoint;
  }

  get active(): boolean {
    return this.#phase !== PHASE.idle;
  }

  /**
   * `request` is filled; `bytes[from, to)` is what came of its body with it; `last`: that is all. `startedMs` is when
   * its first byte came.
   */
  begin(bytes: Buffer, from: number, to: number, last: boolean, startedMs: number, nowMs = startedMs): void {
    this.startedMs = startedMs;
    this.status = 0;
    this.bytesIn = to - from;
    this.bytesOut = 0;
    this.retries = 0;
    this.reason = "";
    this.#attempt.endpoint = undefined;
    this.upgraded = false;
    this.clientTarget = "";
    this.requestComplete = last;
    this.requestId = this.request.requestId === "" ? this.context.newRequestId() : this.request.requestId;
    this.#responseStarted = false;
    this.#choice.reset();
    this.#staleRetried = false;
    this.#requestDueMs = Infinity;
    this.#phase = PHASE.waiting;
    this.context.stats.inFlight += 1;
    this.#body.begin(bytes, from, to);
    this.#readMs = nowMs;
    this.binding = this.origin.binding;
    if (this.binding === undefined) this.binding = this.#route();
    else this.#actions = this.context.mesh.actionsOf(this.binding);
    if (this.binding !== undefined && (this.#actions === undefined || this.#act(this.#actions)))
      this.#dispatch();
    this.#readMs = 0;
    this.#body.keep();
    if (!this.#attempt.open && this.active && !last) this.#downstream.pauseBody();
  }

  /** More of the request's body. */
  onRequestData(bytes: Buffer, from: number, to: number, last: boolean): void {
    if (!this.active) return;
    this.requestComplete = last;
    this.bytesIn += to - from;
    if (this.#phase < PHASE.sending) {
      this.#body.add(bytes, from, to);
      if (!last) this.#downstream.pauseBody();
      return;
    }
    if (!this.#attempt.open) return; // Answered already; the rest is swallowed.
    this.#body.noteMoreSent(bytes, from, to, this.#resendable(), this.context.limits.replayBytesMax);
    if (!this.#attempt.sendData(bytes, from, to, last) && !last) this.#downstream.pauseBody();
    this.#expectProgress();
  }

  /** The client is gone, or broke its own request; nobody can be answered any more. */
  onDownstreamGone(reason: FailureCode = "client_gone"): void {
    if (!this.active) return;
    this.#attempt.abandon();
    this.#tunnel?.cut();
    if (!this.active) return; // The tunnel ended it.
    if (!this.#responseStarted) this.status = STATUS_BY_CODE[reason];
    this.reason = reason;
    this.#finish();
  }

  /** The body turned out to break the rules; `text` is for the client, if it has no answer yet. */
  onBadBody(code: FailureCode, problem: string): void {
    if (!this.active) return;
    this.#attempt.abandon();
    this.#fail(code, problem);
  }

  onDownstreamDrained(): void {
    this.#attempt.resume();
    if (this.#phase === PHASE.responding) this.#expectProgress();
  }

  /** The attempt has its connection. */
  onAttemptReady(): void {
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
    const cluster = this.#choice.cluster!;
    const endpoint = this.endpoint!;
    const nowMs = this.context.clock.nowMs();
    if (head.status >= 500) {
      cluster.noteFailure(endpoint, `status ${head.status}`, nowMs);
      if (head.status === 503 && this.#retryElsewhere(last)) return;
    } else cluster.noteSuccess(endpoint, nowMs);
    this.#responseStarted = true;
    this.#phase = PHASE.responding;
    this.status = head.status;
    this.bytesOut = to - from;
    if (last) this.#attempt.letGo();
    const edits = this.#actions?.responseHeaders;
    const told = edits === undefined ? head : editResponse(head, edits);
    const flowing = this.#downstream.respond(told, this.#choice.setCookie, bytes, from, to, last);
    if (last) return this.#finish();
    if (!flowing) this.#attempt.pause();
    this.#phaseDueMs = nowMs + this.context.limits.bodyStallTimeoutMs;
    this.context.wheel.watch(this, Math.min(this.#phaseDueMs, this.#requestDueMs));
  }

  onResponseData(bytes: Buffer, from: number, to: number, last: boolean): void {
    this.bytesOut += to - from;
    if (last) this.#attempt.letGo();
    const flowing = this.#downstream.sendData(bytes, from, to, last);
    if (last) return this.#finish();
    if (!flowing) this.#attempt.pause();
    this.#expectProgress();
  }

  /** What follows the body, names and values in turn: the response is over. */
  onResponseTrailers(fields: readonly string[]): void {
    this.#attempt.letGo();
    this.#downstream.sendTrailers(fields);
    this.#finish();
  }

  /** The upstream changed the protocol as asked; `early` is what it already sent in the new one. */
  onUpgraded(head: ResponseHead, upstream: SwitchedUpstream, early: Buffer): void {
    this.#responseStarted = true;
    this.upgraded = true;
    this.status = 101;
    this.#phase = PHASE.tunnel;
    this.#requestDueMs = Infinity;
    this.#phaseDueMs = Infinity;
    this.#choice.cluster?.noteSuccess(this.endpoint!, this.context.clock.nowMs());
    const { idleTimeoutMs } = this.endpoint!.cluster.policy;
    const tunnel = this.#downstream.openTunnel(
      head,
      this.#choice.setCookie,
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
  onAttemptFailed(code: FailureCode, what: string, sent: boolean, stale: boolean): void {
    // No fault of the instance, and the same elsewhere.
    if (code === "upgrade_unsupported") return this.#fail(code, what);
    const cluster = this.#choice.cluster!;
    const unreachable = code === "connect_failed" || code === "connect_timeout";
    if (!stale) cluster.noteFailure(this.endpoint!, what, this.context.clock.nowMs(), unreachable);
    if (!this.#responseStarted && code !== "bad_response") {
      const attempt = {
        sent,
        idempotent: this.request.idempotent,
        replayable: this.#body.replayable,
        staleConnection: stale && !this.#staleRetried,
        retries: this.retries,
      };
      const verdict = judgeRetry(attempt, cluster.policy.retry);
      if (verdict === "reconnect") {
        this.#staleRetried = true;
        return this.#try(this.endpoint!, true);
      }
      if (verdict === "retry" && cluster.budget.withdraw()) return this.#again();
    }
    this.#fail(code, what);
  }

  retryNow(): boolean {
    this.#phase = PHASE.connecting;
    const found = this.#dispatchNow();
    if (!found && this.active) this.#phase = PHASE.waiting;
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
    this.#actions = undefined;
    const { target, host } = this.request;
    if (isAmbiguousPath(target)) {
      this.#fail("bad_target", "the path has dot segments or backslashes");
      return undefined;
    }
    const { secured } = this.#downstream;
    if (secured !== undefined && !secured.covers(host)) {
      this.#fail("misdirected", `the certificate of this connection is not for ${host}`);
      return undefined;
    }
    const location = this.origin.redirect?.locationOf(host, target);
    if (location !== undefined) {
      // 308 keeps method and body (RFC 9110 15.4.9).
      this.#answer({ status: 308, fields: location, body: NO_BYTES, reason: "" });
      return undefined;
    }
    const route = matchRoute(this.context.mesh.routes, this.request);
    if (route === undefined && this.context.mesh.epoch === 0) {
      this.#fail("no_configuration", "this proxy has no configuration yet");
      return undefined;
    }
    if (route === undefined) {
      this.#fail("no_route", `no route for ${host}${target.split("?")[0]}`);
      return undefined;
    }
    this.#actions = route.actions;
    return this.origin.bindingTo(route.cluster);
  }

  /** What its route does before anybody is asked. False: it has been answered. */
  #act(actions: CompiledActions): boolean {
    const { request } = this;
    const { target } = request;
    const verdict = actOnRequest(actions, request, this.context.limits.targetBytesMax);
    if (request.target !== target) this.clientTarget = target;
    switch (verdict.kind) {
      case "go":
        return true;
      case "bad":
        this.#fail("bad_target", verdict.what);
        return false;
      case "answer":
        this.#answer(verdict.answer);
        return false;
    }
  }

  /** Answers without asking anybody. */
  #answer(answer: Answer): void {
    const { body, status } = answer;
    const edits = this.#actions?.responseHeaders;
    const own = answerHead(answer);
    const head = edits === undefined ? own : editResponse(own, edits);
    const length = this.request.method === "HEAD" || head.body === BODY.none ? 0 : body.length;
    this.status = status;
    this.reason = answer.reason;
    this.bytesOut = length;
    this.#responseStarted = true;
    this.#downstream.respond(head, "", body, 0, length, true);
    this.#finish();
  }

  /** Finds an endpoint, or waits for one within bounds. */
  #dispatch(): void {
    if (this.#dispatchNow()) return;
    const { mesh, limits, wheel, clock } = this.context;
    const name = this.binding!.cluster;
    const max = this.#choice.cluster?.policy.pendingMax ?? 1024;
    if (!mesh.wait(name, this, max)) return this.#fail("overloaded", `${max} requests wait already`);
    this.#phase = PHASE.waiting;
    this.#phaseDueMs = clock.nowMs() + limits.pendingTimeoutMs;
    wheel.watch(this, this.#phaseDueMs);
  }

  #dispatchNow(): boolean {
    const binding = this.binding!;
    const choice = this.#choice;
    if (choice.enter(this.context.mesh, binding.cluster)) this.#entered();
    const endpoint = choice.next(binding, this.request, this.endpoint, this.context.random);
    if (endpoint === undefined) return false;
    this.#try(endpoint, false);
    return true;
  }

  #entered(): void {
    const { cluster } = this.#choice;
    if (cluster === undefined) return;
    cluster.budget.deposit();
    const { requestTimeoutMs } = cluster.policy;
    this.#requestDueMs = requestTimeoutMs === 0 ? Infinity : this.startedMs + requestTimeoutMs;
  }

  #try(endpoint: EndpointState, freshOnly: boolean): void {
    if (this.#attempt.begin(endpoint, freshOnly)) return this.#send();
    this.#phase = PHASE.connecting;
    this.#phaseDueMs = Infinity; // The connection has its own deadline.
    this.context.wheel.watch(this, this.#requestDueMs);
  }

  #send(): void {
    const { limits, clock, wheel } = this.context;
    let hopFields = this.#downstream.hopFields;
    if (this.origin.kind === "edge") hopFields += `x-forwarded-host: ${this.request.host}\r\n`;
    this.#phase = PHASE.sending;
    const { bytes, from, to } = this.#body;
    const flowing = this.#attempt.send(hopFields, this.requestId, bytes, from, to);
    this.#body.noteSent(this.#resendable(), limits.replayBytesMax);
    const nowMs = this.#readMs === 0 ? clock.nowMs() : this.#readMs;
    const { responseTimeoutMs } = this.endpoint!.cluster.policy;
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
    this.#attempt.release();
    this.#phase = PHASE.waiting;
    this.#dispatch();
  }

  /** An upstream says 503: another endpoint may do better, for a request that may be sent twice. */
  #retryElsewhere(last: boolean): boolean {
    const cluster = this.#choice.cluster!;
    const { retry } = cluster.policy;
    const may =
      this.requestComplete &&
      this.#body.replayable &&
      (this.request.idempotent || retry.nonIdempotent) &&
      this.retries < retry.retriesMax &&
      cluster.hasOther(this.endpoint!);
    if (!may || !cluster.budget.withdraw()) return false;
    if (last) this.#attempt.letGo(); // It is free already, and perhaps in other hands.
    else this.#attempt.abandon();
    this.#again();
    return true;
  }

  /** May its body have to be sent again? HTTP/2 can say that a request was not looked at (RFC 9113 8.7). */
  #resendable(): boolean {
    const { policy, speaksHttp2 } = this.#choice.cluster!;
    return this.request.idempotent || policy.retry.nonIdempotent || speaksHttp2;
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
    this.#attempt.abandon();
    if (this.#phase === PHASE.waiting && !total) return this.#failWaiting();
    if (total) {
      const { requestTimeoutMs } = this.#choice.cluster!.policy;
      return this.#fail("request_timeout", `not answered completely within ${requestTimeoutMs} ms`);
    }
    const stallMs = this.context.limits.bodyStallTimeoutMs;
    if (this.#phase === PHASE.responding) {
      return this.#fail("response_timeout", `no byte of the body moved for ${stallMs} ms`);
    }
    if (!this.requestComplete) {
      return this.#fail("body_timeout", `no byte of the request's body came for ${stallMs} ms`);
    }
    const { responseTimeoutMs } = this.#choice.cluster!.policy;
    const what = `no response within ${responseTimeoutMs} ms`;
    this.#choice.cluster!.noteFailure(this.endpoint!, what, this.context.clock.nowMs());
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
    this.#fail(
      this.#choice.missing,
      `${what[this.#choice.missing] ?? this.#choice.missing}, waited ${waitedMs} ms`,
    );
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
    this.#choice.cluster = undefined;
    this.#attempt.letGo();
    this.#body.clear();
    this.#attempt.release();
    recordExchange(this);
    this.#downstream.onExchangeOver();
  }
}
