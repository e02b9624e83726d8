import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { readDurable, writeDurable } from "./durable-file.ts";

let folder = "";
let path = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "durable-"));
  path = join(folder, "state.json");
});
afterEach(() => rmSync(folder, { recursive: true }));

test("a file never written is missing, not empty", () => {
  expect(readDurable(path)).toEqual({ kind: "missing" });
});

test("the last value written is read", () => {
  writeDurable(path, { a: 1 });
  writeDurable(path, { a: 2 });
  expect(readDurable(path)).toEqual({ kind: "read", value: { a: 2 }, damaged: false });
});

test.for(["truncated", "flipped", "emptied"])("a %s file falls back to the previous generation", (how) => {
  writeDurable(path, { a: 1 });
  writeDurable(path, { a: 2 });
  const bytes = readFileSync(path);
  const last = bytes.length - 1;
  bytes[last] = (bytes[last] ?? 0) ^ 1;
  writeFileSync(path, how === "truncated" ? bytes.subarray(0, last) : how === "flipped" ? bytes : "");
  expect(readDurable(path)).toEqual({ kind: "read", value: { a: 1 }, damaged: true });
});

test("a write over a damaged file keeps the good previous generation", () => {
  writeDurable(path, { a: 1 });
  writeDurable(path, { a: 2 });
  writeFileSync(path, "broken");
  writeDurable(path, { a: 3 });
  writeFileSync(path, "broken again");
  expect(readDurable(path)).toEqual({ kind: "read", value: { a: 1 }, damaged: true });
});

test("when both generations are damaged it says so", () => {
  writeDurable(path, { a: 1 });
  writeFileSync(path, "broken");
  expect(readDurable(path).kind).toBe("damaged");
});
