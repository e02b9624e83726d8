import { execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Manifest } from "../../model/manifest.ts";
import type { FormationFile } from "../formation-file.ts";
import { packSources } from "./pack.ts";
import { tarHeader } from "./tar.ts";
import { walkSource } from "./walk.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gilliam-pack-test-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function put(files: Record<string, string>, root = folder): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(root, name, ".."), { recursive: true });
    writeFileSync(join(root, name), text);
  }
}
const names = (root = folder) => walkSource(root).entries.map(({ name }) => name);

function fileOf(path: string): FormationFile {
  return { path: join(path, "gilliam.yaml"), folder: path, shown: "gilliam.yaml", text: "" };
}
const MANIFEST: Manifest = {
  formation: "a",
  processes: { web: { source: "." } },
  auxiliary: {},
  exports: [],
};

test("the same files give the same digest, whenever and in whatever order they were written", async () => {
  put({ "b.txt": "2", "a/x": "1", "a.txt": "3" });
  const other = mkdtempSync(join(tmpdir(), "gilliam-pack-test-"));
  put({ "a.txt": "3", "a/x": "1", "b.txt": "2" }, other);
  utimesSync(join(other, "a.txt"), 1, 1);
  chmodSync(join(other, "a.txt"), 0o600);
  using one = await packSources(MANIFEST, fileOf(folder));
  using two = await packSources(MANIFEST, fileOf(other));
  expect(two.digests).toEqual(one.digests);
  rmSync(other, { recursive: true });
  chmodSync(join(folder, "a.txt"), 0o755);
  using three = await packSources(MANIFEST, fileOf(folder));
  expect(three.digests).not.toEqual(one.digests);
});

test("what is packed is what tar unpacks, long names and links too", async () => {
  const long = `${"long-name-".repeat(12)}é/${"x".repeat(120)}.txt`;
  put({ "run.sh": "#!/bin/sh\n", "deep/er/file": "y".repeat(100_000), [long]: "long", empty: "" });
  chmodSync(join(folder, "run.sh"), 0o755);
  symlinkSync("deep/er/file", join(folder, "link"));
  using packed = await packSources(MANIFEST, fileOf(folder));
  const target = join(folder, "out");
  mkdirSync(target);
  execFileSync("tar", ["-xf", packed.sources[0]?.path ?? "", "-C", target]);
  expect(readFileSync(join(target, long), "utf8")).toBe("long");
  expect(readFileSync(join(target, "link"), "utf8")).toBe("y".repeat(100_000));
  expect(execFileSync(join(target, "run.sh")).toString()).toBe("");
});

test("the archives are gone when they are no longer needed", async () => {
  put({ a: "1" });
  let path = "";
  {
    using packed = await packSources(MANIFEST, fileOf(folder));
    path = packed.sources[0]?.path ?? "";
    expect(readFileSync(path).length % 512).toBe(0);
  }
  expect(() => readFileSync(path)).toThrow("ENOENT");
});

test("names are sorted by their bytes, folders come before what is in them, empty ones are left out", () => {
  put({ "b/c": "", "b.txt": "", B: "", é: "", "a-b/x": "", "a/x": "" });
  mkdirSync(join(folder, "nothing/below"), { recursive: true });
  expect(names()).toEqual(["B", "a", "a/x", "a-b", "a-b/x", "b", "b/c", "b.txt", "é"]);
});

test("ignore rules: the innermost file decides, and some folders never go along", () => {
  put({
    ".gitignore": "*.log\n/dist\n!keep.log\n",
    ".gilliamignore": "docs/\n",
    "keep.log": "",
    "x.log": "",
    "dist/x": "",
    "sub/dist/x": "",
    "sub/.gitignore": "!*.log\nsecret\n",
    "sub/y.log": "",
    "sub/secret": "",
    "docs/x": "",
    "node_modules/x/index.js": "",
    "sub/node_modules/x": "",
    ".venv/x": "",
    ".git/HEAD": "",
  });
  expect(names()).toEqual([
    ".gilliamignore",
    ".gitignore",
    "keep.log",
    "sub",
    "sub/.gitignore",
    "sub/dist",
    "sub/dist/x",
    "sub/y.log",
  ]);
});

test("rules of the manifest's folder hold for a source below it, and the manifest itself is not packed", () => {
  put({
    ".gitignore": "*.tmp\nweb/only\n",
    "web/a.tmp": "",
    "web/only": "",
    "web/b": "",
    "gilliam.yaml": "",
  });
  const below = walkSource(join(folder, "web"), { outermost: folder });
  expect(below.entries.map(({ name }) => name)).toEqual(["b"]);
  const all = walkSource(folder, { manifest: join(folder, "gilliam.yaml") });
  expect(all.entries.map(({ name }) => name)).toEqual([".gitignore", "web", "web/b"]);
});

test.for([
  { target: "/etc/passwd", refused: true },
  { target: "../outside", refused: true },
  { target: "a/../../x", refused: true },
  { target: "here/../../x", refused: true }, // `here` leads to the folder itself, so this leaves it.
  { target: "a", refused: false },
  { target: "not-yet", refused: false },
])("a link to $target", ({ target, refused }) => {
  put({ "a/x": "" });
  symlinkSync(".", join(folder, "here"));
  symlinkSync(target, join(folder, "link"));
  expect(walkSource(folder).problems).toHaveLength(refused ? 1 : 0);
});

test("a socket is refused by name", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(join(folder, "s.sock"), resolve));
  expect(walkSource(folder).problems).toEqual([
    "s.sock: is a socket, which cannot be part of an image; add it to .gilliamignore",
  ]);
  await new Promise((resolve) => server.close(resolve));
});

test("every problem of every source comes at once", async () => {
  const manifest: Manifest = {
    ...MANIFEST,
    processes: { a: { source: "./none" }, b: { source: "./file" }, c: { source: "./empty" } },
  };
  put({ file: "" });
  mkdirSync(join(folder, "empty"));
  await expect(packSources(manifest, fileOf(folder))).rejects.toMatchObject({
    problems: [
      expect.stringContaining('processes.a.source "./none": there is no such folder'),
      expect.stringContaining('processes.b.source "./file": is not a folder'),
      expect.stringContaining('processes.c.source "./empty": holds no files'),
    ],
  });
});

test("a file beyond 8 GiB gets a size that fits", () => {
  const header = tarHeader({ name: "big", type: "file", executable: false, size: 2 ** 34, target: "" });
  expect(header.toString("latin1")).toContain("20 size=17179869184\n");
});
