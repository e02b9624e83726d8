import { expect, test } from "vitest";
import { buildRoutes, hostOf, isAmbiguousPath, matchRoute } from "./routing.ts";

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
  expect(matchRoute(routes, host, target)?.cluster).toBe(cluster);
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
