import { expect, test } from "vitest";
import { type FailureCode, STATUS_BY_CODE } from "./failure.ts";
import { grpcMessage, grpcStatusOf } from "./grpc-status.ts";

test.for([
  ["deadline_exceeded", 4],
  ["response_timeout", 4],
  ["head_too_large", 8],
  ["no_route", 12],
  ["bad_request", 13],
  ["bad_response", 13],
  ["internal", 13],
  ["no_endpoint", 14],
  ["overloaded", 14],
  ["draining", 14],
  ["connect_failed", 14],
] as const)("%s is grpc-status %i", ([code, status]) => {
  expect(grpcStatusOf(code, STATUS_BY_CODE[code])).toBe(status);
});

test("every refusal has a grpc-status other than OK", () => {
  const codes = Object.keys(STATUS_BY_CODE) as FailureCode[];
  expect(codes.filter((code) => grpcStatusOf(code, STATUS_BY_CODE[code]) === 0)).toEqual([]);
});

test("a message is percent-encoded", () => {
  expect(grpcMessage("100 % sure:\nné\n")).toBe("100 %25 sure:%0An%C3%A9");
});
