import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { parseGears } from "../model/gear.ts";
import { parseManifest } from "../model/manifest-parse.ts";

const folders = (at: string) =>
  readdirSync(new URL(at, import.meta.url), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name);
const textOf = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8");

const gearFiles = folders("../model/gears").map((name) => {
  const file = `model/gears/${name}/gear.yaml`;
  return { file, text: textOf(`../${file}`) };
});

test("every gear of the repository is well written", () => {
  const parsed = parseGears(gearFiles);
  expect(parsed.ok ? [] : parsed.problems).toEqual([]);
});

test.for(folders("../examples"))("examples/%s has a manifest without problems", (name) => {
  const file = `examples/${name}/gilliam.yaml`;
  const gears = parseGears(gearFiles);
  const parsed = parseManifest(textOf(`../${file}`), file, gears.ok ? { gears: gears.gears } : {});
  expect(parsed.ok ? [] : parsed.problems).toEqual([]);
});
