import { describe, expect, test } from "vitest";
import { parseManifest } from "./manifest-parse.ts";
import { planRelease } from "./plan.ts";
import type { EdgeRoute } from "./release.ts";
import { resolveRelease } from "./resolve.ts";
import { routeId, sameRequests } from "./route.ts";

function manifest(edge: string, rest = ""): string {
  return `formation: shop
processes:
  web:
    image: web:1
    port: 80
    edge:
${edge.replaceAll(/^/gm, "      ")}
${rest}`;
}

function problems(edge: string, rest = ""): string[] {
  const parsed = parseManifest(manifest(edge, rest), "gilliam.yaml");
  return parsed.ok ? [] : parsed.problems;
}

function released(edge: string, rest = "", filters: Record<string, string> = {}) {
  const text = manifest(edge, rest);
  const parsed = parseManifest(text, "gilliam.yaml");
  if (!parsed.ok) throw new Error(parsed.problems.join("\n"));
  const resolved = resolveRelease({
    manifest: parsed.manifest,
    manifestText: text,
    sources: {},
    filters,
    gears: new Map(),
    number: 1,
    earlier: [],
    exportsOf: () => undefined,
  });
  if (!resolved.ok) throw new Error(resolved.problems.join("\n"));
  return resolved.content;
}

function routes(edge: string, rest = ""): EdgeRoute[] {
  return released(edge, rest).services["web"]!.edge;
}

test("an entry may say which requests it is for and what happens to them", () => {
  const edge = `- shop.localhost
- host: shop.localhost
  path: { pattern: "/users/:id" }
  methods: [GET, HEAD]
  headers: { X-Beta: 1, x-debug: true }
  query: { v: "2" }
  rewrite: /accounts/{id}
  requestHeaders: { set: { X-Tier: gold }, remove: [Cookie] }
- { host: shop.localhost, path: /old/, redirect: "https://{host}/new{query}" }
- { host: shop.localhost, path: { exact: /gone }, respond: { status: 410 } }`;
  expect(routes(edge)).toEqual([
    { host: "shop.localhost", path: "/" },
    {
      host: "shop.localhost",
      path: "/users/:id",
      match: {
        kind: "pattern",
        methods: ["GET", "HEAD"],
        headers: { "x-beta": "1", "x-debug": true },
        query: { v: "2" },
      },
      actions: {
        rewrite: "/accounts/{id}",
        requestHeaders: { set: { "x-tier": "gold" }, remove: ["cookie"] },
      },
    },
    {
      host: "shop.localhost",
      path: "/old",
      actions: { redirect: { status: 308, to: "https://{host}/new{query}" } },
    },
    {
      host: "shop.localhost",
      path: "/gone",
      match: { kind: "exact" },
      actions: { respond: { status: 410, type: "text/plain; charset=utf-8", body: "" } },
    },
  ]);
});

test("a dependency takes what makes sense between services", () => {
  const release = released(
    "- shop.localhost",
    "    dependencies: { api: { port: 7001, responseHeaders: { remove: [Server] } } }\n  api: { image: api:1, port: 81 }",
  );
  expect(release.services["web"]!.dependencies[0]?.actions).toEqual({
    responseHeaders: { remove: ["server"] },
  });
});

test("limits, faults, maintenance and balancing are given in people's units", () => {
  const edge = `- host: a.b
  rateLimit: { requests: 100, per: 1m, key: { header: X-Key } }
  fault: { delay: 1.5s, percent: 10, header: X-Fault }
  hold: 10s
- { host: a.b, path: /m, maintenance: { retryAfter: 5m, body: soon } }`;
  const rest = `    balancing: { hash: { header: X-User } }
    slowStart: 30s
    dependencies: { api: { port: 7001, balancing: ewma, rateLimit: { requests: 5, per: 1s, burst: 1 } } }
  api: { image: api:1, port: 81 }`;
  expect(routes(edge, rest).map(({ actions }) => actions)).toEqual([
    {
      rateLimit: { requests: 100, windowMs: 60_000, burst: 100, key: { header: "x-key" } },
      fault: { delayMs: 1500, percent: 10, header: "x-fault" },
      holdMs: 10_000,
    },
    { maintenance: { status: 503, retryAfterSeconds: 300, type: "text/plain; charset=utf-8", body: "soon" } },
  ]);
  const web = released(edge, rest).services["web"]!;
  expect(web.balancing).toEqual({
    balancing: "maglev",
    hash: { by: "header", name: "x-user" },
    slowStartMs: 30_000,
  });
  expect(web.dependencies[0]).toMatchObject({
    balancing: { balancing: "ewma" },
    actions: { rateLimit: { requests: 5, windowMs: 1000, burst: 1, key: "service" } },
  });
});

describe("what is refused, and where", () => {
  test.for([
    ["- { path: /x }", "7:9 processes.web.edge.0.host: is missing; it must be a public host name"],
    ["- { host: a.b, pth: /x }", "7:22 processes.web.edge.0.pth: is not a key here (did you mean `path`?)"],
    ["- { host: A.b }", '7:17 processes.web.edge.0.host "A.b": must be a public host name'],
    ["- { host: a.b, path: x }", 'processes.web.edge.0.path "x": must be a path'],
    ["- { host: a.b, path: /a/../b }", "without dot segments"],
    ["- { host: a.b, path: /a//b }", "empty segments"],
    ["- a.b/x//y", "must be a public host name"],
    ["- { host: a.b, path: /%61 }", "encoded plain characters"],
    [
      "- { host: a.b, path: { exact: /a, prefix: /b } }",
      "must be a path, like /api, or a mapping with one of",
    ],
    [
      "- { host: a.b, path: { regex: x } }",
      "processes.web.edge.0.path.regex: is not a key here; allowed are prefix, exact, pattern",
    ],
    ["- { host: a.b, path: { pattern: /*a/b } }", "must be a path with `:name`"],
    ["- { host: a.b, path: { pattern: /:a/:a } }", "each name once"],
    ["- { host: a.b, path: { pattern: /x:a } }", "must be a path with `:name`"],
    ["- { host: a.b, methods: [get] }", 'processes.web.edge.0.methods.0 "get": must be one of GET'],
    ["- { host: a.b, methods: [CONNECT] }", "must be one of GET"],
    [
      "- { host: a.b, headers: { Host: x } }",
      "processes.web.edge.0.headers.Host: this name must be a field name",
    ],
    ["- { host: a.b, requestHeaders: { set: { Transfer_Encoding: x } } }", "belong to the proxy"],
    ["- { host: a.b, requestHeaders: { add: { X-Gilliam-From: x } } }", "belong to the proxy"],
    ["- { host: a.b, responseHeaders: { remove: [Connection] } }", "belong to the proxy"],
    ['- { host: a.b, responseHeaders: { set: { a: "1\\r\\nb: 2" } } }', "printable ASCII"],
    ['- { host: a.b, rewrite: "//evil" }', "must be a path like"],
    ['- { host: a.b, rewrite: "/a b" }', "must be a path like"],
    [
      '- { host: a.b, rewrite: "/{id}" }',
      'processes.web.edge.0.rewrite "/{id}": {id} is nothing here; only a pattern has names',
    ],
    ['- { host: a.b, path: { pattern: "/:x" }, rewrite: "/{id}" }', "known are {x}"],
    ['- { host: a.b, redirect: "//evil.test" }', "must be a path or an http(s) URL"],
    [
      '- { host: a.b, path: { pattern: "/:x" }, redirect: "https://a.test{x}" }',
      "before the first / of a URL only {host}",
    ],
    ["- { host: a.b, redirect: { to: /x, status: 200 } }", "must be one of 301, 302, 303, 307, 308"],
    ["- { host: a.b, redirect: /x, respond: {} }", "`redirect` is given too"],
    ["- { host: a.b, redirect: /x, rewrite: /y }", "the request goes nowhere"],
    ["- { host: a.b, respond: { status: 99 } }", "must be a whole number from 200 to 599"],
    ['- { host: a.b, respond: { type: "a\\r\\nb" } }', "must be a media type"],
    ["- { host: a.b, rateLimit: { requests: 0, per: 1m } }", "must be a whole number from 1 to"],
    ["- { host: a.b, rateLimit: { requests: 1 } }", "rateLimit.per: is missing; it must be a duration"],
    [
      "- { host: a.b, rateLimit: { requests: 1, per: 1m, key: ip } }",
      "must be `address`, `service`, `route` or",
    ],
    ["- { host: a.b, fault: { percent: 10 } }", "with `delay` or `abort` or both"],
    ["- { host: a.b, fault: { abort: 200 } }", "from 400 to 599"],
    ["- { host: a.b, hold: 2h }", "at most 1h"],
    ["- { host: a.b, compress: [deflate] }", "must be `true`, or a list of codings"],
    ["- { host: a.b, compress: [gzip, gzip] }", "names a coding twice"],
    ["- { host: a.b, maintenance: soon }", "must be `true`, or a mapping"],
    ["- a.b\n- { host: a.b }", "processes.web.edge.1: stands twice here"],
    [
      '- { host: a.b, path: { pattern: "/:x" } }\n- { host: a.b, path: { pattern: "/:y" } }',
      "stands twice here",
    ],
    ["- { host: a.b, methods: [GET, HEAD] }\n- { host: a.b, methods: [POST, HEAD] }", "stands twice here"],
  ] as const)("%s", ([edge, problem]) => {
    expect(problems(edge).join("\n")).toContain(problem);
  });

  test("two services cannot have the same requests, but may share a path by method", () => {
    const other = (edge: string) => `  api: { image: api:1, port: 80, edge: [${edge}] }`;
    expect(problems("- a.b", other("{ host: a.b }")).join()).toContain(
      "`web` has this host and path already",
    );
    expect(problems("- a.b", other("{ host: a.b, methods: [POST] }"))).toEqual([]);
  });
});

test("routes differ when a condition more or less decides between them", () => {
  const at = (match?: object) => ({ host: "a.b", path: "/", ...(match === undefined ? {} : { match }) });
  expect(sameRequests(at(), at())).toBe(true);
  expect(sameRequests(at({ methods: ["GET"] }), at())).toBe(false);
  expect(sameRequests(at({ methods: ["GET"] }), at({ methods: ["POST"] }))).toBe(false);
  expect(sameRequests(at({ headers: { a: "1", b: true } }), at({ headers: { b: true, a: "1" } }))).toBe(true);
  expect(sameRequests(at({ headers: { a: "1" } }), at({ headers: { a: "2" } }))).toBe(false);
  expect(routeId(at({ kind: "exact", methods: ["POST", "GET"], query: { v: true } }))).toBe(
    "a.b/ (exact, GET,POST, ?v)",
  );
});

test("a plan shows what changes on a route", () => {
  const before = { ...released("- a.b"), createdAtMs: 0 };
  const after = released("- { host: a.b, methods: [GET], rewrite: /x }");
  expect(planRelease(before, after).changes[0]).toMatchObject({
    action: "reroute",
    differences: ["edge: + a.b (GET; rewrite to /x)", "edge: - a.b"],
  });
});

test("a plan names filters that changed, without their options", () => {
  const edge = (options: string) => `- { host: a.b, filters: [{ file: ./f.ts, options: ${options} }] }`;
  const digestOf = (digit: string) => ({ "./f.ts": `sha256:${digit.repeat(64)}` });
  const before = { ...released(edge("{ closed: false }"), "", digestOf("a")), createdAtMs: 0 };
  const differences = (options: string, digit: string) =>
    planRelease(before, released(edge(options), "", digestOf(digit))).changes[0]?.differences;
  expect(differences("{ closed: false }", "a")).toEqual([]);
  expect(differences("{ closed: true }", "a")).toEqual(["filter ./f.ts: other options"]);
  expect(differences("{ closed: false }", "b")).toEqual(["filter ./f.ts: another version"]);
});
