import * as fc from "fast-check";
import { stringify } from "yaml";
import { describe, expect, test } from "vitest";
import { parseManifest } from "./manifest-parse.ts";
import type { ManifestContext } from "./manifest-check.ts";

const CONTEXT: ManifestContext = {
  gears: new Map([["postgres", { version: "18.3", volume: "required" }]]),
  exportsOf: new Map([["bank", ["ledger"]]]),
  routeOwner: ({ host }) => (host === "taken.localhost" ? "other" : undefined),
  volumeOwner: (volume) => (volume === "taken" ? "db.other" : undefined),
};

const SHOP = `# gilliam.yaml
formation: shop
processes:
  web:
    source: ./web
    command: node server.js
    port: 8080
    instances: 2
    health: /healthz
    resources: { cpu: 0.5, memory: 256MiB }
    environment: { LOG_LEVEL: info, VERSION: 1.10, DEBUG: false }
    edge: [shop.localhost, shop.localhost/admin]
    dependencies:
      api: 7001
      db: 5432
      ledger.bank: { port: 7002, timeout: 5s, retries: 0 }
  api:
    source: ./api
    port: 8081
    dependencies: { db: 5432 }
auxiliary:
  db: { gear: postgres, volume: shop-db }
exports: [api]
`;

function problemsOf(text: string, context: ManifestContext = CONTEXT): string[] {
  const parsed = parseManifest(text, "gilliam.yaml", context);
  return parsed.ok ? [] : parsed.problems;
}

/** A manifest of one process \`web\` with \`api\` beside it; \`lines\` go into \`web\`. */
function web(...lines: string[]): string {
  return [
    "formation: shop",
    "processes:",
    "  web:",
    ...lines.map((line) => `    ${line}`),
    "  api: { source: ./api, port: 8081 }",
  ].join("\n");
}

test("the manifest of the design is read whole", () => {
  const parsed = parseManifest(SHOP, "gilliam.yaml", CONTEXT);
  expect(parsed).toMatchObject({ ok: true, warnings: [] });
  if (!parsed.ok) return;
  expect(parsed.manifest.processes["web"]).toMatchObject({
    port: 8080,
    dependencies: { api: 7001, db: 5432 },
  });
  expect(parsed.manifest.exports).toEqual(["api"]);
});

test("a variable is the text that was written", () => {
  const parsed = parseManifest(SHOP, "gilliam.yaml", CONTEXT);
  expect(parsed.ok && parsed.manifest.processes["web"]?.environment).toEqual({
    LOG_LEVEL: "info",
    VERSION: "1.10",
    DEBUG: "false",
  });
});

test("groups with every line commented out count as absent", () => {
  expect(problemsOf("formation: a\nprocesses:\n  w: { source: . }\n  # x\nauxiliary:\nexports:\n")).toEqual(
    [],
  );
});

test("a value that looks like a variable to fill in is a warning, not a problem", () => {
  const parsed = parseManifest(web("source: ./web", 'environment: { A: "${HOME}/x" }'), "gilliam.yaml");
  expect(parsed.ok && parsed.warnings).toEqual([
    "gilliam.yaml:5:23 processes.web.environment.A: holds `${…}`, which is passed on as it is: nothing is filled in here",
  ]);
});

test.for([
  {
    text: web("source: ./web", "port: 70000"),
    problem: "gilliam.yaml:5:11 processes.web.port 70000: must be a port: a whole number from 1 to 65535",
  },
  {
    text: web("source: ./web", "dependancies: { api: 7001 }"),
    problem:
      "gilliam.yaml:5:5 processes.web.dependancies: is not a key here (did you mean `dependencies`?); allowed are",
  },
  {
    text: web("source: ./web", "dependencies: { aip: 7001 }"),
    problem:
      "gilliam.yaml:5:21 processes.web.dependencies.aip: there is no service `aip` (did you mean `api`?); known are api, web, ledger.bank",
  },
  {
    text: web("source: ./web", "dependencies: { leger.bank: 7001 }"),
    problem:
      "formation `bank` does not export `leger` (did you mean `ledger`?); it exports ledger; add it to `exports:` there",
  },
  {
    text: web("source: ./web", "dependencies: { ledger.bnak: 7001 }"),
    problem:
      "there is no formation `bnak` (did you mean `bank`?); known are bank; deploy it first, or say `optional: true`",
  },
  {
    text: web("source: ./web", "dependencies: { api: { prot: 1 } }"),
    problem: "gilliam.yaml:5:21 processes.web.dependencies.api.port: is missing; it must be a port",
  },
  {
    text: web("source: ./web", "dependencies: { api: '7001' }"),
    problem:
      'processes.web.dependencies.api "7001": must be a local port, like 7001, or a mapping with `port`',
  },
  {
    text: web("source: ./web", "port: 7001", "dependencies: { api: 7001 }"),
    problem:
      "gilliam.yaml:6:26 processes.web.dependencies.api 7001: the process listens there itself (`port`)",
  },
  {
    text: web("source: ./web", "dependencies: { api: 7001, ledger.bank: { port: 7001 } }"),
    problem: "processes.web.dependencies.ledger.bank.port 7001: `api` has this local port already",
  },
  {
    text: web("source: ./web", "dependencies: { web: 7001 }"),
    problem: "processes.web.dependencies.web: a service cannot depend on itself",
  },
  {
    text: web("source: ./web", "environment: { A: [1], B: { c: d } }"),
    problem: 'processes.web.environment.B: must be a text, a number or a boolean; write "" for an empty text',
  },
  {
    text: web("source: ./web", "environment: { API_URL: x }", "dependencies: { api: 7001 }"),
    problem: "processes.web.environment.API_URL: is set by the dependency `api`; remove this line",
  },
  { text: web("source: ./web", "environment: { PORT: 1 }"), problem: "PORT: is set by Gilliam" },
  {
    text: web("source: ./web", "environment: { 'A$B': 1 }"),
    problem: "this name must be letters, digits and underscores",
  },
  {
    text: web("source: ./web", "image: x"),
    problem: "processes.web.image: `source` is given too; keep one of the two",
  },
  {
    text: web("port: 80"),
    problem: "gilliam.yaml:3:3 processes.web: needs `source`, a folder to build, or `image`",
  },
  { text: web("source: /web"), problem: "must be a folder relative to this file, like ./web" },
  { text: web("source: ./web", "health: /x"), problem: "a health check needs `port`" },
  { text: web("source: ./web", "edge: [a.localhost]"), problem: "a public host name needs `port`" },
  {
    text: web("source: ./web", "port: 1", "edge: [A:80]"),
    problem: 'processes.web.edge.0 "A:80": must be a public host name',
  },
  {
    text: web("source: ./web", "port: 1", "edge: [taken.localhost]"),
    problem: "formation `other` serves this host and path already",
  },
  {
    text: web("source: ./web", "stop: { signal: KILL }"),
    problem: 'stop.signal "KILL": must be one of SIGTERM, SIGINT, SIGQUIT',
  },
  {
    text: web("source: ./web", "stop: { grace: 10 }"),
    problem: 'stop.grace 10: must be a duration like "250ms"',
  },
  {
    text: web("source: ./web", "instances: 1.5"),
    problem: "instances 1.5: must be a whole number from 0 to 1000",
  },
  {
    text: web("source: ./web", "resources: { memory: 0MiB }"),
    problem: 'resources.memory "0MiB": must be a size',
  },
  { text: "formation: Shop", problem: 'gilliam.yaml:1:12 formation "Shop": must be lower-case letters' },
  {
    text: "processes: { web: { source: . } }",
    problem: "gilliam.yaml:1:1 formation: is missing; it must be a name",
  },
  { text: "formation: a", problem: "gilliam.yaml:1:1 has no services; add one under `processes`" },
  { text: "[]", problem: "gilliam.yaml:1:1 must be a mapping with `formation` and `processes`" },
  { text: "", problem: "gilliam.yaml:1:1 must be a mapping with `formation` and `processes`" },
  {
    text: "formation: a\nprocesses: {__proto__: {}}",
    problem: "gilliam.yaml:2:13 `__proto__` is no name",
  },
])("says: $problem", ({ text, problem }) => {
  expect(problemsOf(text).join("\n")).toContain(problem);
});

test.for([
  {
    gear: "{ gear: postgress, volume: v }",
    problem: 'gear "postgress": is not a gear (did you mean `postgres`?); known are postgres',
  },
  {
    gear: "{ gear: postgres }",
    problem: "auxiliary.db: gear postgres keeps its data in a volume; add `volume:`",
  },
  { gear: "{ gear: postgres, volume: taken }", problem: "`db.other` uses this volume" },
  { gear: "{ gear: postgres, volume: v, version: 17 }", problem: "gear postgres has version 18.3 only" },
  {
    gear: "{ gear: postgres, volume: v, instances: 2 }",
    problem: "must be 0 or 1: two copies cannot share one volume",
  },
  { gear: "{ volume: v }", problem: "auxiliary.db.gear: is missing; it must be a name" },
])("gears: $problem", ({ gear, problem }) => {
  expect(problemsOf(`formation: a\nauxiliary:\n  db: ${gear}\n`).join("\n")).toContain(problem);
});

test("a version may be shorter than the gear's", () => {
  expect(problemsOf("formation: a\nauxiliary:\n  db: { gear: postgres, volume: v, version: 18 }")).toEqual(
    [],
  );
});

describe("across services", () => {
  const three = (a: string, b: string, c: string) =>
    `formation: s\nprocesses:\n  a: { source: ., port: 1, ${a} }\n  b: { source: ., port: 1, ${b} }\n  c: { source: ., port: 1, ${c} }\n`;

  test.for([
    [
      three("dependencies: {b: 9}", "dependencies: {c: 9}", "dependencies: {a: 9}"),
      "gilliam.yaml:5:43 processes.c.dependencies.a: closes a cycle: a → b → c → a; remove one",
    ],
    [
      three("dependencies: {b: 9}", "dependencies: {a.s: 9}", ""),
      "processes.b.dependencies.a.s: closes a cycle: a → b → a",
    ],
    [
      three("edge: [h.x]", "edge: [h.x/]", ""),
      'processes.b.edge.0 "h.x/": `a` has this host and path already',
    ],
    [three("edge: [h.x, h.x]", "", ""), "stands twice here"],
    [
      three(
        "dependencies: {c: {port: 9, protocol: grpc}}",
        "dependencies: {c: {port: 9, protocol: http2}}",
        "",
      ),
      "`c` speaks grpc; use that, or say `protocol: http2` at `c`",
    ],
    [
      three("protocol: grpc, proxyProtocol: v1", "", ""),
      "goes with http and tcp only: a connection of grpc is shared by many clients",
    ],
    [
      three("proxyProtocol: v1", "dependencies: {a: {port: 9, protocol: http2}}", ""),
      "processes.a.proxyProtocol: goes with http and tcp only: a connection of http2",
    ],
    [
      three('dependencies: {m: {port: 9, protocol: grpc, address: "m.x:1", proxyProtocol: v2}}', "", ""),
      "processes.a.dependencies.m.proxyProtocol: goes with http and tcp only",
    ],
    [
      three("dependencies: {b: {port: 9, proxyProtocol: v2}}", "", ""),
      "processes.a.dependencies.b.proxyProtocol: goes with `address` only; a service says itself",
    ],
    [three("proxyProtocol: v3", "", ""), "must be one of v1, v2"],
    [
      three("protocol: tcp, edge: [h.x]", "", ""),
      "the process speaks tcp, and a public host name needs http",
    ],
    [
      `${three("", "", "")}auxiliary: { a: { gear: postgres, volume: v } }`,
      "gilliam.yaml:6:14 auxiliary.a: there is a process `a` too",
    ],
    [
      `${three("", "", "")}exports: [aa, b, b]`,
      'exports.0 "aa": there is no service `aa` (did you mean `a`?)',
    ],
    [`${three("", "", "")}exports: [b, b]`, 'exports.1 "b": is exported twice'],
    [
      "formation: s\nauxiliary:\n  a: { gear: postgres, volume: v }\n  b: { gear: postgres, volume: v }",
      'auxiliary.b.volume "v": `a` uses this volume',
    ],
  ] as const)("%#: $1", ([text, problem]) => {
    expect(problemsOf(text).join("\n")).toContain(problem);
  });

  test.for([
    three("dependencies: {b: 9}", "dependencies: {a: {port: 9, optional: true}}", ""),
    three("edge: [h.x]", "edge: [h.x/b]", ""),
    three("dependencies: {c: 9}", "dependencies: {c: {port: 9, protocol: tcp}}", ""),
    three("dependencies: {x.nowhere: {port: 9, optional: true}}", "", ""),
    three("dependencies: {mail: {port: 9, address: 'mail.example.com:25'}}", "", ""),
  ])("is allowed: %s", (text) => {
    expect(problemsOf(text)).toEqual([]);
  });

  test("a long chain of services needs no deep stack", () => {
    const services = Array.from(
      { length: 500 },
      (_, index) => `  s${index}: { source: ., port: 1, dependencies: { s${(index + 1) % 500}: 9 } }`,
    );
    expect(problemsOf(`formation: a\nprocesses:\n${services.join("\n")}`)).toHaveLength(1);
  });
});

test("all problems come at once, in the order of the lines", () => {
  const text = web("sourec: ./web", "port: 0", "dependencies: { nope: 7001 }", "environment: { PORT: 1 }");
  const lines = problemsOf(text).map((problem) => Number(problem.split(":")[1]));
  expect(lines.length).toBeGreaterThanOrEqual(5);
  expect(lines).toEqual([...lines].sort((a, b) => a - b));
});

test("a value of a variable is never repeated in a problem", () => {
  expect(
    problemsOf(web("source: ./web", "environment: { TOKEN: [hunter2], PORT: hunter2 }")).join("\n"),
  ).not.toContain("hunter2");
});

describe("what is not YAML", () => {
  test.for([
    ["formation: a\nformation: b", "gilliam.yaml:2:1 this key stands twice in the same mapping; keep one"],
    ["formation: a\n\tprocesses: b", "gilliam.yaml:2:1"],
    ["formation: [a", "gilliam.yaml:1:"],
    ["a: 1\n---\nb: 2", "gilliam.yaml:2:1 a second document begins here"],
    ["a: *b", "gilliam.yaml:1:4"],
    ["a: !!js/function 'x'", "gilliam.yaml:1:4"],
    ["[".repeat(100_000), "gilliam.yaml:1:1 values are nested too deeply"],
    [`a: ${"- ".repeat(50_000)}`, "gilliam.yaml:1:"],
    ["x".repeat(1_000_001), "gilliam.yaml:1:1 the file has 1000001 characters"],
    [
      [
        "a0: &a0 [x]",
        ...Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i}, `.repeat(9)}]`),
      ].join("\n"),
      "gilliam.yaml:1:1 aliases (`*name`) repeat too much",
    ],
  ] as const)("%#: $1", ([text, start]) => {
    expect(problemsOf(text)[0]).toContain(start);
  });
});

const LINE = /^gilliam\.yaml:[1-9]\d*:[1-9]\d* [^\n]+$/;

function expectSound(text: string): void {
  const parsed = parseManifest(text, "gilliam.yaml", CONTEXT);
  if (parsed.ok) return;
  expect(parsed.problems.length).toBeGreaterThan(0);
  for (const problem of parsed.problems) expect(problem).toMatch(LINE);
}

test("no text makes it throw, and every problem has file, line and column", () => {
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 300 }), expectSound), { numRuns: 300 });
});

test("no mutation of a good manifest makes it throw", () => {
  const piece = fc.oneof(
    fc.string({ maxLength: 6 }),
    fc.constantFrom(
      "\n",
      ":",
      "- ",
      "{",
      "}",
      "[",
      "]",
      "&a ",
      "*a",
      "|",
      ">",
      "? ",
      "!!map ",
      "#",
      "\t",
      "'",
      '"',
      "null",
      "~",
      "-1",
      "1e999",
      "0x1F",
      ".inf",
      "__proto__",
      "constructor",
      "<<: *a",
    ),
  );
  const edit = fc.record({ at: fc.nat(SHOP.length), cut: fc.nat(12), piece });
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
      expectSound(
        edits.reduce((text, { at, cut, piece }) => text.slice(0, at) + piece + text.slice(at + cut), SHOP),
      );
    }),
    { numRuns: 1_000 },
  );
});

test("no shape of values makes it throw", () => {
  const key = fc.constantFrom(
    "formation",
    "processes",
    "web",
    "api",
    "auxiliary",
    "exports",
    "dependencies",
    "environment",
    "edge",
    "port",
    "resources",
    "stop",
    "gear",
    "volume",
    "__proto__",
    "toString",
  );
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 5 },
      fc.constantFrom("web", "a.b", "", 1, -1, 1.5, true, null),
      fc.array(tie("value"), { maxLength: 3 }),
      fc.dictionary(key, tie("value"), { maxKeys: 4 }),
    ),
  }));
  fc.assert(
    fc.property(value, (shape) => expectSound(stringify(shape))),
    { numRuns: 500 },
  );
});

const nameOf = fc.stringMatching(/^[a-z][a-z0-9]{0,6}$/).filter((name) => name !== "shop");
const good = fc
  .uniqueArray(nameOf, { minLength: 1, maxLength: 6 })
  .chain((names) =>
    fc.tuple(
      ...names.map((name, index) =>
        fc
          .record(
            {
              source: fc.constant("./x"),
              port: fc.integer({ min: 1, max: 999 }),
              instances: fc.integer({ min: 0, max: 9 }),
              environment: fc.dictionary(
                fc.stringMatching(/^X[A-Z]{1,4}$/),
                fc.oneof(fc.string(), fc.integer().map(String)),
              ),
              dependencies: fc.constant(
                Object.fromEntries(names.slice(0, index).map((other, at) => [other, 1000 + at])),
              ),
            },
            { requiredKeys: ["source", "port"] },
          )
          .map((spec) => [name, spec] as const),
      ),
    ),
  )
  .map((processes) => ({
    formation: "shop",
    processes: Object.fromEntries(processes),
    auxiliary: {},
    exports: [],
  }));

test("what is written is what is read", () => {
  fc.assert(
    fc.property(good, (manifest) => {
      const parsed = parseManifest(stringify(manifest), "gilliam.yaml", CONTEXT);
      expect(parsed.ok ? parsed.manifest : parsed.problems).toEqual(manifest);
    }),
    { numRuns: 200 },
  );
});
