import { chmodSync, existsSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { removeTree } from "./remove-tree.ts";

test("read-only folders are removed, what a link points at is not", () => {
  const outside = mkdtempSync(join(tmpdir(), "outside-"));
  const folder = mkdtempSync(join(tmpdir(), "tree-"));
  mkdirSync(join(folder, "a/b"), { recursive: true });
  writeFileSync(join(folder, "a/b/file"), "text");
  symlinkSync(outside, join(folder, "a/link"));
  chmodSync(join(folder, "a/b"), 0o555);
  chmodSync(join(folder, "a"), 0o555);
  removeTree(folder);
  expect(existsSync(folder)).toBe(false);
  expect(existsSync(outside)).toBe(true);
  removeTree(outside);
});

test("a folder that does not exist is no error", () => {
  removeTree(join(tmpdir(), "never-made-by-anybody"));
});
