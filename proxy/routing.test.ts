import * as fc from "fast-check";
import { expect, test } from "vitest";
import { PublicRoute } from "../model/mesh.ts";
import { ActionStates } from "./actions/states.ts";
import { type RouteMatch, routeId, sameRequests } from "../model/route.ts";
import {
  type RoutedRequest,
  buildRoutes as buildRoutesWith,
  hasField,
  hostOf,
  isAmbiguousPath,
  matchRoute,
  parametersOf,
  routingPath,
} from "./routing.ts";

const buildRoutes = (list: readonly PublicRoute[]) => buildRoutesWith(list, new ActionStates(10));
const request = (host: string, target: string, method = "GET", fields = ""): RoutedRequest => ({
  host,
  target,
  method,
  fields,
});

const route = (host: string, path: string, cluster: string) => ({ id: cluster, host, path, cluster });
const routes = buildRoutes([
  route("shop.test", "/", "web"),
  route("shop.test", "/api", "api"),
  route("shop.test", "/api/v2", "api2"),
  route("*.shop.test", "/", "any"),
  route("a.shop.test", "/only", "a"),
  route("[::1]", "/", "six"),
]);

test.for([
  ["shop.test", "/", "web"],
  ["SHOP.test:8080", "/x?y", "web"],
  ["shop.test.", "/", "web"],
  ["shop.test", "/api", "api"],
  ["shop.test", "/api?x=/api/v2", "api"],
  ["shop.test", "/api/", "api"],
  ["shop.test", "/apiary", "web"], // A prefix ends at a segment.
  ["shop.test", "/api/v2/x", "api2"], // The longest wins.
  ["shop.test", "/API", "web"], // Paths are case-sensitive.
  ["b.shop.test", "/", "any"],
  ["a.shop.test", "/only", "a"],
  ["a.shop.test", "/", undefined], // An exact host is not helped out by a wildcard.
  ["x.b.shop.test", "/", undefined], // A wildcard is one label.
  [".shop.test", "/", undefined],
  ["[::1]:80", "/", "six"],
  ["other.test", "/", undefined],
  ["test", "/", undefined],
] as const)("%s%s goes to %s", ([host, target, cluster]) => {
  expect(matchRoute(routes, request(host, target))?.cluster).toBe(cluster);
});

test("a host is taken without port, case and final dot", () => {
  expect(["A.b:1", "a.b.", "[::1]", "[::1]:2"].map(hostOf)).toEqual(["a.b", "a.b", "[::1]", "[::1]"]);
});

test.for([
  ["/a/../b", true],
  ["/..", true],
  ["/.", true],
  ["/a/%2e%2E/b", true],
  ["/a/.%2e", true],
  ["/a/..%2fb", true],
  ["/a%2f..%5cb", true],
  ["/a/..;x/b", true],
  ["/a\\b", true],
  ["/.well-known/x", false],
  ["/a...b/...", false],
  ["/a%2Fb", false], // An encoded slash alone is a name with a slash in it.
  ["/a?b=/../c", false],
  ["/%41", false],
] as const)("is %s ambiguous? %s", ([path, ambiguous]) => {
  expect(isAmbiguousPath(path)).toBe(ambiguous);
});

const special = (path: string, match: RouteMatch | undefined, cluster: string): PublicRoute =>
  PublicRoute.parse({
    id: routeId({ host: "a.test", path, match }),
    host: "a.test",
    path,
    ...(match === undefined ? {} : { match }),
    cluster,
  });
const specials = buildRoutes([
  special("/", undefined, "all"),
  special("/api", undefined, "api"),
  special("/api", { methods: ["POST"] }, "post"),
  special("/api", { methods: ["POST"], headers: { "x-beta": "1" } }, "beta"),
  special("/api", { query: { v: "2 3" } }, "query"),
  special("/api/users", { kind: "exact" }, "exact"),
  special("/api/:what", { kind: "pattern" }, "pattern"),
  special("/api/:what/edit", { kind: "pattern" }, "edit"),
  special("/api/me/*rest", { kind: "pattern" }, "rest"),
  special("/api/users/special", undefined, "prefix"),
  special("/only", { kind: "exact", headers: { "x-a": true } }, "conditional"),
]);

test.for([
  ["GET", "/api/users", "", "exact"],
  ["GET", "/api/users?x", "", "exact"],
  ["GET", "/api/users/", "", "api"], // Another path; a name stands for no empty segment.
  ["GET", "/api/teams", "", "pattern"],
  ["GET", "/api/teams/edit", "", "edit"],
  ["GET", "/api/me/edit", "", "rest"], // From the left: text before a name.
  ["GET", "/api/me/", "", "rest"],
  ["GET", "/api/me", "", "pattern"],
  ["GET", "/api/users/special/x", "", "prefix"],
  ["GET", "/api", "", "api"],
  ["POST", "/api", "", "post"],
  ["POST", "/api", "X-Beta: 1\r\n", "beta"],
  ["POST", "/api", "X-Beta: 12\r\n", "post"],
  ["GET", "/api?a&v=2+3", "", "query"],
  ["GET", "/api?v=2%203&v=4", "", "query"],
  ["GET", "/only", "", "all"], // Its conditions do not hold: the next one takes it.
  ["GET", "/only", "x-a:\r\n", "conditional"],
  ["GET", "/%61pi/%75sers", "", "exact"], // Nobody walks around a route by another spelling.
  ["GET", "//api//users", "", "exact"],
  ["GET", "/api%2Fusers", "", "all"], // An encoded slash is no separator.
  ["OPTIONS", "*", "", "all"],
] as const)("%s %s with '%s' goes to %s", ([method, target, fields, cluster]) => {
  expect(matchRoute(specials, request("a.test", target, method, fields))?.cluster).toBe(cluster);
});

test("fields and parameters are found by name, whole", () => {
  const fields = "x-ab: 1\r\nX-A:  2 \r\nx-a: 3\r\n";
  expect([hasField(fields, "x-a", "2"), hasField(fields, "x-a", "3"), hasField(fields, "x-a", "1")]).toEqual([
    true,
    true,
    false,
  ]);
  expect(parametersOf("/x?a=1&b&c=%zz&d=x+y")).toEqual([
    ["a", "1"],
    ["b", ""],
    ["c", "%zz"],
    ["d", "x y"],
  ]);
  expect(routingPath("/a%2fb//c?d//e")).toBe("/a%2fb/c");
});

const segment = fc.constantFrom("a", "b", "c");
const target = fc
  .array(fc.constantFrom("a", "b", "c", "d", ""), { maxLength: 4 })
  .map((parts) => `/${parts.join("/")}`);
const condition = fc.record({
  methods: fc.option(fc.constantFrom(["GET"], ["POST"], ["GET", "POST"]), { nil: undefined }),
  headers: fc.option(fc.constantFrom({ "x-a": "1" }, { "x-b": true as const }), { nil: undefined }),
});
const anyRoute = fc
  .record({
    kind: fc.constantFrom("prefix", "exact", "pattern"),
    parts: fc.array(fc.oneof(segment, fc.constantFrom(":n", ":m")), { maxLength: 3 }),
    rest: fc.boolean(),
    condition,
  })
  .map(({ kind, parts, rest, condition }) => {
    const named = parts.map((part, index) => (part.startsWith(":") ? `${part}${index}` : part));
    const plain = parts.map((part) => (part.startsWith(":") ? "d" : part));
    const path =
      kind === "pattern" ? `/${[...named, ...(rest ? ["*rest"] : [])].join("/")}` : `/${plain.join("/")}`;
    const match = JSON.parse(
      JSON.stringify({ ...(kind === "prefix" ? {} : { kind }), ...condition }),
    ) as RouteMatch;
    return special(path, match, "x");
  });

/** The rules as the documents say them, one after the other over a list. */
function slowMatch(routes: readonly PublicRoute[], asked: RoutedRequest): string | undefined {
  const path = routingPath(asked.target);
  const fits = ({ path: own, match }: PublicRoute) => {
    if (match?.kind === "exact") return own === path;
    if (match?.kind !== "pattern") return own === "/" || path === own || path.startsWith(`${own}/`);
    const source = own.replaceAll(/:[^/]+/g, "[^/]+").replaceAll(/\*[^/]+/g, ".*");
    return new RegExp(`^${source}$`).test(path);
  };
  const holds = ({ match }: PublicRoute) =>
    (match?.methods?.includes(asked.method) ?? true) &&
    Object.entries(match?.headers ?? {}).every(([name, value]) => hasField(asked.fields, name, value));
  const kinds = ["exact", "pattern", undefined];
  const shape = (own: string) => own.replaceAll(/:[^/]+/g, "~").replaceAll(/\*[^/]+/g, "~~");
  const conditions = ({ match }: PublicRoute) =>
    (match?.methods === undefined ? 0 : 1) + Object.keys(match?.headers ?? {}).length;
  const ranked = routes.toSorted(
    (a, b) =>
      kinds.indexOf(a.match?.kind) - kinds.indexOf(b.match?.kind) ||
      (a.match?.kind === "pattern"
        ? shape(a.path) < shape(b.path)
          ? -1
          : shape(a.path) > shape(b.path)
            ? 1
            : 0
        : b.path.length - a.path.length) ||
      conditions(b) - conditions(a) ||
      (a.id < b.id ? -1 : 1),
  );
  return ranked.find((route) => fits(route) && holds(route))?.id;
}

test("the tables say what the rules say, for any routes in any order", () => {
  fc.assert(
    fc.property(
      fc.array(anyRoute, { maxLength: 12 }),
      fc.array(
        fc.tuple(target, fc.constantFrom("GET", "POST"), fc.constantFrom("", "x-a: 1\r\n", "x-b:\r\n")),
      ),
      (made, asked) => {
        const routes = made.filter(
          (route, index) => !made.slice(0, index).some((other) => sameRequests(other, route)),
        );
        const [table, reversed] = [buildRoutes(routes), buildRoutes(routes.toReversed())];
        for (const [path, method, fields] of asked) {
          const one = request("a.test", path, method, fields);
          const found = matchRoute(table, one)?.id;
          expect(found).toBe(slowMatch(routes, one));
          expect(matchRoute(reversed, one)?.id).toBe(found);
        }
      },
    ),
    { numRuns: 300 },
  );
});

test("a path of a thousand segments is cut no deeper than routes are", () => {
  const looked: string[] = [];
  class Counted extends Map<string, never[]> {
    override get(key: string) {
      looked.push(key);
      return super.get(key);
    }
  }
  const [host] = [...buildRoutes([special("/a/b", undefined, "x"), special("/", undefined, "y")]).exact];
  const table = {
    exact: new Map([[host![0], { ...host![1], prefixes: new Counted() }]]),
    wildcard: new Map<string, never>(),
  };
  expect(matchRoute(table, request("a.test", "/a".repeat(1000)))).toBeUndefined();
  expect(looked).toEqual(["/a/a/", "/a/a", "/a/", "/a", "/"]);
});
