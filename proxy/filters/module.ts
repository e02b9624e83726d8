import { createRequire } from "node:module";
import vm from "node:vm";
import type { Filter } from "./filter.ts";

/** What the proxy must know of a filter before it runs. */
export interface FilterShape {
  readonly name: string;
  /** Heads only, and no async function: it may run inside the proxy. */
  readonly inline: boolean;
  readonly onRequest: boolean;
  readonly onResponse: boolean;
  readonly requestBody: boolean;
  readonly responseBody: boolean;
  readonly bodyBytesMax: number;
  readonly onError: "open" | "closed";
  /** Undefined: a default by where it runs. */
  readonly timeoutMs: number | undefined;
}

/** Modules of Node that compute and touch nothing outside; filters are confined against accidents, not against malice. */
const MODULES_FOR_ALL = new Set([
  "assert",
  "buffer",
  "crypto",
  "events",
  "path",
  "punycode",
  "querystring",
  "stream",
  "string_decoder",
  "timers",
  "url",
  "util",
  "zlib",
]);

const nodeRequire = createRequire(import.meta.url);

/**
 * Runs a bundle (CommonJS, see cli/source/filters.ts) and returns its default export. `process`, `fetch` and modules
 * that reach outside are not there, except that a filter with a process of its own (`isolated`) may use the network.
 * @throws Error when it is no filter; and whatever its top level throws.
 */
export function evaluateFilter(source: string, file: string, isolated: boolean): Filter {
  const require = (name: string): unknown => {
    const plain = name.startsWith("node:") ? name.slice(5) : name;
    if (MODULES_FOR_ALL.has(plain) || MODULES_FOR_ALL.has(plain.split("/")[0]!))
      return nodeRequire(`node:${plain}`);
    const network = ["http", "https", "net", "tls", "dns"].includes(plain);
    if (network && isolated) return nodeRequire(`node:${plain}`);
    throw new Error(
      network
        ? `a filter that runs inside the proxy has no "${name}"; make it async or say \`isolated: true\``
        : `a filter has no "${name}"`,
    );
  };
  const run = vm.compileFunction(
    source,
    ["module", "exports", "require", "process", "global", ...(isolated ? [] : ["fetch"])],
    { filename: file },
  ) as (...given: unknown[]) => void;
  const module: { exports: { default?: unknown } } = { exports: {} };
  run(module, module.exports, require, { env: {}, versions: {}, platform: "filter" }, undefined, undefined);
  const filter = module.exports.default;
  if (typeof filter !== "object" || filter === null) {
    throw new Error("its default export is not a filter; write `export default defineFilter({ … })`");
  }
  return filter;
}

const KEYS = new Set(["name", "onRequest", "onResponse", "onError", "timeoutMs", "isolated", "body"]);
const BODY_KEYS = new Set(["request", "response", "bytesMax"]);
const BODY_BYTES_DEFAULT = 1_048_576;
const BODY_BYTES_MAX = 67_108_864;

/** @throws Error with what is wrong in a filter whose types were not checked. */
export function shapeOf(filter: Filter, file: string): FilterShape {
  for (const key of Object.keys(filter)) {
    if (!KEYS.has(key))
      throw new Error(`"${key}" is not a part of a filter; known are ${[...KEYS].join(", ")}`);
  }
  const { name, onError = "closed", timeoutMs, body } = filter;
  const hooks: Record<string, unknown> = { onRequest: filter.onRequest, onResponse: filter.onResponse };
  const isolated = filter.body === undefined && filter.isolated === true;
  if (name !== undefined && !/^[\w .-]{1,64}$/.test(name))
    throw new Error("`name` must be 1 to 64 word characters");
  for (const [key, hook] of Object.entries(hooks)) {
    if (hook !== undefined && typeof hook !== "function") throw new Error(`\`${key}\` must be a function`);
  }
  const onRequest = hooks["onRequest"] !== undefined;
  const onResponse = hooks["onResponse"] !== undefined;
  if (!onRequest && !onResponse) throw new Error("it has neither onRequest nor onResponse");
  if (onError !== "open" && onError !== "closed") throw new Error('`onError` must be "open" or "closed"');
  if (timeoutMs !== undefined && !(Number.isInteger(timeoutMs) && timeoutMs >= 1 && timeoutMs <= 60_000)) {
    throw new Error("`timeoutMs` must be a whole number from 1 to 60000");
  }
  if (body !== undefined) checkBody(body);
  const asynchronous = Object.values(hooks).some((hook) => hook?.constructor.name === "AsyncFunction");
  return {
    name: name ?? nameOf(file),
    inline: body === undefined && !isolated && !asynchronous,
    onRequest,
    onResponse,
    requestBody: onRequest && body?.request === true,
    responseBody: onResponse && body?.response === true,
    bodyBytesMax: body?.bytesMax ?? BODY_BYTES_DEFAULT,
    onError,
    timeoutMs,
  };
}

function checkBody(body: object): void {
  for (const [key, value] of Object.entries(body)) {
    if (!BODY_KEYS.has(key))
      throw new Error(`"body.${key}" is not known; known are ${[...BODY_KEYS].join(", ")}`);
    const fits =
      key === "bytesMax"
        ? Number.isInteger(value) && (value as number) > 0 && (value as number) <= BODY_BYTES_MAX
        : typeof value === "boolean" || value === undefined;
    if (!fits)
      throw new Error(`\`body.${key}\` has a value it cannot have; bytesMax is at most ${BODY_BYTES_MAX}`);
  }
}

/** `./filters/auth.ts` is `auth`. */
export function nameOf(file: string): string {
  const base = file.slice(file.lastIndexOf("/") + 1).replace(/\.[cm]?[jt]sx?$/, "");
  return base === "" ? "filter" : base.slice(0, 64);
}
