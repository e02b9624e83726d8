import { z } from "zod";
import { parseDurationMs } from "../base/units.ts";
import { FilterMapping, Filters } from "./manifest-filter.ts";

/**
 * An entry of `edge:` as a person writes it when a host name is not enough. resolve-route.ts turns it into what a proxy
 * is told. Whatever a proxy would have to refuse later is refused here.
 */

/** A duration of at most `hoursMax`, kept as it was written. */
export const duration = (hoursMax: number) => {
  const rule = `must be a duration like "250ms", "30s" or "5m", at most ${hoursMax}h`;
  return z
    .string({ error: rule })
    .regex(/^\d{1,9}(?:\.\d{1,3})?(?:ms|s|m|h)$/, rule)
    .refine((text) => (parseDurationMs(text) ?? 0) <= hoursMax * 3_600_000, rule);
};

/** Up to 63 letters, digits and dashes a label; `*.` before it for one label more. */
const HOST = String.raw`(?:\*\.)?[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?){0,20}`;
/** Characters of a path; `%` only with two hexadecimal digits behind it. */
const PATH = String.raw`(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2}){0,200}`;

const EDGE_RULE =
  'must be a public host name, lower case, with a path if wanted, like "shop.localhost" or "shop.localhost/api"';
/** `host`, `*.host` or either with a path. */
const EDGE_PATTERN = new RegExp(`^${HOST}(?:/${PATH})?$`);

const HOST_RULE = 'must be a public host name, lower case, like "shop.localhost" or "*.shop.localhost"';
const PATH_RULE =
  'must be a path like "/api", without dot segments, empty segments and encoded plain characters';

/** A path that is read in one way only: no `//`, no dot segments, and nothing encoded that need not be. */
function isPlainPath(path: string): boolean {
  return (
    !/\/\/|%(?:2[dDeE]|3\d|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])/.test(path) &&
    !/\/\.{1,2}(?:\/|;|$)/.test(path)
  );
}

/** `shop.localhost/api/` is host `shop.localhost` and path `/api`. */
export function parseEdge(text: string): { host: string; path: string } {
  const slash = text.indexOf("/");
  if (slash < 0) return { host: text, path: "/" };
  return { host: text.slice(0, slash), path: withoutLastSlash(text.slice(slash)) };
}

export function withoutLastSlash(path: string): string {
  const cut = path.replace(/\/+$/, "");
  return cut === "" ? "/" : cut;
}

export const EdgeText = z
  .string({ error: EDGE_RULE })
  .regex(EDGE_PATTERN, EDGE_RULE)
  .refine((text) => isPlainPath(parseEdge(text).path), EDGE_RULE);

const path = z
  .string({ error: PATH_RULE })
  .regex(new RegExp(`^/${PATH}$`), PATH_RULE)
  .refine(isPlainPath, PATH_RULE);

const PATTERN_RULE =
  'must be a path with `:name` for a segment and perhaps `/*name` for the rest at its end, each name once, at most 16 segments, like "/users/:id"';
const CAPTURE = /^[a-z][A-Za-z0-9_]{0,31}$/;

function isPattern(text: string): boolean {
  const segments = text.slice(1).split("/");
  const names = capturesOf(text);
  return (
    segments.length <= 16 &&
    new Set(names).size === names.length &&
    names.every((name) => CAPTURE.test(name)) &&
    segments.every((segment, index) =>
      segment.startsWith(":") || segment.startsWith("*")
        ? segment.startsWith(":") || index === segments.length - 1
        : !/[:*]/.test(segment),
    )
  );
}

/** The names in `/users/:id/*rest`: `id`, `rest`. */
export function capturesOf(pattern: string): string[] {
  return [...pattern.matchAll(/\/[:*]([^/]*)/g)].map((match) => match[1] ?? "");
}

const ONE_OF = "must be a path, like /api, or a mapping with one of `prefix`, `exact` and `pattern`";
const PathMapping = z
  .strictObject(
    {
      prefix: path.optional().describe("The path itself and whatever is below it."),
      exact: path.optional().describe("This path only."),
      pattern: path.refine(isPattern, PATTERN_RULE).optional().describe("Like /users/:id or /files/*rest."),
    },
    { error: ONE_OF },
  )
  .refine((mapping) => Object.values(mapping).filter((value) => value !== undefined).length === 1, ONE_OF);

const METHOD_RULE =
  "must be one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS or another method in capitals";
const methods = z
  .array(z.string({ error: METHOD_RULE }).regex(/^(?!CONNECT$|TRACE$)[A-Z][A-Z-]{0,31}$/, METHOD_RULE), {
    error: "must be a list of methods, like [GET, HEAD]",
  })
  .min(1, "must name at least one method")
  .refine((list) => new Set(list).size === list.length, "names a method twice");

/** Written by each hop for itself, or by Gilliam: they can be neither edited nor matched. */
const RESERVED =
  /^(?:host|connection|keep-alive|proxy-connection|proxy-authorization|proxy-authenticate|te|trailer|transfer-encoding|upgrade|content-length|http2-settings|expect|date|via|forwarded|x-real-ip|x-request-id|x-forwarded-.*|x-gilliam-.*)$/;
const HEADER_RULE =
  "must be a field name; Host, Connection and other names of one hop, framing, x-forwarded-* and x-gilliam-* belong to the proxy";
const headerName = z
  .string({ error: HEADER_RULE })
  .regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$/, HEADER_RULE)
  .refine((name) => !RESERVED.test(name.toLowerCase().replaceAll("_", "-")), HEADER_RULE);

const VALUE_RULE = "must be a text of at most 2048 printable ASCII characters on one line";
const headerValue = z.union(
  [z.string().regex(/^(?:[\x21-\x7e](?:[\x20-\x7e]{0,2046}[\x21-\x7e])?)?$/, VALUE_RULE), z.number()],
  { error: VALUE_RULE },
);

const CONDITION_RULE = "must be a text that is equal, or `true`: present";
const condition = z.union([headerValue, z.literal(true)], { error: CONDITION_RULE });
const few = (what: string) =>
  [(all: object) => Object.keys(all).length <= 32, `has more than 32 ${what}`] as const;

const HeaderEditsMapping = z.strictObject(
  {
    set: z
      .record(headerName, headerValue, { error: "must be a mapping of field names to values" })
      .refine(...few("fields"))
      .optional()
      .describe("These fields with these values, whatever was there."),
    add: z
      .record(headerName, headerValue, { error: "must be a mapping of field names to values" })
      .refine(...few("fields"))
      .optional()
      .describe("These lines beside what is there."),
    remove: z
      .array(headerName, { error: "must be a list of field names" })
      .refine(...few("fields"))
      .optional()
      .describe("These fields, if they are there."),
  },
  { error: "must be a mapping with `set`, `add` and `remove`" },
);

const REWRITE_RULE = 'must be a path like "/v2"; `{name}` stands for a segment of the pattern';
const rewrite = z
  .string({ error: REWRITE_RULE })
  .regex(
    /^\/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2}|\{[a-z][A-Za-z0-9_]{0,31}\}){0,500}$/,
    REWRITE_RULE,
  )
  .refine((text) => isPlainPath(text), REWRITE_RULE);

const REDIRECT_RULE =
  'must be a path or an http(s) URL, like "https://{host}{path}{query}" or "/new/{id}"; before the first / of a URL only {host} may stand';
const STATUS_RULE = "must be one of 301, 302, 303, 307, 308";
const REDIRECT_STATUSES = [301, 302, 303, 307, 308] as const;
const REDIRECT_PATTERN =
  /^(?:https?:\/\/(?:\{host\}|[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?)(?::\d{1,5})?)?(?:(?=\/|\{path\}|\{query\}|\?)(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2}|\{[a-z][A-Za-z0-9_]{0,31}\}){1,1000})?$/;
const redirectTo = z
  .string({ error: REDIRECT_RULE })
  .regex(REDIRECT_PATTERN, REDIRECT_RULE)
  .refine((text) => text !== "" && !text.startsWith("//"), REDIRECT_RULE);
const RedirectMapping = z.strictObject(
  {
    to: redirectTo,
    status: z
      .int({ error: STATUS_RULE })
      .refine((status) => REDIRECT_STATUSES.some((one) => one === status), STATUS_RULE)
      .optional()
      .describe("Default: 308."),
  },
  { error: "must be a URL, or a mapping with `to` and `status`" },
);

const ANSWER_RULE = "must be a whole number from 200 to 599";
const BODY_RULE = "must be a text of at most 65536 characters";
const RespondMapping = z.strictObject(
  {
    status: z
      .int({ error: ANSWER_RULE })
      .min(200, ANSWER_RULE)
      .max(599, ANSWER_RULE)
      .optional()
      .describe("Default: 200."),
    body: z.string({ error: BODY_RULE }).max(65_536, BODY_RULE).optional(),
    type: z
      .string({ error: VALUE_RULE })
      .regex(/^[\x21-\x7e](?:[\x20-\x7e]{0,200}[\x21-\x7e])?$/, "must be a media type, like text/plain")
      .optional()
      .describe("Of the body. Default: text/plain; charset=utf-8."),
  },
  { error: "must be a mapping like { status: 410, body: gone }" },
);

const PERCENT_RULE = "must be a number from 0 to 100";
const percent = z.number({ error: PERCENT_RULE }).min(0, PERCENT_RULE).max(100, PERCENT_RULE);

const COUNT_RULE = "must be a whole number from 1 to 1000000000";
const count = z.int({ error: COUNT_RULE }).min(1, COUNT_RULE).max(1_000_000_000, COUNT_RULE);

const KEY_RULE = "must be `address`, `service`, `route` or { header: NAME }";
const RateLimitMapping = z.strictObject(
  {
    requests: count.describe("How many."),
    per: duration(24).describe("In how long, like 1m."),
    burst: count.optional().describe("How many at once after a rest. Default: `requests`."),
    key: z
      .union(
        [
          z.enum(["route", "address", "service"], { error: KEY_RULE }),
          z.strictObject({ header: headerName }),
        ],
        {
          error: KEY_RULE,
        },
      )
      .optional()
      .describe("Whose account. Default: address; for dependencies: service."),
  },
  { error: "must be a mapping like { requests: 100, per: 1m }" },
);

const ERROR_RULE = "must be a whole number from 400 to 599";
const errorStatus = z.int({ error: ERROR_RULE }).min(400, ERROR_RULE).max(599, ERROR_RULE);
const FAULT_RULE = "must be a mapping with `delay` or `abort` or both";
const FaultMapping = z
  .strictObject(
    {
      delay: duration(1).optional().describe("Requests wait this long."),
      abort: errorStatus.optional().describe("Then they are answered with this status."),
      percent: percent.optional().describe("Of the requests. Default: 100."),
      header: headerName.optional().describe("Only requests with this field."),
    },
    { error: FAULT_RULE },
  )
  .refine(({ delay, abort }) => delay !== undefined || abort !== undefined, FAULT_RULE);

const MAINTENANCE_RULE = "must be `true`, or a mapping with `retryAfter`, `status`, `body` and `type`";
const MaintenanceMapping = z.strictObject(
  {
    status: errorStatus.optional().describe("Default: 503."),
    retryAfter: duration(24).optional().describe("Told to clients. Default: 1m."),
    body: RespondMapping.shape.body.describe("Of the page."),
    type: RespondMapping.shape.type,
  },
  { error: MAINTENANCE_RULE },
);

/** What may be done to the calls of a declared dependency as well as to public requests. */
export const callActions = {
  filters: Filters.optional(),
  rateLimit: RateLimitMapping.optional().describe(
    "Beyond it: 429. Each worker of a proxy counts for itself.",
  ),
  fault: FaultMapping.optional().describe("Trouble on purpose, to see what callers make of it."),
  hold: duration(1).optional().describe("How long requests wait while no instance is ready. Default: 2s."),
  requestHeaders: HeaderEditsMapping.optional().describe("Changes to the fields of requests."),
  responseHeaders: HeaderEditsMapping.optional().describe("Changes to the fields of responses."),
};

const COMPRESS_RULE = "must be `true`, or a list of codings in order of preference, like [zstd, br, gzip]";

export const EdgeMapping = z
  .strictObject(
    {
      host: z
        .string({ error: HOST_RULE })
        .regex(new RegExp(`^${HOST}$`), HOST_RULE)
        .describe("A public host name; *.name for one label more."),
      path: z
        .union([path, PathMapping], { error: ONE_OF })
        .optional()
        .describe("A prefix, or { exact: … } or { pattern: … }. Default: /."),
      methods: methods.optional().describe("Only these methods."),
      headers: z
        .record(headerName, condition, { error: "must be a mapping of field names to values or `true`" })
        .refine(...few("headers"))
        .optional()
        .describe("Only requests with these fields."),
      query: z
        .record(z.string().min(1).max(128), condition, {
          error: "must be a mapping of parameters to values or `true`",
        })
        .refine(...few("parameters"))
        .optional()
        .describe("Only requests with these parameters."),
      rewrite: rewrite
        .optional()
        .describe(
          "Replaces the prefix, or the whole of an exact path or a pattern; {name} is a segment of it.",
        ),
      redirect: z
        .union([redirectTo, RedirectMapping], { error: "must be a URL, or a mapping with `to` and `status`" })
        .optional()
        .describe("Sends the client elsewhere; {host}, {path}, {query} and {name} are filled in."),
      respond: RespondMapping.optional().describe("An answer without asking the service."),
      maintenance: z
        .union([z.boolean({ error: MAINTENANCE_RULE }), MaintenanceMapping], { error: MAINTENANCE_RULE })
        .optional()
        .describe("Everybody is told to come back later."),
      compress: z
        .union(
          [
            z.boolean({ error: COMPRESS_RULE }),
            z
              .array(z.enum(["zstd", "br", "gzip"], { error: COMPRESS_RULE }), { error: COMPRESS_RULE })
              .min(1, COMPRESS_RULE)
              .refine((list) => new Set(list).size === list.length, "names a coding twice"),
          ],
          { error: COMPRESS_RULE },
        )
        .optional()
        .describe(
          "Responses of text are compressed. Not for pages that show a secret beside what a client sent (BREACH).",
        ),
      ...callActions,
    },
    { error: "must be a host name, or a mapping with `host`" },
  )
  .check((context) => {
    const { redirect, respond, rewrite, path } = context.value;
    const say = (key: string, message: string) =>
      context.issues.push({ code: "custom", path: [key], message, input: context.value });
    if (redirect !== undefined && respond !== undefined)
      say("respond", "`redirect` is given too; keep one of the two");
    if (rewrite !== undefined && (redirect ?? respond) !== undefined) {
      say("rewrite", "the request goes nowhere with `redirect` or `respond`; remove one of them");
    }
    const pattern = typeof path === "object" ? path.pattern : undefined;
    const known = pattern === undefined ? [] : capturesOf(pattern);
    for (const name of placeholdersOf(rewrite)) {
      if (!known.includes(name)) say("rewrite", unknownPlaceholder(name, known));
    }
    const target = typeof redirect === "object" ? redirect.to : redirect;
    for (const name of placeholdersOf(target)) {
      const all = [...known, "host", "path", "query"];
      if (!all.includes(name)) say("redirect", unknownPlaceholder(name, all));
    }
  });
export type EdgeMapping = z.infer<typeof EdgeMapping>;

function placeholdersOf(template: string | undefined): string[] {
  return [...(template ?? "").matchAll(/\{([^}]*)\}/g)].map((match) => match[1] ?? "");
}

function unknownPlaceholder(name: string, known: readonly string[]): string {
  const list =
    known.length === 0
      ? "only a pattern has names"
      : `known are ${known.map((one) => `{${one}}`).join(", ")}`;
  return `{${name}} is nothing here; ${list}`;
}

const keys = (schema: { readonly shape: object }) => Object.keys(schema.shape);
const NESTED: Readonly<Record<string, readonly string[]>> = {
  path: keys(PathMapping),
  redirect: keys(RedirectMapping),
  respond: keys(RespondMapping),
  rateLimit: keys(RateLimitMapping),
  key: ["header"],
  fault: keys(FaultMapping),
  maintenance: keys(MaintenanceMapping),
  requestHeaders: keys(HeaderEditsMapping),
  responseHeaders: keys(HeaderEditsMapping),
  filters: keys(FilterMapping),
};
const OWN = keys(EdgeMapping);

/** The keys allowed at a place below an entry of `edge:`, or below a dependency for what both have; for messages. */
export function routeKeysAt(key: PropertyKey | undefined): readonly string[] {
  return key === undefined ? OWN : (NESTED[String(key)] ?? OWN);
}
