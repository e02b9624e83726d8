import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { compileCacheOf, warmCompileCache } from "./compile-cache.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gilliam-cache-"));
  for (const part of ["sidecar", "proxy"]) mkdirSync(join(folder, part));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A platform whose programs end with these codes. */
function platform(codes: { sidecar: number; proxy: number }): void {
  for (const [part, code] of Object.entries(codes)) {
    const text = `const code: number = process.argv.includes("--warm-cache") ? ${code} : 9; process.exitCode = code;`;
    writeFileSync(join(folder, part, "main.ts"), text);
  }
  writeFileSync(join(folder, "package.json"), '{"type":"module"}');
}

test("the cache is there under the name its reader looks for, for all to read and for nobody else to write", () => {
  platform({ sidecar: 0, proxy: 0 });
  const facts = { folder, node: process.execPath, uid: 199_999 };
  expect(warmCompileCache(facts)).toBe(true);
  const cache = compileCacheOf(folder);
  const names = readdirSync(cache);
  expect(names).toEqual([expect.stringMatching(/^v\d+\..*-199999$/)]);
  const entries = readdirSync(join(cache, names[0] ?? ""));
  expect(entries.length).toBeGreaterThanOrEqual(2);
  for (const path of [cache, join(cache, names[0] ?? ""), join(cache, names[0] ?? "", entries[0] ?? "")]) {
    expect(statSync(path).mode & 0o022).toBe(0);
    expect(statSync(path).mode & 0o044).toBe(0o044);
  }
  const before = statSync(cache).ino;
  expect(warmCompileCache(facts)).toBe(true);
  expect(statSync(cache).ino).toBe(before);
});

test("a program that fails leaves no half of a cache", () => {
  platform({ sidecar: 0, proxy: 1 });
  expect(warmCompileCache({ folder, node: process.execPath, uid: 199_999 })).toBe(false);
  expect(readdirSync(folder).sort()).toEqual(["package.json", "proxy", "sidecar"]);
});
