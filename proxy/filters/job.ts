import { RunContext, type Effects, type RunFacts } from "./context.ts";
import type { BodyFilter, Filter, FilterAnswer, HeadFilter } from "./filter.ts";
import { checkedLine, HeaderLines, isKeptName } from "./header-lines.ts";
import { RequestView, ResponseView, checkStatus, checkTarget, isContentless } from "./heads.ts";

/**
 * One run of a filter as data: what goes to the process that runs it, and what comes back. `runJob` is what that
 * process and the test kit have in common, so that a filter's tests see what its users will see.
 */
export interface Job {
  readonly id: number;
  readonly stage: "request" | "response";
  /** Of the request, for both stages. */
  readonly method: string;
  readonly target: string;
  readonly host: string;
  /** Of the response, 0 for a request. */
  readonly status: number;
  /** The fields of the head, lines ending in CR LF. */
  readonly lines: string;
  /** Whole; undefined: the filter does not want it, or there is none. */
  readonly body: Uint8Array | undefined;
  /** Content follows the head. */
  readonly content: boolean;
  readonly facts: RunFacts;
  /** The same request will be seen again: keep what the filter remembers of it. */
  readonly again: boolean;
}

/** An answer ready to be sent. */
export interface Answer {
  readonly status: number;
  readonly lines: string;
  readonly body: Uint8Array;
}

/** What a filter made of a message; absent parts stay as they are. */
export interface Changes {
  readonly method?: string;
  readonly target?: string;
  readonly status?: number;
  readonly lines?: string;
  readonly body?: Uint8Array;
}

export type FailureKind =
  | "threw"
  | "invalid"
  | "timeout"
  | "memory"
  | "body_too_large"
  | "unavailable"
  | "async";

export type JobResult =
  | {
      readonly id: number;
      readonly ok: true;
      readonly answer?: Answer;
      readonly changes?: Changes;
      readonly effects: Effects;
    }
  | { readonly id: number; readonly ok: false; readonly kind: FailureKind; readonly what: string };

const EMPTY = new Uint8Array(0);

/** Runs `filter` on `job`; never rejects. `states` holds what filters remember from a request to its response. */
export async function runJob(
  filter: Filter,
  job: Job,
  states: Map<string, Map<string, unknown>>,
  wallMs: () => number,
): Promise<JobResult> {
  const { requestId } = job.facts;
  const context = new RunContext(job.facts, wallMs, states.get(requestId));
  try {
    const result =
      filter.body === undefined ? await runHead(filter, job, context) : await runBody(filter, job, context);
    const { route, delayMs, counts, notes } = context;
    if (job.again) states.set(requestId, context.state);
    else states.delete(requestId);
    return { id: job.id, ok: true, ...result, effects: { route, delayMs, counts, notes } };
  } catch (error) {
    states.delete(requestId);
    return { id: job.id, ok: false, ...failureOf(error) };
  }
}

/** A filter broke a rule of its contract; whatever else it throws is its own. */
export class InvalidResult extends TypeError {}

export function failureOf(error: unknown): { kind: FailureKind; what: string } {
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { kind: error instanceof InvalidResult ? "invalid" : "threw", what: what.slice(0, 500) };
}

type Outcome = { answer?: Answer; changes?: Changes };

async function runHead(filter: HeadFilter<unknown>, job: Job, context: RunContext): Promise<Outcome> {
  if (job.stage === "request") {
    const view = new RequestView(job.method, job.target, job.host, job.lines);
    const answer = await filter.onRequest?.(view, context);
    return answer === undefined ? { changes: requestChanges(view) } : { answer: answerOf(answer) };
  }
  const view = new ResponseView(job.status, job.lines, job.content);
  const answer = await filter.onResponse?.(view, context);
  return answer === undefined ? { changes: responseChanges(view) } : { answer: answerOf(answer) };
}

function requestChanges(view: RequestView): Changes {
  return {
    ...(view.targetChanged ? { target: view.target } : {}),
    ...(view.headers.changed ? { lines: view.headers.lines } : {}),
  };
}

function responseChanges(view: ResponseView): Changes {
  return {
    ...(view.statusChanged ? { status: view.status } : {}),
    ...(view.headers.changed ? { lines: view.headers.lines } : {}),
  };
}

/** What a filter returned, checked. @throws InvalidResult */
export function answerOf(answer: FilterAnswer): Answer {
  try {
    if (typeof answer !== "object" || answer === null) {
      throw new TypeError('return nothing, or an answer like { status: 401, body: "…" }');
    }
    const { status, headers = {}, body = EMPTY } = answer;
    checkStatus(status);
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    if (!(bytes instanceof Uint8Array)) throw new TypeError("an answer's body is a text or bytes");
    if (isContentless(status) && bytes.length > 0) throw new TypeError(`an answer ${status} has no body`);
    let lines = "";
    for (const [name, value] of Object.entries(headers)) lines += checkedLine(name, value);
    if (bytes.length > 0 && typeof body === "string" && !new HeaderLines(lines).has("content-type")) {
      lines += "content-type: text/plain; charset=utf-8\r\n";
    }
    return { status, lines, body: bytes };
  } catch (error) {
    throw new InvalidResult(error instanceof Error ? error.message : String(error));
  }
}

async function runBody(filter: BodyFilter<unknown>, job: Job, context: RunContext): Promise<Outcome> {
  return job.stage === "request"
    ? runBodyOnRequest(filter, job, context)
    : runBodyOnResponse(filter, job, context);
}

async function runBodyOnRequest(
  filter: BodyFilter<unknown>,
  job: Job,
  context: RunContext,
): Promise<Outcome> {
  const given = fetchRequest(job);
  const result = await filter.onRequest?.(given, context);
  if (result === undefined || result === given) return {};
  if (result instanceof Response) return { answer: await answerOfResponse(result, job) };
  if (!(result instanceof Request)) throw new InvalidResult("return nothing, a Request or a Response");
  const body = job.body === undefined ? undefined : new Uint8Array(await result.arrayBuffer());
  const target = result.url === given.url ? undefined : targetOf(result.url);
  return {
    changes: {
      ...(result.method === job.method ? {} : { method: result.method }),
      ...(target === undefined ? {} : { target }),
      lines: linesOf(result.headers, job.lines),
      ...(body === undefined ? {} : { body }),
    },
  };
}

async function runBodyOnResponse(
  filter: BodyFilter<unknown>,
  job: Job,
  context: RunContext,
): Promise<Outcome> {
  const given = new Response(isContentless(job.status) ? null : (job.body ?? null), {
    status: job.status,
    headers: headersOf(job.lines),
  });
  const result = await filter.onResponse?.(given, context);
  if (result === undefined || result === given) return {};
  if (!(result instanceof Response)) throw new InvalidResult("return nothing or a Response");
  checkStatus(result.status);
  const wantsBody = filter.body.response === true;
  if (!wantsBody && job.content && isContentless(result.status)) {
    throw new InvalidResult(`a response with status ${result.status} has no content, and this one has`);
  }
  return {
    changes: {
      ...(result.status === job.status ? {} : { status: result.status }),
      lines: linesOf(result.headers, job.lines),
      ...(wantsBody ? { body: new Uint8Array(await result.arrayBuffer()) } : {}),
    },
  };
}

function fetchRequest({ method, target, host, lines, body }: Job): Request {
  const bodiless = method === "GET" || method === "HEAD" || body === undefined;
  const url = new URL(`http://${host === "" ? "localhost" : host}`);
  const cut = target.indexOf("?");
  url.pathname = cut < 0 ? target : target.slice(0, cut);
  url.search = cut < 0 ? "" : target.slice(cut);
  return new Request(url, { method, headers: headersOf(lines), ...(bodiless ? {} : { body }) });
}

function headersOf(lines: string): Headers {
  const headers = new Headers();
  for (const [name, value] of new HeaderLines(lines)) headers.append(name, value);
  return headers;
}

/** Fetch's headers as lines; what a filter cannot write stays as `before` has it. */
function linesOf(headers: Headers, before: string): string {
  let lines = "";
  for (const [name, value] of new HeaderLines(before)) if (isKeptName(name)) lines += `${name}: ${value}\r\n`;
  for (const [name, value] of headers) if (!isKeptName(name)) lines += checkedLine(name, value);
  return lines;
}

async function answerOfResponse(response: Response, { method }: Job): Promise<Answer> {
  checkStatus(response.status);
  const body = method === "HEAD" ? EMPTY : new Uint8Array(await response.arrayBuffer());
  let lines = "";
  for (const [name, value] of response.headers) if (!isKeptName(name)) lines += checkedLine(name, value);
  return { status: response.status, lines, body };
}

function targetOf(url: string): string {
  const { pathname, search } = new URL(url);
  const target = pathname + search;
  checkTarget(target);
  return target;
}
