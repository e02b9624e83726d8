import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { describe, expect, test } from "vitest";

/** What lint cannot check: documents that point at things, and the top level that stays as it is. */
const root = resolve(import.meta.dirname, "..");
const listed = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
  cwd: root,
  encoding: "utf8",
}).split("\n");
const files = listed.filter((path) => path !== "" && existsSync(join(root, path)));
const documents = files.filter((path) => path.endsWith(".md"));

test.for(documents)("every relative link of %s resolves", (path) => {
  const text = readFileSync(join(root, path), "utf8").replaceAll(/```[\s\S]*?```/g, "");
  const targets = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1] ?? "");
  const broken = targets
    .filter((target) => !/^(?:https?:|mailto:|#)/.test(target))
    .filter((target) => !existsSync(join(root, dirname(path), target.replace(/#.*$/, ""))));
  expect(broken).toEqual([]);
});

describe("walks", () => {
  /** A stop of a walk is written `folder/file.ts` `functionName`: the file must exist and hold that word. */
  const stops = documents.flatMap((path) =>
    [...readFileSync(join(root, path), "utf8").matchAll(/`([\w./-]+\.ts)`\s+`(\w+)`/g)].map((match) => ({
      path,
      file: match[1] ?? "",
      name: match[2] ?? "",
    })),
  );
  test("ARCHITECTURE.md walks", () => {
    expect(stops.filter(({ path }) => path === "ARCHITECTURE.md").length).toBeGreaterThan(15);
  });
  test.for(stops)("$path: $file has $name", ({ path, file, name }) => {
    const place = [join(root, file), join(root, dirname(path), file)].find((candidate) =>
      existsSync(candidate),
    );
    expect(place, `${file} does not exist`).toBeDefined();
    expect(readFileSync(place ?? "", "utf8")).toMatch(new RegExp(`\\b${name}\\b`));
  });
});

test("the top level holds nothing that ARCHITECTURE.md does not explain", () => {
  const known = readFileSync(join(root, "ARCHITECTURE.md"), "utf8");
  const top = [...new Set(files.map((path) => path.split("/")[0] ?? ""))];
  expect(top.filter((name) => !known.includes(`\`${name}`))).toEqual([]);
});

test("the lock file names every optional package, so that npm ci accepts it everywhere", () => {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>;
  };
  const wanted = Object.values(lock.packages).flatMap((entry) =>
    Object.keys(entry.optionalDependencies ?? {}),
  );
  const missing = wanted.filter((name) => lock.packages[`node_modules/${name}`] === undefined);
  expect(missing, "run: npm run lock").toEqual([]);
});

test("no file speaks of the machine or the place it was made on", () => {
  const offenders = files
    .filter((path) => path !== "test/tidy.test.ts" && !/\.(?:png|svg|ico|woff2?)$/.test(path))
    .filter((path) =>
      /\/work\/(?:main|wt|shared)|registry\.npmjs/.test(readFileSync(join(root, path), "utf8")),
    );
  expect(offenders).toEqual([]);
});
