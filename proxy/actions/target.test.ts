import * as fc from "fast-check";
import { expect, test } from "vitest";
import { RequestHead } from "../http1/request-head.ts";
import { parseRequestHead } from "../http1/request-head.ts";
import { DEFAULT_LIMITS } from "../limits.ts";
import { isAmbiguousPath } from "../routing.ts";
import { compileActions } from "./compile.ts";
import { ActionStates } from "./states.ts";
import { redirectLocation, rewrittenTarget } from "./target.ts";

type Kind = "prefix" | "exact" | "pattern";

function rewritten(kind: Kind, path: string, rewrite: string, target: string): string | undefined {
  const actions = compileActions({ rewrite }, "r", new ActionStates(10), kind, path);
  return rewrittenTarget(actions, actions.rewrite!, head(target), 8192);
}

function location(kind: Kind, path: string, to: string, target: string): string | undefined {
  const actions = compileActions({ redirect: { to, status: 308 } }, "r", new ActionStates(10), kind, path);
  return redirectLocation(actions, actions.redirect!.to, head(target));
}

function head(target: string): RequestHead {
  const request = new RequestHead();
  request.host = "Shop.test:8080";
  request.target = target;
  return request;
}

test.for([
  ["prefix", "/api", "/v2", "/api", "/v2"],
  ["prefix", "/api", "/v2", "/api/x?q=1", "/v2/x?q=1"],
  ["prefix", "/api", "/", "/api/x", "/x"],
  ["prefix", "/api", "/", "/api", "/"],
  ["prefix", "/api", "/v2/", "/api/x", "/v2/x"],
  ["prefix", "/", "/v2", "/x/y", "/v2/x/y"],
  ["prefix", "/", "/v2", "/", "/v2/"],
  ["prefix", "/api", "/", "/api//evil.test/x", "/evil.test/x"],
  ["exact", "/a", "/b", "/a?c", "/b?c"],
  ["pattern", "/users/:id", "/accounts/{id}/show", "/users/7?x", "/accounts/7/show?x"],
  ["pattern", "/f/*rest", "/g/{rest}", "/f/a/b", "/g/a/b"],
  ["pattern", "/f/*rest", "/{rest}", "/f/", "/"],
  ["pattern", "/f/:a", "/.{a}", "/f/.x", "/..x"],
  ["pattern", "/f/:a/*b", "/{a}{b}", "/f/./", undefined], // Would be a dot segment.
  ["pattern", "/f/:a", "/.{a}", "/f/.", undefined],
  ["pattern", "/f/:a", "/{a}", "/f/x%2f..", undefined],
] as const)("%s %s → %s makes of %s: %s", ([kind, path, rewrite, target, made]) => {
  expect(rewritten(kind, path, rewrite, target)).toBe(made);
});

test("whatever a client writes, a rewritten target is one that this parser takes", () => {
  const part = fc.oneof(
    fc.constantFrom("/", "//", ".", "..", "%2e", "%2F", "%5c", ";", "?", "a", "{", "}", "é"),
    fc.string({ maxLength: 3 }),
  );
  const target = fc.array(part, { maxLength: 8 }).map((parts) => `/f/${parts.join("")}`);
  const rules = fc.constantFrom(
    ["prefix", "/f", "/"],
    ["prefix", "/", "/x"],
    ["pattern", "/f/:a", "/.{a}"],
    ["pattern", "/f/:a/*b", "/{a}{b}"],
    ["pattern", "/f/*b", "/{b}"],
  ) as fc.Arbitrary<[Kind, string, string]>;
  fc.assert(
    fc.property(target, rules, (target, [kind, path, rewrite]) => {
      const bytes = Buffer.from(`GET ${target} HTTP/1.1\r\nhost: a\r\n\r\n`, "latin1");
      const request = new RequestHead();
      if (parseRequestHead(bytes, 0, bytes.length, request, DEFAULT_LIMITS, false) !== bytes.length) return;
      if (isAmbiguousPath(request.target)) return;
      const made = rewritten(kind, path, rewrite, request.target);
      if (made === undefined) return;
      const again = Buffer.from(`GET ${made} HTTP/1.1\r\nhost: a\r\n\r\n`, "latin1");
      expect(parseRequestHead(again, 0, again.length, request, DEFAULT_LIMITS, false)).toBe(again.length);
      expect(request.target).toBe(made);
      expect(isAmbiguousPath(made)).toBe(false);
      expect(made.startsWith("//")).toBe(false);
    }),
    { numRuns: 2000 },
  );
});

test.for([
  ["prefix", "/", "https://{host}{path}{query}", "/a?b", "https://shop.test/a?b"],
  ["prefix", "/", "{path}", "//evil.test/x", "/evil.test/x"],
  ["pattern", "/:a/*b", "/{b}", "/x//evil.test", "/evil.test"],
  ["pattern", "/go/*b", "/{b}", "/go/", "/"],
  ["prefix", "/", "https://other.test/x", "/a?b", "https://other.test/x"],
] as const)("%s %s: %s sends %s to %s", ([kind, path, to, target, made]) => {
  expect(location(kind, path, to, target)).toBe(made);
});
