import { expect, test } from "vitest";
import { parseGear, type Gear } from "./gear.ts";
import { imageDigest } from "./image.ts";
import { parseManifest } from "./manifest-parse.ts";
import { planRelease } from "./plan.ts";
import { Release } from "./release.ts";
import { exportedServices, resolveRelease, type ReleaseContent, type ResolveInput } from "./resolve.ts";

const GEAR = parseGear(
  `{ name: postgres, version: "18.3", port: 5432, volume: required, command: sh start.sh, secrets: [password],
     environment: { DB: "{name}", PASSWORD: "{secret:password}" },
     url: "postgres://gilliam:{secret:password}@{host}:{port}/{name}" }`,
  "gear.yaml",
);
const GEARS = new Map<string, Gear>(GEAR.ok ? [["postgres", GEAR.gear]] : []);
const DIGEST = { a: `sha256:${"a".repeat(64)}`, b: `sha256:${"b".repeat(64)}` };

const SHOP = `
formation: shop
processes:
  web:
    source: ./web
    port: 8080
    instances: 2
    health: /healthz
    resources: { cpu: 0.5, memory: 256MiB }
    environment: { LOG_LEVEL: info, API_TOKEN: hunter2 }
    edge: [shop.localhost, shop.localhost/admin/]
    dependencies:
      api: { port: 7001, timeout: 5s, retries: 0 }
      db: 5432
      ledger.bank: 7002
      mail: { port: 2525, address: "mail.example.com:25" }
  api: { source: ./api, port: 8081, protocol: grpc, build: make, dependencies: { db: 5432 } }
  worker: { image: "worker:1", stop: { signal: SIGINT, grace: 1m } }
auxiliary:
  db: { gear: postgres, volume: shop-db }
exports: [db, api]
`;

function resolve(text: string, options: Partial<ResolveInput> = {}): ReleaseContent {
  const parsed = parseManifest(text, "gilliam.yaml");
  if (!parsed.ok) throw new Error(parsed.problems.join("\n"));
  const resolved = resolveRelease({
    manifest: parsed.manifest,
    manifestText: text,
    sources: { web: DIGEST.a, api: DIGEST.a },
    gears: GEARS,
    number: 1,
    earlier: [],
    exportsOf: (formation) =>
      formation === "bank" ? [{ name: "ledger", protocol: "http2", url: "http://{host}:{port}" }] : undefined,
    ...options,
  });
  if (!resolved.ok) throw new Error(resolved.problems.join("\n"));
  return resolved.content;
}

const release = (content: ReleaseContent): Release => ({ ...content, createdAtMs: 0 });

test("a resolved manifest is a release", () => {
  const content = resolve(SHOP);
  expect(() => Release.parse(release(content))).not.toThrow();
  expect(content.services["web"]).toMatchObject({
    kind: "process",
    instances: 2,
    edge: [
      { host: "shop.localhost", path: "/" },
      { host: "shop.localhost", path: "/admin" },
    ],
    spec: {
      release: 1,
      port: 8080,
      protocol: "http",
      health: { kind: "http", path: "/healthz" },
      resources: { cpu: 0.5, memoryBytes: 268_435_456 },
      stop: { signal: "SIGTERM", graceMs: 10_000 },
    },
  });
});

test("dependencies get the protocol and the URL of what they lead to", () => {
  const { spec, dependencies } = resolve(SHOP).services["web"]!;
  expect(spec.dependencies).toEqual([
    { name: "api", port: 7001, protocol: "grpc", optional: false, url: "http://{host}:{port}" },
    {
      name: "db",
      port: 5432,
      protocol: "tcp",
      optional: false,
      url: "postgres://gilliam:{secret:password}@{host}:{port}/db",
    },
    { name: "ledger.bank", port: 7002, protocol: "http2", optional: false, url: "http://{host}:{port}" },
    { name: "mail", port: 2525, protocol: "tcp", optional: false, url: "tcp://{host}:{port}" },
  ]);
  expect(dependencies).toEqual([
    { name: "api", port: 7001, target: "api.shop", optional: false, requestTimeoutMs: 5_000, retriesMax: 0 },
    { name: "db", port: 5432, target: "db.shop", optional: false },
    { name: "ledger.bank", port: 7002, target: "ledger.bank", optional: false },
    { name: "mail", port: 2525, address: "mail.example.com:25", optional: false },
  ]);
});

test("an auxiliary service keeps the templates of its secrets apart from its environment", () => {
  const { spec } = resolve(SHOP).services["db"]!;
  expect(spec).toMatchObject({
    image: { kind: "gear", gear: "postgres", version: "18.3" },
    port: 5432,
    protocol: "tcp",
    environment: { DB: "db" },
    secrets: { PASSWORD: "{secret:password}" },
    volume: "shop-db",
  });
});

test("the keys of secrets that control must have are listed", () => {
  const parsed = parseManifest(SHOP, "gilliam.yaml");
  const resolved =
    parsed.ok &&
    resolveRelease({
      manifest: parsed.manifest,
      manifestText: "",
      sources: { web: DIGEST.a, api: DIGEST.a },
      gears: GEARS,
      number: 1,
      earlier: [],
      exportsOf: () => undefined,
    });
  expect(resolved).toMatchObject({ ok: true, secrets: { db: ["password"] } });
});

test("a process without a port is ready when it runs, and one with a port when it answers", () => {
  const { services } = resolve(SHOP);
  expect(services["worker"]?.spec).toMatchObject({
    health: { kind: "none" },
    image: { kind: "docker", reference: "worker:1" },
    stop: { signal: "SIGINT", graceMs: 60_000 },
  });
  expect(services["api"]?.spec).toMatchObject({
    health: { kind: "tcp" },
    image: { kind: "source", image: imageDigest({ source: DIGEST.a, build: "make" }), build: "make" },
  });
});

test("a process speaks what its dependents say when it does not say", () => {
  const text =
    "formation: s\nprocesses:\n  a: { source: ., port: 1, dependencies: { b: { port: 9, protocol: grpc } } }\n  b: { source: ., port: 1 }";
  expect(resolve(text, { sources: { a: DIGEST.a, b: DIGEST.a } }).services["b"]?.spec.protocol).toBe("grpc");
});

test("a missing archive is a problem", () => {
  expect(() => resolve(SHOP, { sources: { web: DIGEST.a } })).toThrow(
    'processes.api.source "./api": no archive of it was sent',
  );
});

test("an image's name depends on source and build, and on nothing else", () => {
  expect(imageDigest({ source: DIGEST.a })).toBe(imageDigest({ source: DIGEST.a, build: undefined }));
  expect(imageDigest({ source: DIGEST.a })).not.toBe(imageDigest({ source: DIGEST.b }));
  expect(imageDigest({ source: DIGEST.a })).not.toBe(imageDigest({ source: DIGEST.a, build: "make" }));
});

test("comments and the order of keys make no new content", () => {
  const reordered = SHOP.replace("formation: shop\n", "").replace(
    "exports: [db, api]",
    "exports: [api, db] # both\nformation: shop",
  );
  expect(resolve(reordered).contentDigest).toBe(resolve(SHOP, { number: 7 }).contentDigest);
});

test("an unchanged service keeps the number of the release where it first appeared", () => {
  const first = release(resolve(SHOP));
  const second = release(resolve(SHOP.replace("info", "debug"), { number: 2, earlier: [first] }));
  expect([second.services["web"]?.spec.release, second.services["api"]?.spec.release]).toEqual([2, 1]);
  // Back to what release 1 had: its instances are the same ones.
  const third = resolve(SHOP.replace("instances: 2", "instances: 3"), {
    number: 3,
    earlier: [first, second],
  });
  expect(third.services["web"]?.spec.release).toBe(1);
});

test("other formations see exported services with their URL", () => {
  expect(exportedServices(release(resolve(SHOP)), GEARS)).toEqual([
    { name: "api", protocol: "grpc", url: "http://{host}:{port}" },
    { name: "db", protocol: "tcp", url: "postgres://gilliam:{secret:password}@{host}:{port}/db" },
  ]);
});

test("a foreign gear's URL reaches the dependent", () => {
  const text = "formation: s\nprocesses:\n  a: { source: ., dependencies: { db.shop: 9 } }";
  const offers = exportedServices(release(resolve(SHOP)), GEARS);
  const content = resolve(text, { sources: { a: DIGEST.a }, exportsOf: () => offers });
  expect(content.services["a"]?.spec.dependencies[0]).toMatchObject({
    protocol: "tcp",
    url: "postgres://gilliam:{secret:password}@{host}:{port}/db",
  });
});

const changed = (from: string, to: string, sources = { web: DIGEST.a, api: DIGEST.a }) => {
  const first = release(resolve(SHOP));
  return planRelease(first, resolve(SHOP.replace(from, to), { number: 2, earlier: [first], sources }));
};

test("the first plan creates every service", () => {
  const plan = planRelease(undefined, resolve(SHOP));
  expect([plan.from, plan.to, plan.changes.map(({ service, action }) => `${action} ${service}`)]).toEqual([
    0,
    1,
    ["create api", "create db", "create web", "create worker"],
  ]);
  expect(plan.changes[2]?.differences).toEqual([
    "image: source aaaaaaaaaaaa",
    "port: 8080 (http)",
    "instances: 2",
    "edge: shop.localhost",
    "edge: shop.localhost/admin",
    "dependencies.api: 7001",
    "dependencies.db: 5432",
    "dependencies.ledger.bank: 7002",
    "dependencies.mail: 2525",
  ]);
});

test("nothing to change keeps the number", () => {
  const plan = changed("", "");
  expect([plan.from, plan.to]).toEqual([1, 1]);
  expect(plan.changes.every(({ action, differences }) => action === "keep" && differences.length === 0)).toBe(
    true,
  );
});

test.for([
  { from: "info", to: "debug", action: "replace", difference: "environment.LOG_LEVEL: info → debug" },
  {
    from: "hunter2",
    to: "hunter3",
    action: "replace",
    difference: "environment.API_TOKEN: changed (hidden)",
  },
  {
    from: ", API_TOKEN: hunter2",
    to: "",
    action: "replace",
    difference: "environment.API_TOKEN: (hidden) → (none)",
  },
  {
    from: "LOG_LEVEL: info",
    to: "LOG_LEVEL: info, DSN: 'x://u:p@h'",
    action: "replace",
    difference: "environment.DSN: (none) → (hidden)",
  },
  { from: "instances: 2", to: "instances: 5", action: "scale", difference: "instances: 2 → 5" },
  { from: "shop.localhost, ", to: "", action: "reroute", difference: "edge: - shop.localhost" },
  {
    from: "timeout: 5s",
    to: "timeout: 0s",
    action: "reroute",
    difference: "dependencies.api.timeout: 5s → none",
  },
  { from: ", retries: 0", to: "", action: "reroute", difference: "dependencies.api.retries: 0 → default" },
  {
    from: "port: 7001",
    to: "port: 7009",
    action: "replace",
    difference: "dependencies.api: 7001 (grpc) → 7009 (grpc)",
  },
  { from: "      db: 5432\n", to: "", action: "replace", difference: "dependencies.db: 5432 (tcp) → (none)" },
  {
    from: "health: /healthz",
    to: "command: node x",
    action: "replace",
    difference: "command: (none) → node x",
  },
  { from: "256MiB", to: "1GiB", action: "replace", difference: "resources.memory: 256 MiB → 1 GiB" },
])("$action: $difference", ({ from, to, action, difference }) => {
  const web = changed(from, to).changes.find(({ service }) => service === "web");
  expect(web?.action).toBe(action);
  expect(web?.differences).toContain(difference);
});

test("changed source replaces only the process it belongs to", () => {
  const plan = changed("", "", { web: DIGEST.b, api: DIGEST.a });
  expect(plan.changes.filter(({ action }) => action !== "keep")).toEqual([
    { service: "web", action: "replace", differences: ["source: changed (aaaaaaaaaaaa → bbbbbbbbbbbb)"] },
  ]);
});

test("a removed service with a volume is announced, and its data stays", () => {
  const without = SHOP.replace(/auxiliary:[^]*/, "")
    .replaceAll(/ {6}db: 5432\n/g, "")
    .replace(", dependencies: { db: 5432 }", "");
  const first = release(resolve(SHOP));
  const plan = planRelease(first, resolve(without, { number: 2, earlier: [first] }));
  expect(plan.changes.find(({ service }) => service === "db")?.action).toBe("remove");
  expect(plan.warnings).toContain("db no longer uses the volume shop-db; its data stays where it is");
});

test("a plan never shows a secret", () => {
  const first = release(resolve(SHOP));
  const texts = [planRelease(undefined, first), changed("hunter2", "hunter3")].map((plan) =>
    JSON.stringify(plan),
  );
  expect(texts.join("")).not.toMatch(/hunter|secret:/);
});
