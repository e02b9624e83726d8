import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { STATUS_BY_CODE } from "./failure.ts";
import { readSettings } from "../base/settings.ts";
import { DEFAULT_LIMITS, limitSettings } from "./limits.ts";

const readme = readFileSync(join(import.meta.dirname, "README.md"), "utf8");

test("the README names every limit with its default", () => {
  const table = /<!-- limits -->([^]*)<!-- \/limits -->/.exec(readme)?.[1] ?? "";
  const written = Object.fromEntries(
    [...table.matchAll(/^\| `(\w+)`\s*\| (\d+)/gm)].map((row) => [row[1], Number(row[2])]),
  );
  expect(written).toEqual(DEFAULT_LIMITS);
});

test("the README names every refusal", () => {
  const inLogsOnly = ["internal"];
  const missing = Object.keys(STATUS_BY_CODE).filter((code) => !readme.includes(`\`${code}\``));
  expect(missing).toEqual(inLogsOnly);
});

test("every limit can be set in the environment, and is its default when it is not", () => {
  expect(readSettings("edge", limitSettings, {})).toEqual(DEFAULT_LIMITS);
  const changed = readSettings("edge", limitSettings, { GILLIAM_LIMIT_HEAD_BYTES_MAX: "1000" });
  expect(changed).toEqual({ ...DEFAULT_LIMITS, headBytesMax: 1000 });
});
