import { readdirSync, readFileSync } from "node:fs";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { fillSecrets, fillTemplate, parseGear, parseGears } from "./gear.ts";
import type { RunSpec } from "./run-spec.ts";

const POSTGRES = `name: postgres
version: "18.3"
protocol: tcp
port: 5432
health: { command: sh healthy.sh }
volume: required
command: sh start.sh
stopSignal: SIGINT
secrets: [password]
environment: { POSTGRES_DATABASE: "{name}", POSTGRES_PASSWORD: "{secret:password}" }
url: postgres://gilliam:{secret:password}@{host}:{port}/{name}
`;

test("a gear is read with its defaults", () => {
  expect(parseGear(POSTGRES, "gear.yaml")).toMatchObject({
    ok: true,
    gear: { name: "postgres", version: "18.3", stopGrace: "30s", volume: "required" },
  });
});

test("a version that looks like a number stays as written", () => {
  const parsed = parseGear(POSTGRES.replace('"18.3"', "18.10"), "gear.yaml");
  expect(parsed.ok && parsed.gear.version).toBe("18.10");
});

test.for([
  ["port: 5432", "port: 0", "gear.yaml:4:7 port 0: "],
  ["volume:", "volumes:", "gear.yaml:6:1 volumes: is not a key here (did you mean `volume`?)"],
  ["secrets: [password]", "", "gear.yaml:11:6 url"],
  ["{host}", "{hots}", "{hots} is not known here; the text may hold {name}, {host}, {port}"],
  ['"{name}"', '"{host}"', "environment.POSTGRES_DATABASE"], // A server does not know who will call it by which host.
  ["command: sh start.sh", "", "command: is missing"],
  ["health: {", "health: { x: 1,", "health.x: is not a key here; allowed are command"],
] as const)("%s → %s is refused", ([from, to, problem]) => {
  const parsed = parseGear(POSTGRES.replace(from, to), "gear.yaml");
  expect(parsed.ok ? "" : parsed.problems.join("\n")).toContain(problem);
});

test("two gears of one name are a problem", () => {
  const both = parseGears([
    { file: "a/gear.yaml", text: POSTGRES },
    { file: "b/gear.yaml", text: POSTGRES },
  ]);
  expect(both).toEqual({ ok: false, problems: ["b/gear.yaml:1:1 name: there are two gears `postgres`"] });
});

test("no text makes it throw", () => {
  fc.assert(
    fc.property(fc.nat(POSTGRES.length), fc.nat(10), fc.string({ maxLength: 8 }), (at, cut, piece) => {
      const parsed = parseGear(POSTGRES.slice(0, at) + piece + POSTGRES.slice(at + cut), "gear.yaml");
      for (const problem of parsed.ok ? [] : parsed.problems) expect(problem).toMatch(/^gear\.yaml:\d+:\d+ /);
    }),
    { numRuns: 500 },
  );
});

/** The gears that come with Gilliam; a folder without a gear.yaml is no gear. */
test("the built-in gears are sound", () => {
  const folder = new URL("gears/", import.meta.url);
  const names = readdirSync(new URL(".", import.meta.url)).includes("gears") ? readdirSync(folder) : [];
  const files = names.map((name) => ({
    file: `${name}/gear.yaml`,
    text: readFileSync(new URL(`${name}/gear.yaml`, folder), "utf8"),
  }));
  const parsed = parseGears(files);
  expect(parsed.ok ? [] : parsed.problems).toEqual([]);
  expect(parsed.ok && [...parsed.gears.keys()].sort()).toEqual(names.sort());
});

test("only known holes are filled", () => {
  expect(fillTemplate("{name}:{port}:{host}:{toString}", { name: "db", port: "1" })).toBe(
    "db:1:{host}:{toString}",
  );
});

const SPEC: RunSpec = {
  formation: "shop",
  service: "db",
  release: 1,
  image: { kind: "gear", gear: "postgres", version: "18.3" },
  protocol: "tcp",
  health: { kind: "tcp" },
  resources: {},
  environment: {},
  secrets: { POSTGRES_PASSWORD: "{secret:password}" },
  dependencies: [
    { name: "db", port: 1, protocol: "tcp", optional: false, url: "x://u:{secret:password}@{host}:{port}" },
    { name: "db.bank", port: 2, protocol: "tcp", optional: false, url: "x://u:{secret:password}@{host}" },
  ],
  stop: { signal: "SIGTERM", graceMs: 0 },
};

test("secrets are joined in: as they are in variables, encoded in URLs, and only where known", () => {
  const { spec, missing } = fillSecrets(SPEC, (address) =>
    address === "db.shop" ? { password: "a/b@c" } : undefined,
  );
  expect(spec.secrets).toEqual({ POSTGRES_PASSWORD: "a/b@c" });
  expect(spec.dependencies.map(({ url }) => url)).toEqual([
    "x://u:a%2Fb%40c@{host}:{port}",
    "x://u:{secret:password}@{host}",
  ]);
  expect(missing).toEqual(["db.bank password"]);
});
