import type { FailureCode } from "../failure.ts";
import { BODY, type RequestHead } from "../http1/request-head.ts";
import { ResponseHead } from "../http1/response-head.ts";
import type { ChainLink, FilterChain } from "./chain.ts";
import { RunContext, type Effects } from "./context.ts";
import type { FilterAnswer } from "./filter.ts";
import { HeaderLines, withLength } from "./header-lines.ts";
import { RequestView, ResponseView } from "./heads.ts";
import type { LoadedFilter } from "./host.ts";
import { type Answer, type Changes, type FailureKind, type JobResult, answerOf, failureOf } from "./job.ts";
import type { Turned } from "./turn-queue.ts";

/** What filters need of the exchange they work for. */
export interface Filterable {
  readonly request: RequestHead;
  readonly requestId: string;
  readonly requestComplete: boolean;
  readonly origin: { readonly from: string };
  readonly peerAddress: string;
  /** The cluster it goes to. */
  readonly to: string;
  /** The body, once it is complete. */
  wholeBody(): Buffer;
  replaceBody(bytes: Buffer): void;
  routeTo(cluster: string): void;
  annotate(key: string, value: string): void;
  /** Filters are done with the request: send it. */
  onRequestFiltered(): void;
  /** Filters are done with the response: hand on its head and what was held of it. */
  onResponseFiltered(
    head: ResponseHead,
    held: Buffer,
    last: boolean,
    trailers: readonly string[] | undefined,
  ): void;
  answer(answer: Answer): void;
  refuseFiltered(code: FailureCode, what: string): void;
}

const INLINE_TIMEOUT_MS = 50;
const LANE_TIMEOUT_MS = 1_000;
const NO_BYTES = Buffer.alloc(0);

const CODE_BY_KIND: Record<FailureKind, FailureCode> = {
  threw: "filter_failed",
  invalid: "filter_failed",
  async: "filter_failed",
  timeout: "filter_timeout",
  memory: "filter_memory",
  unavailable: "filter_unavailable",
  body_too_large: "filter_body_too_large",
};

const STAGE = { request: 0, sent: 1, response: 2, over: 3 } as const;

/**
 * The filters at work on one request, from its head to the head of its response. It advances only in turns
 * (turn-queue.ts), so that a filter inside the proxy may be ended at any point.
 */
export class FilteredExchange implements Turned {
  /** The body is being waited for: some filter wants it whole. */
  collecting = false;
  /** The response is being held back. */
  holding = false;
  readonly #chain: FilterChain;
  readonly #exchange: Filterable;
  #stage: number = STAGE.request;
  #at = 0;
  #link: ChainLink | undefined;
  /** When the filter that runs began. */
  #sinceMs = 0;
  #delayMs = 0;
  /** Counts what is waited for: whatever comes of an earlier wait, after its response was dropped, is void. */
  #wait = 0;
  /** By link; only where it is to be remembered. */
  #states: (Map<string, unknown> | undefined)[] | undefined;
  #view: RequestView | undefined;
  #head: ResponseHead | undefined;
  #pieces: Buffer[] = [];
  #heldBytes = 0;
  #responseWhole = false;
  #trailers: readonly string[] | undefined;

  constructor(chain: FilterChain, exchange: Filterable) {
    this.#chain = chain;
    this.#exchange = exchange;
    for (const { filter } of chain.links) if (filter !== undefined) filter.inUse += 1;
  }

  get seesResponses(): boolean {
    return this.#chain.seesResponses;
  }

  get requestBytesMax(): number {
    return this.#chain.requestBodyBytesMax;
  }

  get responseBytesMax(): number {
    return this.#chain.responseBodyBytesMax;
  }

  /** The request's head is there. */
  start(): void {
    const { request, requestComplete } = this.#exchange;
    if (this.#chain.responseBodyBytesMax > 0) identityOnly(request);
    this.collecting = this.#chain.requestBodyBytesMax > 0 && !requestComplete;
    if (this.collecting) return;
    this.#chain.host.turns.add(this);
  }

  /** The request's body is there. */
  onRequestWhole(): void {
    this.collecting = false;
    this.#chain.host.turns.add(this);
  }

  /** A body outgrew the smallest bound: it is refused, whatever the policy, since part of it was not looked at. */
  refuseTooLarge(side: "request" | "response"): void {
    this.collecting = false;
    const link = this.#chain.links.find(({ filter }) =>
      side === "request" ? filter?.shape.requestBody : filter?.shape.responseBody,
    )!;
    link.stats.ran("body_too_large", 0);
    const max = side === "request" ? this.requestBytesMax : this.responseBytesMax;
    this.#refuse(
      side === "request" ? "filter_body_too_large" : "filter_response_too_large",
      `filter ${link.use.file} wants the ${side}'s body whole, and it is larger than ${max} bytes`,
    );
  }

  /** The response's head came, perhaps with content: both are kept. `head` belongs to others. Returns as `holdData`. */
  holdResponse(head: ResponseHead, bytes: Buffer, from: number, to: number, last: boolean): boolean {
    this.#stage = STAGE.response;
    this.holding = true;
    this.#head = copyOf(head);
    this.#pieces = [];
    this.#heldBytes = 0;
    this.#trailers = undefined;
    this.#responseWhole = false;
    this.#at = this.#chain.links.length - 1;
    if (this.responseBytesMax === 0) {
      this.#hold(bytes, from, to);
      this.#responseWhole = last;
      this.#chain.host.turns.add(this);
      return true;
    }
    return this.holdData(bytes, from, to, last);
  }

  /** More content. False: it is too large for the filter that wants it whole. */
  holdData(bytes: Buffer, from: number, to: number, last: boolean): boolean {
    this.#hold(bytes, from, to);
    if (this.responseBytesMax > 0 && this.#heldBytes > this.responseBytesMax) return false;
    if (!last) return true;
    this.#responseWhole = true;
    if (this.responseBytesMax > 0) this.#chain.host.turns.add(this);
    return true;
  }

  holdTrailers(fields: readonly string[]): void {
    this.#trailers = fields;
    this.holdData(NO_BYTES, 0, 0, true);
  }

  /** The attempt failed: what was held of its response is void. */
  dropResponse(): void {
    this.#stage = STAGE.sent;
    this.holding = false;
    this.#wait += 1;
    this.#head = undefined;
    this.#pieces = [];
  }

  /** The exchange is over, whatever became of it. */
  end(): void {
    if (this.#stage === STAGE.over) return;
    this.#stage = STAGE.over;
    this.collecting = false;
    this.holding = false;
    for (const { filter } of this.#chain.links) if (filter !== undefined) this.#chain.host.release(filter, 1);
  }

  takeTurn(): void {
    try {
      if (this.#stage === STAGE.request) this.#filterRequest();
      else if (this.#stage === STAGE.response) this.#filterResponse();
    } catch (error) {
      this.#chain.host.log.error({ err: error }, "a fault of the proxy around a filter");
      this.#refuse("internal", "a fault of the proxy");
    }
  }

  onCut(): void {
    const kind = this.#chain.host.watchdog.takeCut();
    const link = this.#link!;
    const what =
      kind === "timeout" ? `it did not end within ${timeoutOf(link)} ms` : "it made the proxy's memory grow";
    this.#chain.host.demote(link.filter!, what);
    this.#failed(link, kind, what);
    this.takeTurn();
  }

  #filterRequest(): void {
    const { links } = this.#chain;
    while (this.#stage === STAGE.request && this.#at < links.length) {
      const link = links[this.#at]!;
      if (link.filter !== undefined && !link.filter.shape.onRequest) {
        this.#at += 1;
        continue;
      }
      if (!this.#runRequest(link)) return;
    }
    if (this.#stage !== STAGE.request || this.#delayed()) return;
    this.#view = undefined;
    this.#stage = STAGE.sent;
    this.#exchange.onRequestFiltered();
  }

  /** True when it is done with this link. */
  #runRequest(link: ChainLink): boolean {
    const { filter } = link;
    if (filter === undefined) return this.#missing(link);
    if (filter.inline === undefined) return this.#runInLane(link, filter);
    const { request } = this.#exchange;
    this.#view ??= new RequestView(request.method, request.target, request.host, request.fields);
    return this.#runInline(link, filter, this.#view, filter.inline.onRequest!);
  }

  #filterResponse(): void {
    const { links } = this.#chain;
    while (this.#stage === STAGE.response && this.#at >= 0) {
      const link = links[this.#at]!;
      if (link.filter === undefined || !link.filter.shape.onResponse) {
        this.#at -= 1;
        continue;
      }
      const { filter } = link;
      if (filter.inline === undefined) {
        if (!this.#runInLane(link, filter)) return;
        continue;
      }
      const head = this.#head!;
      const view = new ResponseView(head.status, head.fields, head.body !== BODY.none);
      if (!this.#runInline(link, filter, view, filter.inline.onResponse!)) return;
    }
    if (this.#stage !== STAGE.response || this.#delayed()) return;
    this.holding = false;
    this.#stage = STAGE.sent;
    const held = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#exchange.onResponseFiltered(this.#head!, held, this.#responseWhole, this.#trailers);
  }

  /** Under the watchdog. Nothing of ours may be half done while the filter runs. */
  #runInline<View extends RequestView | ResponseView>(
    link: ChainLink,
    filter: LoadedFilter,
    view: View,
    hook: (view: View, context: RunContext) => unknown,
  ): boolean {
    const { clock, watchdog } = this.#chain.host;
    const context = this.#contextOf(link);
    let result: unknown;
    let thrown: unknown;
    let threw = false;
    this.#link = link;
    this.#sinceMs = clock.nowMs();
    watchdog.enter(timeoutOf(link));
    try {
      result = hook(view, context);
    } catch (error) {
      threw = true;
      thrown = error;
    }
    watchdog.leave();
    const durationMs = clock.nowMs() - this.#sinceMs;
    if (threw) {
      const { kind, what } = failureOf(thrown);
      return this.#failed(link, kind, what);
    }
    if (result === undefined) {
      link.stats.ran("next", durationMs);
      if (view instanceof ResponseView) this.#applyResponseView(view);
      else this.#applyView();
      if (filter.shape.onResponse && this.#stage === STAGE.request) this.#remember(context);
      this.#effects(link, context);
      return this.#next();
    }
    if (isThenable(result)) {
      result.then(undefined, () => undefined);
      this.#chain.host.demote(filter, "it returned a promise, which nothing inside the proxy waits for");
      return this.#failed(link, "async", "it returned a promise; declare its function async");
    }
    return this.#answered(link, () => answerOf(result as FilterAnswer), context, durationMs);
  }

  #answered(link: ChainLink, make: () => Answer, effects: Effects, durationMs: number): boolean {
    let answer: Answer;
    try {
      answer = make();
    } catch (error) {
      const { kind, what } = failureOf(error);
      return this.#failed(link, kind, what);
    }
    link.stats.ran("answered", durationMs);
    this.#effects(link, effects);
    if (this.#delayMs > 0) {
      const delayMs = this.#delayMs;
      this.#delayMs = 0;
      this.#after(delayMs, () => this.#answer(answer));
    } else this.#answer(answer);
    return false;
  }

  #answer(answer: Answer): void {
    if (this.#stage === STAGE.over) return;
    this.holding = false;
    this.#exchange.answer(answer);
  }

  /** In its own process: goes on with a later turn. */
  #runInLane(link: ChainLink, filter: LoadedFilter): false {
    const { clock, turns } = this.#chain.host;
    const { request, requestId, origin, to, peerAddress } = this.#exchange;
    const { shape } = filter;
    const inRequest = this.#stage === STAGE.request;
    this.#view = undefined;
    const head = this.#head;
    this.#link = link;
    this.#sinceMs = clock.nowMs();
    this.#wait += 1;
    const wait = this.#wait;
    filter.lane.run(
      {
        stage: inRequest ? "request" : "response",
        method: request.method,
        target: request.target,
        host: request.host,
        status: inRequest ? 0 : head!.status,
        lines: inRequest ? request.fields : head!.fields,
        content: inRequest ? request.body !== BODY.none : head!.body !== BODY.none,
        body: inRequest
          ? shape.requestBody
            ? this.#exchange.wholeBody()
            : undefined
          : shape.responseBody && head!.body !== BODY.none
            ? Buffer.concat(this.#pieces)
            : undefined,
        facts: {
          options: link.use.options,
          requestId,
          from: origin.from,
          to,
          client: peerAddress,
          clusters: link.use.clusters,
        },
        again: inRequest && shape.onResponse,
      },
      link.timeoutMs ?? LANE_TIMEOUT_MS,
      (result) => {
        if (this.#stage === STAGE.over || this.#wait !== wait) return; // The client is gone, most often.
        this.#onLaneResult(link, result);
        turns.add(this);
      },
    );
    return false;
  }

  #onLaneResult(link: ChainLink, result: JobResult): void {
    const durationMs = this.#chain.host.clock.nowMs() - this.#sinceMs;
    if (!result.ok) {
      this.#failed(link, result.kind, result.what, durationMs);
      return;
    }
    if (result.answer !== undefined) {
      const { answer } = result;
      this.#answered(link, () => answer, result.effects, durationMs);
      return;
    }
    link.stats.ran("next", durationMs);
    this.#effects(link, result.effects);
    if (this.#stage === STAGE.request) this.#changeRequest(result.changes ?? {});
    else this.#changeResponse(result.changes ?? {});
    this.#next();
  }

  #changeRequest({ method, target, lines, body }: Changes): void {
    const { request } = this.#exchange;
    if (method !== undefined) request.method = method;
    if (target !== undefined) request.target = target;
    if (lines !== undefined) setRequestLines(request, lines);
    if (body !== undefined)
      this.#exchange.replaceBody(Buffer.from(body.buffer, body.byteOffset, body.length));
  }

  #changeResponse({ status, lines, body }: Changes): void {
    const head = this.#head!;
    if (status !== undefined) setStatus(head, status);
    if (lines !== undefined) setLines(head, lines);
    if (body === undefined || this.#exchange.request.method === "HEAD") return;
    this.#pieces = body.length === 0 ? [] : [Buffer.from(body.buffer, body.byteOffset, body.length)];
    const contentless = head.status === 204 || head.status === 304;
    head.body = contentless || body.length === 0 ? BODY.none : BODY.length;
    head.contentLength = body.length;
    head.fields = withLength(head.fields, contentless ? undefined : body.length);
    this.#trailers = undefined;
  }

  /** Always true: done with this link. */
  #next(): boolean {
    this.#link = undefined;
    this.#at += this.#stage === STAGE.request ? 1 : -1;
    return true;
  }

  #missing(link: ChainLink): boolean {
    return this.#failed(link, "unavailable", link.problem);
  }

  #failed(link: ChainLink, kind: FailureKind, what: string, durationMs?: number): boolean {
    const { clock, log } = this.#chain.host;
    link.stats.ran(kind, durationMs ?? (this.#sinceMs === 0 ? 0 : clock.nowMs() - this.#sinceMs));
    const { file, owner } = link.use;
    const { requestId } = this.#exchange;
    log.warn({ filter: file, service: owner, kind, requestId, open: link.open }, `a filter failed: ${what}`);
    // What it changed before it failed is not to be trusted.
    if (this.#stage === STAGE.request) this.#view = undefined;
    if (link.open) return this.#next();
    this.#refuse(CODE_BY_KIND[kind], `filter ${file} of ${owner} failed: ${what}`);
    return false;
  }

  #refuse(code: FailureCode, what: string): void {
    if (this.#stage === STAGE.over) return;
    this.holding = false;
    this.#exchange.refuseFiltered(code, what);
  }

  #effects(link: ChainLink, { route, delayMs, counts, notes }: Effects): void {
    this.#delayMs += delayMs;
    for (const [name, label] of counts) link.stats.event(name, label);
    for (const [key, value] of notes) this.#exchange.annotate(key, value);
    if (route !== undefined && this.#stage === STAGE.request) this.#exchange.routeTo(route);
  }

  /** True: the next turn comes after the delay that filters asked for. */
  #delayed(): boolean {
    if (this.#delayMs <= 0) return false;
    const delayMs = this.#delayMs;
    this.#delayMs = 0;
    this.#after(delayMs, () => this.#chain.host.turns.add(this));
    return true;
  }

  #after(delayMs: number, go: () => void): void {
    this.#wait += 1;
    const wait = this.#wait;
    this.#chain.host.clock.after(delayMs, () => {
      if (this.#stage !== STAGE.over && this.#wait === wait) go();
    });
  }

  #contextOf(link: ChainLink): RunContext {
    const { requestId, origin, to, peerAddress } = this.#exchange;
    const { options, clusters } = link.use;
    const facts = { options, clusters, requestId, from: origin.from, to, client: peerAddress };
    const { clock } = this.#chain.host;
    return new RunContext(facts, () => clock.wallMs(), this.#states?.[this.#at]);
  }

  #remember(context: RunContext): void {
    this.#states ??= [];
    this.#states[this.#at] = context.state;
  }

  /** What an inline filter changed of the request's head goes into the head. */
  #applyView(): void {
    const view = this.#view;
    if (view === undefined || !(view.targetChanged || view.headers.changed)) return;
    this.#view = undefined;
    const { request } = this.#exchange;
    if (view.targetChanged) request.target = view.target;
    if (view.headers.changed) setRequestLines(request, view.headers.lines);
  }

  #applyResponseView(view: ResponseView): void {
    const head = this.#head!;
    if (view.statusChanged) setStatus(head, view.status);
    if (view.headers.changed) setLines(head, view.headers.lines);
  }

  #hold(bytes: Buffer, from: number, to: number): void {
    if (to === from) return;
    this.#pieces.push(Buffer.from(bytes.subarray(from, to)));
    this.#heldBytes += to - from;
  }
}

function timeoutOf({ timeoutMs }: ChainLink): number {
  return timeoutMs ?? INLINE_TIMEOUT_MS;
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null)?.then === "function";
}

function copyOf(head: ResponseHead): ResponseHead {
  const copy = new ResponseHead();
  copy.status = head.status;
  copy.reason = head.reason;
  copy.minor = head.minor;
  copy.body = head.body;
  copy.contentLength = head.contentLength;
  copy.fields = head.fields;
  copy.hasDate = head.hasDate;
  return copy;
}

function setStatus(head: ResponseHead, status: number): void {
  head.status = status;
  head.reason = ""; // The old one would be wrong, and nobody needs one (RFC 9112 4).
}

function setLines(head: ResponseHead, lines: string): void {
  head.fields = lines;
  head.hasDate = new HeaderLines(lines).has("date");
}

function setRequestLines(request: RequestHead, lines: string): void {
  request.fields = lines;
  request.cookie = new HeaderLines(lines).get("cookie") ?? "";
}

/** A body that a filter is to read must not come compressed. */
function identityOnly(request: RequestHead): void {
  const headers = new HeaderLines(request.fields);
  headers.set("accept-encoding", "identity");
  request.fields = headers.lines;
}
