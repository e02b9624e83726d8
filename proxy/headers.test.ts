import { expect, test } from "vitest";
import { cookieValue, edgeHopFields, fieldValue } from "./headers.ts";

test.for([
  ["a=1; b=2", "b", "2"],
  ["a=1;b=2", "b", "2"],
  ["ab=1; b=2", "b", "2"],
  ["b=", "b", ""],
  ["b=x=y", "b", "x=y"],
  ["B=1", "b", undefined], // Cookie names are case-sensitive.
  ["", "b", undefined],
] as const)("in %j the cookie %s is %j", ([cookies, name, value]) => {
  expect(cookieValue(cookies, name)).toBe(value);
});

test.for([
  ["X-User: 7\r\nY: 8\r\n", "x-user", "7"],
  ["Y: 8\r\nx-user:7\r\n", "x-user", "7"],
  ["X-Users: 7\r\n", "x-user", undefined],
] as const)("in %j the field %s is %j", ([fields, name, value]) => {
  expect(fieldValue(fields, name)).toBe(value);
});

test("an IPv4 client of a dual-stack listener is named by its IPv4 address", () => {
  expect(edgeHopFields("::ffff:10.1.2.3", "http")).toBe(
    "x-forwarded-for: 10.1.2.3\r\nx-forwarded-proto: http\r\n",
  );
});
