import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { readDurable, writeDurable, writeDurableLater } from "./durable-file.ts";

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

test("what was written later reads like what was written at once", async () => {
  writeDurable(path, { a: 1 });
  await writeDurableLater(path, { a: 2 });
  expect(readDurable(path)).toEqual({ kind: "read", value: { a: 2 }, damaged: false });
  writeFileSync(path, "broken");
  await writeDurableLater(path, { a: 3 });
  writeFileSync(path, "broken again");
  expect(readDurable(path)).toEqual({ kind: "read", value: { a: 1 }, damaged: true });
});

test("a write that fails later leaves the value and no litter", async () => {
  writeDurable(path, { a: 1 });
  const circular: { self?: unknown } = {};
  circular.self = circular;
  await expect(writeDurableLater(path, circular)).rejects.toThrow("circular");
  await expect(writeDurableLater(join(folder, "missing", "x"), {})).rejects.toThrow("ENOENT");
  expect(readDurable(path)).toEqual({ kind: "read", value: { a: 1 }, damaged: false });
  expect(readdirSync(folder).sort()).toEqual(["state.json"]);
});
