import { randomUUID } from "node:crypto";
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

/** Constant load on the shop, through the edge and, behind it, the local ports web → api → db. Records every request. */

export interface RecordedRequest {
  /** `whoami` ends in web; `list` and `order` go on to api and the database. Only `order` is not idempotent. */
  readonly kind: "whoami" | "list" | "order";
  /** `kept`: over a connection used before and after; `new`: over one of its own. */
  readonly connection: "kept" | "new";
  readonly startMs: number;
  readonly endMs: number;
  /** 0 when there was no answer. */
  readonly status: number;
  /** Why it failed, in the words of the answer or of the socket; empty otherwise. */
  readonly failure: string;
  /** Instance and release that answered: `shop-web-r1-abcde release 1`. */
  readonly servedBy: string;
  readonly orderKey: string | undefined;
}

export interface LoadOptions {
  readonly edgeUrl: string;
  readonly host: string;
  /** Requests under way at once, half of them over kept connections. */
  readonly workers: number;
  /** Pause of each worker between two requests, in milliseconds. */
  readonly pauseMs: number;
}

/** A request without an answer for this long has failed, in milliseconds. */
const TIMEOUT_MS = 20_000;
const KINDS = ["whoami", "list", "whoami", "order"] as const;

export class Load {
  readonly history: RecordedRequest[] = [];
  readonly #options: LoadOptions;
  readonly #agent = new http.Agent({ keepAlive: true });
  readonly #workers: Promise<void>[];
  #stopping = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#workers = Array.from({ length: options.workers }, (_, at) => this.#work(at));
  }

  /** Lets every request under way finish. */
  async stop(): Promise<RecordedRequest[]> {
    this.#stopping = true;
    await Promise.all(this.#workers);
    this.#agent.destroy();
    return this.history;
  }

  async #work(number: number): Promise<void> {
    const connection = number % 2 === 0 ? "kept" : "new";
    for (let turn = number; !this.#stopping; turn += 1) {
      const kind = KINDS[turn % KINDS.length] ?? "whoami";
      this.history.push(await this.#send(kind, connection));
      await sleep(this.#options.pauseMs);
    }
  }

  #send(kind: RecordedRequest["kind"], connection: RecordedRequest["connection"]): Promise<RecordedRequest> {
    const { edgeUrl, host } = this.#options;
    const orderKey = kind === "order" ? randomUUID() : undefined;
    const body =
      orderKey === undefined ? undefined : JSON.stringify({ key: orderKey, product: 1, quantity: 1 });
    const startMs = performance.now();
    return new Promise((resolve) => {
      const done = (status: number, failure: string, servedBy = "") =>
        resolve({ kind, connection, startMs, endMs: performance.now(), status, failure, servedBy, orderKey });
      const request = http.request(
        new URL(kind === "whoami" ? "/whoami" : "/orders", edgeUrl),
        {
          method: body === undefined ? "GET" : "POST",
          headers: { host, ...(body === undefined ? {} : { "content-type": "application/json" }) },
          agent: connection === "kept" ? this.#agent : false,
          timeout: TIMEOUT_MS,
        },
        (response) => {
          let text = "";
          response.setEncoding("utf8");
          response.on("data", (part: string) => (text += part));
          response.on("error", (error) => done(0, `answer broke off: ${error.message}`));
          response.on("end", () => {
            const status = response.statusCode ?? 0;
            const reason = response.headers["x-gilliam-reason"];
            const failure = status < 400 ? "" : `${status} ${String(reason ?? "")} ${text.slice(0, 300)}`;
            done(status, failure, String(response.headers["x-served-by"] ?? ""));
          });
        },
      );
      request.on("timeout", () => request.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)));
      request.on("error", (error) => done(0, error.message));
      request.end(body);
    });
  }
}

/** Sends `count` requests to /whoami, a few at once, and counts the answers by release; 0 counts failures. */
export async function countReleases(
  options: LoadOptions,
  count: number,
  headers: Record<string, string> = {},
): Promise<Map<number, number>> {
  const counts = new Map<number, number>();
  const agent = new http.Agent({ keepAlive: true, maxSockets: options.workers });
  let sent = 0;
  const work = async () => {
    while (sent < count) {
      sent += 1;
      const release = await releaseOf(options, agent, headers);
      counts.set(release, (counts.get(release) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: options.workers }, work));
  agent.destroy();
  return counts;
}

function releaseOf(
  { edgeUrl, host }: LoadOptions,
  agent: http.Agent,
  headers: Record<string, string>,
): Promise<number> {
  return new Promise((resolve) => {
    http
      .get(new URL("/whoami", edgeUrl), { agent, headers: { host, ...headers } }, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (part: string) => (text += part));
        response.on("end", () => {
          resolve(response.statusCode === 200 ? (JSON.parse(text) as { release: number }).release : 0);
        });
        response.on("error", () => resolve(0));
      })
      .on("error", () => resolve(0));
  });
}
