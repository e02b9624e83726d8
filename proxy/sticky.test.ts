import { expect, test } from "vitest";
import { RequestHead } from "./http1/request-head.ts";
import { stickyCookie, stickyRelease } from "./sticky.ts";

const shares = [
  { release: 3, weight: 90, usable: true },
  { release: 4, weight: 10, usable: false },
  { release: 5, weight: 0, usable: true },
];
const request = (cookie: string, fields = "") => Object.assign(new RequestHead(), { cookie, fields });

test.for([
  ["rel=3", 3],
  ["other=1; rel=3", 3],
  ["rel=4", -1], // Its instances are all ejected or gone: somebody else has to serve.
  ["rel=5", -1], // It gets nothing any more.
  ["rel=9", -1],
  ["rel=3x", -1],
  ["", -1],
] as const)("the cookie %j leads to release %i", ([cookie, release]) => {
  expect(stickyRelease({ by: "cookie", name: "rel" }, shares, request(cookie))).toBe(release);
});

test("the value of a header always leads to the same release", () => {
  const sticky = { by: "header", name: "X-User" } as const;
  expect(stickyRelease(sticky, shares, request("", "x-user: ann\r\n"))).toBe(3);
  expect(stickyRelease(sticky, shares, request("", "x-other: ann\r\n"))).toBe(-1);
  expect(stickyRelease(sticky, [], request("", "x-user: ann\r\n"))).toBe(-1);
});

test("only a cookie has to be set", () => {
  expect(stickyCookie({ by: "cookie", name: "rel" }, 4)).toMatch(/^set-cookie: rel=4; .*\r\n$/);
  expect(stickyCookie({ by: "header", name: "rel" }, 4)).toBe("");
});
