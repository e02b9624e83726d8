import { type Answer, answerHead } from "./actions/answer.ts";
import type { CompiledActions } from "./actions/compile.ts";
import { isCompressible, negotiate, negotiatedHead } from "./actions/compression.ts";
import { CompressedBody, type CompressedBodyUser } from "./actions/compressed-body.ts";
import { editResponse } from "./actions/header-edits.ts";
import { actOnRequest } from "./actions/request.ts";
import type { Attempt } from "./attempt.ts";
import type { Binding } from "./binding.ts";
import { Choice } from "./choice.ts";
import type { EndpointState } from "./cluster.ts";
import type { HedgePolicy } from "../model/mesh.ts";
import type { EngineContext } from "./context.ts";
import { guardedTimer } from "./deadlines.ts";
import { PRIORITY, type Priority, deadlineLines, priorityLine } from "./call-fields.ts";
import { lapseText, waitedText, whereOf } from "./exchange-text.ts";
import { type FailureCode, STATUS_BY_CODE, refusalText } from "./failure.ts";
import type { FilterChain } from "./filters/chain.ts";
import type { Filterable, FilteredExchange } from "./filters/filtered.ts";
import { bodyReplaced } from "./filters/heads.ts";
import type { Answer as FilterAnswer } from "./filters/job.ts";
import { recordExchange } from "./finish.ts";
import { fieldValue } from "./headers.ts";
import { BODY, RequestHead } from "./http1/request-head.ts";
import { ResponseHead } from "./http1/response-head.ts";
import { isGrpc } from "./grpc-status.ts";
import type { Waiter } from "./mesh.ts";
import { type Lapse, Patience } from "./patience.ts";
import { Race } from "./race.ts";
import { ReplayBody } from "./replay.ts";
import { judgeRetry, retryDelayMs } from "./retry.ts";
import { isAmbiguousPath, matchRoute } from "./routing.ts";
import type { Downstream, ExchangeOrigin, SwitchedUpstream } from "./sides.ts";
import type { Tunnel } from "./tunnel.ts";

export type { Downstream, ExchangeOrigin } from "./sides.ts";

const NO_BYTES = Buffer.alloc(0);
const CONTINUE = new ResponseHead();
CONTINUE.status = 100;
CONTINUE.reason = "Continue";
/** Of connect(2): no local port is free, or no descriptor. */
const OUT_OF_SOCKETS = /\b(?:EADDRNOTAVAIL|EMFILE|ENFILE|ENOBUFS)\b/;

const PHASE = {
  idle: 0,
  delayed: 1, // A fault of its route makes it wait before anybody is asked.
  waiting: 2, // For an endpoint, or until the next try.
  connecting: 3,
  sending: 4,
  responding: 5,
  tunnel: 6,
} as const;
type Phase = (typeof PHASE)[keyof typeof PHASE];

/**
 * One request from its first byte to its log line. Every way it can end leads through `#finish`, once.
 * idle → (delayed →) waiting ⇄ connecting → sending → (again, see retry.ts) → responding → idle.
 */
export class Exchange implements Waiter, CompressedBodyUser, Filterable {
  readonly request = new RequestHead();
  readonly context: EngineContext;
  readonly origin: ExchangeOrigin;
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
  /** What its caller says, inside the mesh, or else the policy. */
  priority: Priority = PRIORITY.normal;
  /** The whole request has come in. */
  requestComplete = false;
  /** What filters say about it in the access log. */
  notes: Record<string, string> | undefined;
  readonly #downstream: Downstream;
  #phase: Phase = PHASE.idle;
  readonly #choice = new Choice();
  readonly #race = new Race(this);
  #tunnel: Tunnel | undefined;
  #responseStarted = false;
  readonly #patience: Patience;
  /** Until the next try, or until a second one beside the first. */
  #timer: Disposable | undefined;
  #staleRetried = false;
  /** Of its route or declared edge; undefined for nearly all. */
  #actions: CompiledActions | undefined;
  /** Lines for the response that its route adds. */
  #routeFields = "";
  /** What is said when a delay is over; undefined: it goes on. */
  #afterDelay: Answer | undefined;
  /** Between the response and the client, where the route compresses. */
  #compressed: CompressedBody | undefined;
  #hedged = false;
  /** The time while the read is handled that the request came in with; else 0. */
  #readMs = 0;
  readonly #body = new ReplayBody();
  #filtered: FilteredExchange | undefined;

  constructor(context: EngineContext, origin: ExchangeOrigin, downstream: Downstream) {
    this.context = context;
    this.origin = origin;
    this.#downstream = downstream;
    this.#patience = new Patience(context.wheel, context.limits, (lapse) => this.#expire(lapse));
  }

  /** The last endpoint tried. */
  get endpoint(): EndpointState | undefined {
    return this.#race.leader.endpoint;
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
    this.#race.leader.endpoint = undefined;
    this.upgraded = false;
    this.clientTarget = "";
    this.#routeFields = "";
    this.requestComplete = last;
    this.requestId = this.request.requestId === "" ? this.context.newRequestId() : this.request.requestId;
    this.#responseStarted = false;
    this.notes = undefined;
    this.#choice.reset();
    this.#staleRetried = false;
    this.#hedged = false;
    const { deadlineMs } = this.request;
    this.#patience.begin(startedMs, this.origin.kind === "local" ? deadlineMs : Infinity);
    this.#phase = PHASE.waiting;
    this.context.stats.inFlight += 1;
    this.#body.begin(bytes, from, to);
    this.#readMs = nowMs;
    this.binding = this.origin.binding;
    if (this.binding === undefined) this.binding = this.#route();
    else this.#actions = this.context.mesh.actionsOf(this.binding);
    if (this.binding !== undefined) {
      if (this.#actions === undefined) this.#dispatch();
      else this.#beginActions(this.#actions);
    }
    this.#readMs = 0;
    this.#body.keep();
    if (!this.#race.leader.open && this.active && !last && this.#filtered?.collecting !== true)
      this.#downstream.pauseBody();
  }

  /** More of the request's body. */
  onRequestData(bytes: Buffer, from: number, to: number, last: boolean): void {
    if (!this.active) return;
    this.requestComplete = last;
    this.bytesIn += to - from;
    if (this.#phase < PHASE.sending) {
      this.#body.add(bytes, from, to);
      if (this.#filtered?.collecting === true) this.#collected();
      else if (!last) this.#downstream.pauseBody();
      return;
    }
    if (!this.#race.leader.open) return; // Answered already; the rest is swallowed.
    this.#body.noteMoreSent(bytes, from, to, this.#resendable(), this.context.limits.replayBytesMax);
    if (!this.#race.leader.sendData(bytes, from, to, last) && !last) this.#downstream.pauseBody();
    this.#expectProgress();
  }

  /** The client is gone, or broke its own request; nobody can be answered any more. */
  onDownstreamGone(reason: FailureCode = "client_gone"): void {
    if (!this.active) return;
    this.#race.abandon();
    this.#tunnel?.cut();
    if (!this.active) return; // The tunnel ended it.
    if (!this.#responseStarted) this.status = STATUS_BY_CODE[reason];
    this.reason = reason;
    this.#finish();
  }

  /** The body turned out to break the rules; `text` is for the client, if it has no answer yet. */
  onBadBody(code: FailureCode, problem: string): void {
    if (!this.active) return;
    this.#race.abandon();
    this.#fail(code, problem);
  }

  /** The client has ended its direction; what it asked for was complete. */
  onDownstreamEnded(): void {
    this.#patience.clientEnded = true;
    if (this.#phase === PHASE.responding) this.#expectProgress();
  }

  onDownstreamDrained(): void {
    this.#patience.clientStalled = false;
    if (this.#compressed !== undefined) this.#compressed.resume();
    else if (this.#filtered?.holding !== true) this.#race.leader.resume();
    if (this.#phase === PHASE.responding) this.#expectProgress();
  }

  /** `attempt` has its connection. */
  onAttemptReady(attempt: Attempt): void {
    this.#send(attempt);
  }

  onUpstreamDrained(): void {
    this.#downstream.resumeBody();
  }

  onInterim(attempt: Attempt, head: ResponseHead): void {
    const wanted = this.request.minor === 1 && (head.status !== 100 || this.request.expectContinue);
    if (wanted && attempt === this.#race.leader) this.#downstream.sendInterim(head);
  }

  onResponse(
    attempt: Attempt,
    head: ResponseHead,
    bytes: Buffer,
    from: number,
    to: number,
    last: boolean,
  ): void {
    const cluster = this.#choice.cluster!;
    const nowMs = this.context.clock.nowMs();
    if (head.status >= 500) {
      cluster.noteFailure(attempt.endpoint!, `status ${head.status}`, nowMs);
      if (head.status === 503 && this.#betterElsewhere(attempt, last)) return;
    } else cluster.noteSuccess(attempt.endpoint!, nowMs);
    this.#settle(attempt);
    this.#phase = PHASE.responding;
    this.#patience.answered();
    if (last) attempt.letGo();
    if (this.#filtered?.seesResponses === true) this.#hold(this.#filtered, head, bytes, from, to, last);
    else this.#startResponse(head, bytes, from, to, last);
  }

  /** What filters leave of a response, with the route's edits, and compressed where that is wanted. */
  #startResponse(head: ResponseHead, bytes: Buffer, from: number, to: number, last: boolean): void {
    this.#responseStarted = true;
    this.status = head.status;
    this.bytesOut = to - from;
    const edits = this.#actions?.responseHeaders;
    const told = edits === undefined ? head : editResponse(head, edits);
    const extra = this.#choice.setCookie + this.#routeFields;
    if (this.#actions?.compress !== undefined)
      return this.#respondCompressed(told, extra, bytes, from, to, last);
    this.#respond(told, extra, bytes, from, to, last);
  }

  #respond(head: ResponseHead, extra: string, bytes: Buffer, from: number, to: number, last: boolean): void {
    const flowing = this.#downstream.respond(head, extra, bytes, from, to, last);
    if (last) return this.#finish();
    if (!flowing) this.#stall();
    this.#expectProgress();
  }

  /** On a route that compresses: as the client likes it, and as long as not too many are being compressed. */
  #respondCompressed(
    head: ResponseHead,
    extra: string,
    bytes: Buffer,
    from: number,
    to: number,
    last: boolean,
  ): void {
    const { stats, limits } = this.context;
    const { bytesMin, codings } = this.#actions!.compress!;
    if (!isCompressible(head, bytesMin)) return this.#respond(head, extra, bytes, from, to, last);
    const room = stats.compressing < limits.compressionsMax;
    const coding = room ? negotiate(fieldValue(this.request.fields, "accept-encoding"), codings) : undefined;
    const flushing = head.body !== BODY.length;
    const told = negotiatedHead(head, coding);
    if (coding === undefined) return this.#respond(told, extra, bytes, from, to, last);
    this.bytesOut = 0;
    this.#compressed = new CompressedBody(coding, flushing, this.#downstream, stats, this);
    this.#downstream.respond(told, extra, NO_BYTES, 0, 0, false);
    this.#compress(bytes, from, to, last);
  }

  #compress(bytes: Buffer, from: number, to: number, last: boolean): void {
    if (!this.#compressed!.write(bytes, from, to, last)) this.#race.leader.pause();
    this.#expectProgress();
  }

  onCompressedSent(bytes: number, flowing: boolean): void {
    this.bytesOut += bytes;
    if (!flowing) this.#patience.clientStalled = true;
    this.#expectProgress();
  }

  onCompressedOver(): void {
    this.#finish();
  }

  onCompressorDrained(): void {
    this.#race.leader.resume();
    this.#expectProgress();
  }

  onCompressorFailed(error: Error): void {
    this.#race.abandon();
    this.#fail("internal", `cannot compress: ${error.message}`);
  }

  onResponseData(bytes: Buffer, from: number, to: number, last: boolean): void {
    if (last) this.#race.leader.letGo();
    if (this.#filtered?.holding === true) {
      if (!this.#filtered.holdData(bytes, from, to, last)) return this.#filtered.refuseTooLarge("response");
      return this.#awaitHeld(last);
    }
    if (this.#compressed !== undefined) return this.#compress(bytes, from, to, last);
    this.bytesOut += to - from;
    const flowing = this.#downstream.sendData(bytes, from, to, last);
    if (last) return this.#finish();
    if (!flowing) this.#stall();
    this.#expectProgress();
  }

  /** What follows the body, names and values in turn: the response is over. */
  onResponseTrailers(fields: readonly string[]): void {
    this.#race.leader.letGo();
    if (this.#filtered?.holding === true) {
      this.#filtered.holdTrailers(fields);
      return this.#awaitHeld(true);
    }
    if (this.#compressed !== undefined) return this.#compressed.endWith(fields);
    this.#downstream.sendTrailers(fields);
    this.#finish();
  }

  /** The upstream changed the protocol as asked; `early` is what it already sent in the new one. */
  onUpgraded(attempt: Attempt, head: ResponseHead, upstream: SwitchedUpstream, early: Buffer): void {
    this.#settle(attempt);
    this.#responseStarted = true;
    this.upgraded = true;
    this.status = 101;
    this.#phase = PHASE.tunnel;
    this.#patience.end();
    this.#choice.cluster?.noteSuccess(this.endpoint!, this.context.clock.nowMs());
    const { idleTimeoutMs } = this.endpoint!.cluster.policy;
    const tunnel = this.#downstream.openTunnel(
      head,
      this.#choice.setCookie + this.#routeFields,
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
   * `attempt` failed before its response was complete. `sent`: the application may have seen the request;
   * `stale`: the connection had been idle and ended without a byte.
   */
  onAttemptFailed(attempt: Attempt, code: FailureCode, what: string, sent: boolean, stale: boolean): void {
    // No fault of the instance, and the same elsewhere.
    if (code === "upgrade_unsupported") return this.#fail(code, what);
    // Nor is what this machine has run out of: no other instance could be reached either.
    if (code === "connect_failed" && OUT_OF_SOCKETS.test(what)) return this.#fail("sockets_exhausted", what);
    const cluster = this.#choice.cluster!;
    const unreachable = code === "connect_failed" || code === "connect_timeout";
    if (!stale) cluster.noteFailure(attempt.endpoint!, what, this.context.clock.nowMs(), unreachable);
    if (this.#race.lose(attempt)) return; // The other one goes on.
    if (this.#filtered?.holding === true) this.#filtered.dropResponse();
    if (!this.#responseStarted && code !== "bad_response" && this.#again(sent, stale, false)) return;
    this.#fail(code, what);
  }

  retryNow(): boolean {
    this.#phase = PHASE.connecting;
    const found = this.#dispatchNow();
    if (!found && this.active) this.#phase = PHASE.waiting;
    return found;
  }

  /** The connection or stream it belongs to is gone for good. */
  forgetDeadlines(): void {
    this.#patience.forget();
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

  #beginActions(actions: CompiledActions): void {
    if (actions.filters !== undefined) this.#filter(actions.filters);
    else if (this.#act(actions)) this.#dispatch();
  }

  /** What its route does before anybody is asked. False: it has been answered, or is delayed. */
  #act(actions: CompiledActions): boolean {
    const { request } = this;
    const { target } = request;
    const verdict = actOnRequest(actions, {
      request,
      from: this.origin.from,
      peerAddress: this.#downstream.peerAddress,
      nowMs: this.#readMs,
      random: this.context.random,
      targetBytesMax: this.context.limits.targetBytesMax,
    });
    if (request.target !== target) this.clientTarget = target;
    switch (verdict.kind) {
      case "go":
        this.#routeFields = verdict.fields;
        return true;
      case "delay":
        this.#routeFields = verdict.fields;
        this.#afterDelay = verdict.answer;
        this.#phase = PHASE.delayed;
        this.#patience.await(this.#readMs + verdict.delayMs);
        return false;
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

  #endDelay(): void {
    const answer = this.#afterDelay;
    this.#phase = PHASE.waiting;
    if (answer === undefined) this.#dispatch();
    else this.#answer(answer);
  }

  /** How long it may wait for an endpoint. */
  get pendingMs(): number {
    return this.#actions?.holdMs ?? this.context.limits.pendingTimeoutMs;
  }

  get peerAddress(): string {
    return this.#downstream.peerAddress;
  }

  /** The cluster it goes to. */
  get to(): string {
    return this.binding?.cluster ?? "";
  }

  wholeBody(): Buffer {
    const { bytes, from, to } = this.#body;
    return bytes.subarray(from, to);
  }

  replaceBody(bytes: Buffer): void {
    this.#body.clear();
    this.#body.add(bytes, 0, bytes.length);
    bodyReplaced(this.request, bytes.length);
  }

  routeTo(cluster: string): void {
    this.binding = this.origin.bindingTo(cluster);
  }

  annotate(key: string, value: string): void {
    this.notes ??= {};
    this.notes[key] = value;
  }

  onRequestFiltered(): void {
    if (this.#act(this.#actions!)) this.#dispatch();
  }

  onResponseFiltered(
    head: ResponseHead,
    held: Buffer,
    last: boolean,
    trailers: readonly string[] | undefined,
  ): void {
    this.#startResponse(head, held, 0, held.length, last && trailers === undefined);
    if (trailers !== undefined) {
      if (this.#compressed !== undefined) return this.#compressed.endWith(trailers);
      this.#downstream.sendTrailers(trailers);
      this.#finish();
    } else if (!last && !this.#patience.clientStalled) this.#race.leader.resume();
  }

  /** A filter answers in place of the service. */
  answer({ status, lines, body }: FilterAnswer): void {
    this.#race.abandon();
    const bytes = Buffer.from(body.buffer, body.byteOffset, body.length);
    this.#answer({ status, fields: lines, body: bytes, reason: "" });
  }

  refuseFiltered(code: FailureCode, what: string): void {
    this.#race.abandon();
    this.#fail(code, what);
  }

  #filter(chain: FilterChain): void {
    const filtered = chain.begin(this);
    this.#filtered = filtered;
    this.#patience.await(Infinity); // Filters have their own timeouts.
    const { requestBytesMax } = filtered;
    if (requestBytesMax > 0 && this.#body.to - this.#body.from > requestBytesMax)
      return filtered.refuseTooLarge("request");
    filtered.start();
    if (!filtered.collecting) return;
    if (this.request.expectContinue) this.#downstream.sendInterim(CONTINUE);
    this.#collected();
  }

  /** More of a body that a filter wants whole. */
  #collected(): void {
    const filtered = this.#filtered!;
    const { clock, limits } = this.context;
    if (this.#body.to - this.#body.from > filtered.requestBytesMax) return filtered.refuseTooLarge("request");
    this.#patience.await(this.requestComplete ? Infinity : clock.nowMs() + limits.bodyStallTimeoutMs);
    if (this.requestComplete) filtered.onRequestWhole();
  }

  /** Filters see the response before the client does. */
  #hold(
    filtered: FilteredExchange,
    head: ResponseHead,
    bytes: Buffer,
    from: number,
    to: number,
    last: boolean,
  ): void {
    if (!filtered.holdResponse(head, bytes, from, to, last)) return filtered.refuseTooLarge("response");
    const headOnly = filtered.responseBytesMax === 0;
    if (headOnly && !last) this.#race.leader.pause();
    this.#awaitHeld(headOnly || last);
  }

  /** `all`: what filters want of the response is there, and they have their own timeouts. */
  #awaitHeld(all: boolean): void {
    if (all) this.#patience.await(Infinity);
    else this.#awaitByte(this.context.wheel.coarseNowMs());
  }

  /** Finds an endpoint, or waits for one within bounds. */
  #dispatch(): void {
    if (this.#dispatchNow()) return;
    const { mesh, clock } = this.context;
    const pause = this.#choice.cluster?.pause;
    if (pause?.kind === "maintenance") return this.#answer(pause.answer);
    if (this.priority === PRIORITY.low && this.#choice.missing === "overloaded") {
      return this.#fail(
        "shed",
        `"${this.binding!.cluster}" has as much to do as it may, and other requests matter more`,
      );
    }
    const name = this.binding!.cluster;
    const max = this.#choice.cluster?.policy.pendingMax ?? 1024;
    if (!mesh.wait(name, this, max, this.priority === PRIORITY.high))
      return this.#fail("overloaded", `${max} requests wait already`);
    this.#phase = PHASE.waiting;
    const nowMs = clock.nowMs();
    // Who is held waits for the end of it, and then for an endpoint like everybody.
    const beginMs = pause === undefined ? nowMs : Math.max(nowMs, pause.untilMs);
    this.#patience.await(beginMs + this.pendingMs);
  }

  #dispatchNow(): boolean {
    const binding = this.binding!;
    const choice = this.#choice;
    if (choice.enter(this.context.mesh, binding.cluster)) this.#entered();
    if (this.context.pressure.level > this.priority) {
      this.#fail("shed", "this proxy is short of memory or time, and other requests matter more");
      return true;
    }
    const endpoint = this.#chooseOther(this.endpoint);
    if (endpoint === undefined) return false;
    this.#try(endpoint, false);
    return true;
  }

  #chooseOther(avoid: EndpointState | undefined): EndpointState | undefined {
    const { random } = this.context;
    return this.#choice.next(
      this.binding!,
      this.request,
      avoid,
      this.priority,
      random,
      this.#downstream.peerAddress,
    );
  }

  #entered(): void {
    const { cluster } = this.#choice;
    if (cluster === undefined) return;
    cluster.budget.deposit();
    this.#patience.clamp(this.startedMs, cluster.policy.requestTimeoutMs);
    const said = this.origin.kind === "local" ? this.request.priority : undefined;
    this.priority = said ?? PRIORITY[cluster.policy.priority];
  }

  #try(endpoint: EndpointState, freshOnly: boolean): void {
    if (this.#tooLate(this.#nowMs())) return;
    if (this.#race.leader.begin(endpoint, freshOnly)) return this.#send(this.#race.leader);
    this.#phase = PHASE.connecting;
    this.#patience.await(Infinity); // The connection has its own deadline.
  }

  #send(attempt: Attempt): void {
    const { limits } = this.context;
    const nowMs = this.#nowMs();
    if (this.#tooLate(nowMs)) return;
    const { policy } = attempt.endpoint!.cluster;
    let hopFields = this.#downstream.hopFields;
    if (this.origin.kind === "edge") hopFields += `x-forwarded-host: ${this.request.host}\r\n`;
    const { wholeMs } = this.#patience;
    if (wholeMs !== Infinity) hopFields += deadlineLines(wholeMs - nowMs, isGrpc(this.request));
    if (this.priority !== PRIORITY.normal) hopFields += priorityLine(this.priority);
    this.#phase = PHASE.sending;
    const { bytes, from, to } = this.#body;
    const flowing = attempt.send(hopFields, this.requestId, bytes, from, to, nowMs);
    this.#body.noteSent(this.#resendable(), limits.replayBytesMax);
    if (this.requestComplete) this.#patience.awaitResponse(nowMs, policy);
    else {
      this.#awaitByte(nowMs);
      if (flowing) this.#downstream.resumeBody();
    }
    if (policy.hedge !== undefined) this.#mayHedge(policy.hedge);
  }

  /** Sends it once more if that is allowed; else false. */
  #again(sent: boolean, stale: boolean, timedOut: boolean): boolean {
    const { budget, policy } = this.#choice.cluster!;
    const attempt = {
      sent,
      idempotent: this.request.idempotent,
      replayable: this.#body.replayable,
      staleConnection: stale && !this.#staleRetried,
      timedOut,
      retries: this.retries,
    };
    const verdict = judgeRetry(attempt, policy.retry);
    if (verdict === "reconnect") {
      this.#staleRetried = true;
      this.#try(this.endpoint!, true);
      return true;
    }
    if (verdict === "no" || !budget.withdraw()) return false;
    this.#retry();
    return true;
  }

  /** Another attempt after a failed one, at once or after a while. */
  #retry(): void {
    const cluster = this.#choice.cluster!;
    const { clock, random, onFault } = this.context;
    this.#stopTimer();
    this.#countRetry();
    this.#race.leader.release();
    this.#phase = PHASE.waiting;
    const elsewhere = cluster.hasOther(this.endpoint!);
    const delayMs = retryDelayMs(this.retries, elsewhere, cluster.policy.retry, random);
    if (delayMs === 0) return this.#dispatch();
    this.#patience.await(Infinity);
    this.#timer = guardedTimer(clock, delayMs, onFault, () => {
      this.#timer = undefined;
      this.#dispatch();
    });
  }

  #countRetry(): void {
    this.retries += 1;
    this.binding!.stats(this.endpoint!.release).retries += 1;
  }

  /** An upstream says 503: another endpoint may do better, for a request that may be sent twice. */
  #betterElsewhere(attempt: Attempt, last: boolean): boolean {
    const cluster = this.#choice.cluster!;
    const { retry } = cluster.policy;
    const racing = this.#race.on;
    const may =
      this.requestComplete &&
      this.#body.replayable &&
      (this.request.idempotent || retry.nonIdempotent) &&
      this.retries < retry.retriesMax &&
      cluster.hasOther(attempt.endpoint!);
    if (!racing && (!may || !cluster.budget.withdraw())) return false;
    if (last) attempt.letGo(); // It is free already, and perhaps in other hands.
    else attempt.abandon();
    if (!this.#race.lose(attempt)) this.#retry();
    return true;
  }

  /** A second attempt beside the first, if that is still unanswered when its time has come. */
  #mayHedge(policy: HedgePolicy): void {
    const { request } = this;
    const cluster = this.#choice.cluster!;
    const may = this.requestComplete && request.idempotent && this.#body.replayable && request.upgrade === "";
    if (!may || this.#timer !== undefined || this.#hedged) return;
    const delayMs = policy.delayMs ?? cluster.latency.valueMs;
    const { clock, onFault } = this.context;
    this.#timer = guardedTimer(clock, delayMs, onFault, () => {
      this.#timer = undefined;
      this.#hedge();
    });
  }

  #hedge(): void {
    const cluster = this.#choice.cluster!;
    const first = this.#race.leader;
    if (this.#phase !== PHASE.sending || !cluster.hasOther(first.endpoint!) || !cluster.budget.withdraw()) {
      return;
    }
    const endpoint = this.#chooseOther(first.endpoint);
    if (endpoint === undefined || endpoint === first.endpoint) return;
    this.#hedged = true;
    this.#countRetry();
    this.context.stats.hedges += 1;
    const rival = this.#race.join();
    if (rival.begin(endpoint, false)) this.#send(rival);
  }

  /** `attempt` has an answer: nobody else's counts, and no other is sent. */
  #settle(attempt: Attempt): void {
    if (this.#race.on && this.#race.win(attempt)) this.context.stats.hedgesWon += 1;
    if (this.#timer !== undefined) this.#stopTimer();
  }

  /** May its body have to be sent again? HTTP/2 can say that a request was not looked at (RFC 9113 8.7). */
  #resendable(): boolean {
    const { policy, speaksHttp2 } = this.#choice.cluster!;
    return this.request.idempotent || policy.retry.nonIdempotent || speaksHttp2;
  }

  /** A byte went through: the stall deadline starts anew, or the wait for the response begins. */
  #expectProgress(): void {
    const nowMs = this.context.wheel.coarseNowMs();
    if (this.#phase === PHASE.responding || !this.requestComplete) this.#awaitByte(nowMs);
    else this.#patience.awaitResponse(nowMs, this.#choice.cluster!.policy);
  }

  #awaitByte(nowMs: number): void {
    const { policy, protocol } = this.#choice.cluster!;
    const responding = this.#phase === PHASE.responding;
    const byteMs = responding ? this.#patience.streamMs(policy) : this.#patience.bodyMs(protocol, policy);
    this.#patience.await(nowMs + byteMs);
  }

  /** The client takes no more for now. */
  #stall(): void {
    this.#patience.clientStalled = true;
    this.#race.leader.pause();
  }

  /** The time of the read that is handled, or of now. */
  #nowMs(): number {
    return this.#readMs === 0 ? this.context.clock.nowMs() : this.#readMs;
  }

  /** A request whose deadline has passed is not shown to anybody. */
  #tooLate(nowMs: number): boolean {
    if (nowMs < this.#patience.wholeMs) return false;
    this.#expire("whole");
    return true;
  }

  #expire(lapse: Lapse): void {
    const { missing, cluster } = this.#choice;
    if (this.#phase === PHASE.delayed && lapse === "phase") return this.#endDelay();
    this.#stopTimer();
    if (this.#filtered?.collecting === true && lapse === "phase") {
      const stallMs = this.context.limits.bodyStallTimeoutMs;
      return this.#fail("body_timeout", `no byte of the request's body came for ${stallMs} ms`);
    }
    if (lapse !== "whole" && this.#phase === PHASE.sending) this.#race.leader.noteLate();
    this.#race.abandon();
    if (this.#phase === PHASE.waiting && lapse === "phase") {
      return this.#fail(missing, waitedText(this, missing));
    }
    const [code, what] = lapseText(this, lapse, this.#patience, this.#phase === PHASE.responding, cluster);
    if (lapse === "phase" && this.#phase === PHASE.sending && this.requestComplete) {
      cluster!.noteFailure(this.endpoint!, what, this.context.clock.nowMs());
      if (this.#again(true, false, true)) return;
    }
    this.#fail(code, what);
  }

  /** Answers with the failure if nothing was answered yet, else cuts the response off. */
  #fail(code: FailureCode, what: string): void {
    this.reason = code;
    if (this.#responseStarted) this.#downstream.cut();
    else {
      this.status = STATUS_BY_CODE[code];
      this.#downstream.refuse(code, refusalText(code, what, whereOf(this)));
    }
    this.context.log.debug({ code, requestId: this.requestId, where: whereOf(this) }, what);
    this.#finish();
  }

  #stopTimer(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
  }

  #finish(): void {
    if (this.#phase === PHASE.waiting && this.binding !== undefined) {
      this.context.mesh.stopWaiting(this.binding.cluster, this);
    }
    this.#phase = PHASE.idle;
    this.#compressed?.end();
    this.#compressed = undefined;
    if (this.#filtered !== undefined) {
      this.#filtered.end();
      this.#filtered = undefined;
    }
    this.#patience.end();
    if (this.#timer !== undefined) this.#stopTimer();
    this.#choice.cluster = undefined;
    this.#race.leader.letGo();
    this.#body.clear();
    this.#race.leader.release();
    recordExchange(this);
    this.#downstream.onExchangeOver();
  }
}
