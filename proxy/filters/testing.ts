import vm from "node:vm";
import { systemClock } from "../../base/clock.ts";
import type { BodyFilter, Filter, HeadFilter } from "./filter.ts";
import { isKeptName } from "./header-lines.ts";
import { type FailureKind, type Job, type JobResult, runJob } from "./job.ts";
import { shapeOf } from "./module.ts";

/** How a filter is used in a test; everything is optional. */
export interface TestUse {
  /** What the manifest would say. */
  readonly options?: unknown;
  readonly onFailure?: "open" | "closed";
  readonly timeoutMs?: number;
  /** Names that `context.routeTo` may use. */
  readonly clusters?: readonly string[];
  readonly from?: string;
  readonly to?: string;
  readonly client?: string;
  /** What the service answers. @default an empty 200 */
  readonly upstream?: (request: Request) => Response | Promise<Response>;
}

export interface TestResult {
  /** What the client gets. */
  readonly response: Response;
  /** What the service got; undefined when the filter answered, or was refused. */
  readonly forwarded: Request | undefined;
  readonly routedTo: string | undefined;
  readonly delayMs: number;
  readonly counts: readonly (readonly [name: string, label: string])[];
  readonly notes: Readonly<Record<string, string>>;
  /** Every failure, those that were let pass included. */
  readonly failures: readonly { readonly kind: FailureKind; readonly what: string }[];
}

const STATUS_BY_KIND: Record<FailureKind, number> = {
  threw: 500,
  invalid: 500,
  async: 500,
  timeout: 503,
  memory: 503,
  unavailable: 503,
  body_too_large: 413,
};

/** Where neither the filter nor its use says one; longer than the proxy's, because tests run on busy machines. */
const TIMEOUT_MS = 5_000;

/**
 * Sends one request through a filter, and what `upstream` answers back through it, by the rules of the proxy: what it
 * may change, what its failures mean, how long it may run. A function that loops for ever is cut off here too.
 *
 * ```ts
 * const { response, forwarded } = await testFilter(filter, new Request("http://shop.test/"), { options: { … } });
 * ```
 * @throws Error when it is no filter.
 */
export async function testFilter<Options>(
  filter: HeadFilter<Options> | BodyFilter<Options>,
  request: Request,
  use: TestUse = {},
): Promise<TestResult> {
  return new TestRun(filter, use).run(request);
}

class TestRun {
  readonly #filter: Filter;
  readonly #use: TestUse;
  readonly #shape;
  readonly #states = new Map<string, Map<string, unknown>>();
  readonly #failures: { kind: FailureKind; what: string }[] = [];
  readonly #counts: (readonly [string, string])[] = [];
  readonly #notes: Record<string, string> = {};
  #routedTo: string | undefined;
  #delayMs = 0;

  constructor(filter: Filter, use: TestUse) {
    this.#filter = filter;
    this.#use = use;
    this.#shape = shapeOf(filter, "filter.ts");
  }

  async run(request: Request): Promise<TestResult> {
    const { pathname, search, host } = new URL(request.url);
    const head = { method: request.method, target: pathname + search, host };
    const body = request.body === null ? undefined : new Uint8Array(await request.arrayBuffer());
    let lines = linesOf(request.headers);
    let forwardedBody: Uint8Array | undefined = body;
    if (this.#shape.responseBody) lines = withLine(lines, "accept-encoding", "identity");
    if (this.#shape.onRequest) {
      const wanted = this.#shape.requestBody ? body : undefined;
      if (wanted !== undefined && wanted.length > this.#shape.bodyBytesMax) return this.#tooLarge(413);
      const result = await this.#stage({
        ...head,
        stage: "request",
        status: 0,
        lines,
        body: wanted,
        content: body !== undefined,
      });
      if (result !== undefined && "response" in result) return result;
      head.method = result?.changes?.method ?? head.method;
      head.target = result?.changes?.target ?? head.target;
      lines = result?.changes?.lines ?? lines;
      forwardedBody = result?.changes?.body ?? forwardedBody;
    }
    const bodiless = head.method === "GET" || head.method === "HEAD" || forwardedBody === undefined;
    const forwarded = new Request(`http://${host}${head.target}`, {
      method: head.method,
      headers: headersOf(lines),
      ...(bodiless ? {} : { body: Buffer.from(forwardedBody!) }),
    });
    const answered = (await this.#use.upstream?.(forwarded.clone())) ?? new Response(null);
    return this.#respond(answered, head, forwarded);
  }

  async #respond(
    answered: Response,
    head: { method: string; target: string; host: string },
    forwarded: Request,
  ): Promise<TestResult> {
    const body = answered.body === null ? undefined : new Uint8Array(await answered.arrayBuffer());
    let { status } = answered;
    let lines = linesOf(answered.headers);
    let sent: Uint8Array | undefined = body;
    if (this.#shape.onResponse) {
      const wanted = this.#shape.responseBody ? body : undefined;
      if (wanted !== undefined && wanted.length > this.#shape.bodyBytesMax) return this.#tooLarge(502);
      const job = {
        ...head,
        stage: "response" as const,
        status,
        lines,
        body: wanted,
        content: body !== undefined,
      };
      const result = await this.#stage(job);
      if (result !== undefined && "response" in result) return { ...result, forwarded };
      status = result?.changes?.status ?? status;
      lines = result?.changes?.lines ?? lines;
      sent = result?.changes?.body ?? sent;
    }
    const response = new Response(
      sent === undefined || [204, 205, 304].includes(status) ? null : Buffer.from(sent),
      {
        status,
        headers: headersOf(lines),
      },
    );
    return this.#result(response, forwarded);
  }

  /** A result that goes on, undefined for a failure that is let pass, or the end. */
  async #stage(
    job: Omit<Job, "id" | "facts" | "again">,
  ): Promise<Extract<JobResult, { ok: true }> | TestResult | undefined> {
    const result = await this.#runJob(job);
    if (!result.ok) {
      this.#failures.push({ kind: result.kind, what: result.what });
      const policy = this.#use.onFailure ?? this.#shape.onError;
      if (policy === "open") return undefined;
      return this.#result(new Response(result.what, { status: STATUS_BY_KIND[result.kind] }), undefined);
    }
    const { route, delayMs, counts, notes } = result.effects;
    if (route !== undefined && job.stage === "request") this.#routedTo = route;
    this.#delayMs += delayMs;
    this.#counts.push(...counts);
    Object.assign(this.#notes, Object.fromEntries(notes));
    if (result.answer === undefined) return result;
    const { status, lines, body } = result.answer;
    const empty = body.length === 0 || job.method === "HEAD";
    return this.#result(
      new Response(empty ? null : Buffer.from(body), { status, headers: headersOf(lines) }),
      undefined,
    );
  }

  async #runJob(job: Omit<Job, "id" | "facts" | "again">): Promise<JobResult> {
    const { options, clusters = [], from = "edge", to = "web.test", client = "127.0.0.1" } = this.#use;
    const timeoutMs = this.#use.timeoutMs ?? this.#shape.timeoutMs ?? TIMEOUT_MS;
    const facts = {
      options,
      requestId: "test-1",
      from,
      to,
      client,
      clusters: Object.fromEntries(clusters.map((name) => [name, name])),
    };
    const whole: Job = { ...job, id: 1, facts, again: job.stage === "request" };
    const late = (): JobResult => ({
      id: 1,
      ok: false,
      kind: "timeout",
      what: `it took longer than ${timeoutMs} ms`,
    });
    const run = () => runJob(this.#filter, whole, this.#states, () => systemClock.wallMs());
    let running: Promise<JobResult>;
    try {
      // vm ends what does not return, which is what the proxy's watchdog does.
      running = vm.runInNewContext("run()", { run }, { timeout: timeoutMs }) as Promise<JobResult>;
    } catch {
      return late();
    }
    const patience = new AbortController();
    const result = await Promise.race([
      running,
      systemClock.sleep(timeoutMs, patience.signal).then(late, late),
    ]);
    patience.abort();
    return result;
  }

  #tooLarge(status: number): TestResult {
    const what = `the body is larger than ${this.#shape.bodyBytesMax} bytes`;
    this.#failures.push({ kind: "body_too_large", what });
    return this.#result(new Response(what, { status }), undefined);
  }

  #result(response: Response, forwarded: Request | undefined): TestResult {
    return {
      response,
      forwarded,
      routedTo: this.#routedTo,
      delayMs: this.#delayMs,
      counts: this.#counts,
      notes: this.#notes,
      failures: this.#failures,
    };
  }
}

function linesOf(headers: Headers): string {
  return [...headers].map(([name, value]) => `${name}: ${value}\r\n`).join("");
}

function withLine(lines: string, name: string, value: string): string {
  const kept = lines.split(/(?<=\r\n)/).filter((line) => !line.startsWith(`${name}:`));
  return `${kept.join("")}${name}: ${value}\r\n`;
}

/** Fetch refuses some names that the proxy writes itself; a test need not see them. */
function headersOf(lines: string): Headers {
  const headers = new Headers();
  for (const line of lines.split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0 && !(isKeptName(line.slice(0, colon)) && line.startsWith("content-length"))) {
      headers.append(line.slice(0, colon), line.slice(colon + 1).trim());
    }
  }
  return headers;
}
