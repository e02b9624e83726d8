import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { installPrograms, missingPrograms } from "./packages.ts";

function folderWith(...programs: string[]) {
  const folder = mkdtempSync(join(tmpdir(), "gilliam-path-"));
  for (const program of programs) {
    writeFileSync(join(folder, program), "");
    chmodSync(join(folder, program), 0o755);
  }
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
}

test("only root needs what isolates instances, only the shop needs Python", () => {
  using path = folderWith("flock");
  const missing = (isRoot: boolean, shop: boolean) =>
    missingPrograms({ isRoot, shop, path: path.folder }).map(({ program }) => program);
  expect(missing(false, false)).toEqual([]);
  expect(missing(false, true)).toEqual(["python3"]);
  expect(missing(true, false)).toEqual(["setpriv", "nsenter", "ip", "iptables"]);
});

test("what the tests compare with is asked for by the tests alone", () => {
  using path = folderWith("flock", "haproxy", "openssl", "curl");
  const need = { isRoot: false, shop: false, path: path.folder };
  expect(missingPrograms({ ...need, tests: true })).toEqual([
    { program: "nginx", debian: "nginx-light", need: "tests" },
  ]);
  expect(missingPrograms(need)).toEqual([]);
});

test("a missing Python is named with its package, and how to do without", () => {
  using path = folderWith("flock");
  const attempt = () => installPrograms({ isRoot: false, shop: true, path: path.folder }, () => undefined);
  expect(attempt).toThrow(
    expect.objectContaining({
      code: "missing_programs",
      problems: ["python3 is in Debian's package python3"],
      next: expect.stringContaining("--formation none") as string,
    }),
  );
});
