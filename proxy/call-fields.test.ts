import { expect, test } from "vitest";
import {
  PRIORITY,
  deadlineLines,
  parseGrpcTimeout,
  parsePriority,
  parseRequestDeadline,
} from "./call-fields.ts";

test.for([
  ["0", 0],
  ["1500", 1500],
  ["99999999", 99_999_999],
  ["1763820000000", undefined], // A time of day, not a duration.
  ["", undefined],
  ["-1", undefined],
  ["1.5", undefined],
  ["1500ms", undefined],
  [" 1500", undefined],
] as const)("x-request-deadline: '%s' is %s ms", ([text, ms]) => {
  expect(parseRequestDeadline(text)).toBe(ms);
});

test.for([
  ["1H", 3_600_000],
  ["2M", 120_000],
  ["3S", 3_000],
  ["4m", 4],
  ["500u", 0.5],
  ["1000000n", 1],
  ["99999999H", 99_999_999 * 3_600_000],
  ["100000000m", undefined], // Nine digits.
  ["5", undefined],
  ["5s", undefined],
  ["m", undefined],
] as const)("grpc-timeout: '%s' is %s ms", ([text, ms]) => {
  expect(parseGrpcTimeout(text)).toBe(ms);
});

test.for([
  [1500.9, "x-request-deadline: 1500\r\n"],
  [0.2, "x-request-deadline: 1\r\n"], // Nothing that is left is told as nothing.
  [1e12, "x-request-deadline: 99999999\r\n"],
] as const)("%d ms remain: %j", ([ms, lines]) => {
  expect(deadlineLines(ms, false)).toBe(lines);
  expect(parseRequestDeadline(/: (\d+)/.exec(lines)![1]!)).toBeDefined();
});

test.for([
  ["low", PRIORITY.low],
  ["high", PRIORITY.high],
  ["u=0", PRIORITY.high],
  ["u=3, i", PRIORITY.normal],
  ["i, u=6", PRIORITY.low],
  ["u=8", undefined],
  ["urgent", undefined],
  ["i", undefined],
] as const)("priority '%s' is %s", ([text, priority]) => {
  expect(parsePriority(text)).toBe(priority);
});
