import { expect, test } from "vitest";
import { formatBytes, formatDuration, parseBytes, parseDurationMs } from "./units.ts";

test.for([
  ["250ms", 250],
  ["30s", 30_000],
  ["1.5s", 1_500],
  ["5m", 300_000],
  ["1h", 3_600_000],
  ["30", undefined], // A unit is required: 30 what?
  ["0x10s", undefined],
  [" 30s", undefined],
  ["-1s", undefined],
] as const)("%s is %s ms", ([text, expected]) => {
  expect(parseDurationMs(text)).toBe(expected);
});

test.for([
  ["256MiB", 268_435_456],
  ["64KiB", 65_536],
  ["10kB", 10_000],
  ["1GiB", 1_073_741_824],
  ["12", undefined],
  ["1e3B", undefined],
] as const)("%s is %s bytes", ([text, expected]) => {
  expect(parseBytes(text)).toBe(expected);
});

test.for([
  [850, "850ms"],
  [12_300, "12s"],
  [250_000, "4m10s"],
  [7_200_000, "2h"],
  [187_200_000, "2d4h"],
] as const)("%d ms reads %s", ([durationMs, expected]) => {
  expect(formatDuration(durationMs)).toBe(expected);
});

test.for([
  [0, "0 B"],
  [1536, "1.5 KiB"],
  [268_435_456, "256 MiB"],
] as const)("%d bytes read %s", ([bytes, expected]) => {
  expect(formatBytes(bytes)).toBe(expected);
});
