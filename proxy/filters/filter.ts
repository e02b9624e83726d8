/**
 * What a filter is written with: `import { defineFilter } from "gilliam/filter"`. Nothing here depends on the rest of
 * the proxy, because it is bundled into every filter.
 */

/** Field names and values, after the Fetch standard's `Headers`; names are compared without case. */
export interface FilterHeaders extends Iterable<[name: string, value: string]> {
  /** All values of the name joined by `, `; null when it is not there. */
  get(name: string): string | null;
  has(name: string): boolean;
  /** Replaces every line of that name. @throws TypeError for names and values that HTTP does not have or the proxy keeps to itself. */
  set(name: string, value: string): void;
  /** Adds a line. @throws TypeError as `set` does. */
  append(name: string, value: string): void;
  /** @throws TypeError for names that the proxy keeps to itself. */
  delete(name: string): void;
}

/** The head of a request; reading it costs what is read. */
export interface FilterRequest {
  readonly method: string;
  /** Path and query; may be set, and is checked. */
  target: string;
  /** The target without its query. */
  readonly path: string;
  readonly query: URLSearchParams;
  /** As the client wrote it, in lower case, with the port if there was one. */
  readonly host: string;
  readonly headers: FilterHeaders;
}

/** The head of a response. */
export interface FilterResponse {
  /** 200 to 599; may be set, if content may still follow. */
  status: number;
  readonly headers: FilterHeaders;
}

/** An answer without asking the service. */
export interface FilterAnswer {
  /** 200 to 599. */
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
}

export interface FilterContext<Options = unknown> {
  /** What the manifest says for this use. */
  readonly options: Options;
  readonly requestId: string;
  /** Calling service, like `web.shop`, or `edge`. */
  readonly from: string;
  /** The service it goes to, like `api.shop`. */
  readonly to: string;
  /** Address of the client's connection. */
  readonly client: string;
  /** For what onRequest wants to tell onResponse of the same request. */
  readonly state: Map<string, unknown>;
  /** Milliseconds since 1970. */
  now(): number;
  /** Sends the request to another service, of those that `clusters:` of this use names. @throws TypeError for others. */
  routeTo(name: string): void;
  /** Holds the request (or the response) back, at most 10,000 ms in all. */
  delay(ms: number): void;
  /** Adds 1 to `gilliam_filter_events_total{name, label}`; 100 different pairs a filter, beyond them label `other`. */
  count(name: string, label?: string): void;
  /** Adds `key: value` to the access log line of the request; 8 of them, 256 characters each. */
  annotate(key: string, value: string): void;
}

type Maybe<T> = T | undefined | void | Promise<T | undefined | void>;

interface Common {
  /** For metrics; default: the file's name. */
  readonly name?: string;
  /** What becomes of a request when this throws, takes too long or breaks a rule. @default "closed" */
  readonly onError?: "open" | "closed";
  /** Longest run in milliseconds. @default 50 where it runs inline, else 1,000 */
  readonly timeoutMs?: number;
}

/** Sees heads only. Runs inside the proxy, unless a function is async or `isolated` is true. */
export interface HeadFilter<Options> extends Common {
  readonly body?: undefined;
  /** Runs in a process of its own, whatever its functions look like. @default false */
  readonly isolated?: boolean;
  onRequest?(request: FilterRequest, context: FilterContext<Options>): Maybe<FilterAnswer>;
  onResponse?(response: FilterResponse, context: FilterContext<Options>): Maybe<FilterAnswer>;
}

/** Which bodies a filter wants whole, and how large they may be. */
export interface BodyOptions {
  readonly request?: boolean;
  readonly response?: boolean;
  /** Bodies above this are a failure of the kind `body_too_large`. @default 1,048,576 */
  readonly bytesMax?: number;
}

/** Sees messages as the Fetch standard has them. Runs in a process of its own. */
export interface BodyFilter<Options> extends Common {
  readonly body: BodyOptions;
  /** A Request goes on in place of the one that came, a Response is the answer. */
  onRequest?(request: Request, context: FilterContext<Options>): Maybe<Request | Response>;
  /** A Response goes out in place of the one that came. */
  onResponse?(response: Response, context: FilterContext<Options>): Maybe<Response>;
}

export type Filter<Options = unknown> = HeadFilter<Options> | BodyFilter<Options>;

/** Says what the default export of a filter's module is; returns it as it is. */
export function defineFilter<Options = unknown>(filter: HeadFilter<Options>): HeadFilter<Options>;
export function defineFilter<Options = unknown>(filter: BodyFilter<Options>): BodyFilter<Options>;
export function defineFilter<Options>(filter: Filter<Options>): Filter<Options> {
  return filter;
}
