import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { settingsReference } from "../base/settings.ts";
import { cliSettings } from "./settings.ts";

/** Formatters pad table cells; what is said is what counts. */
const squeeze = (text: string) =>
  text
    .trim()
    .split("\n")
    .filter((line) => !/^[|\s:-]+$/.test(line))
    .map((line) => line.replaceAll(/\s+/g, " "));

test("the settings in README.md are those of the code", () => {
  const text = readFileSync(new URL("README.md", import.meta.url), "utf8");
  const written = /<!-- settings -->([^]*)<!-- \/settings -->/.exec(text)?.[1] ?? "";
  expect(squeeze(written)).toEqual(squeeze(settingsReference(cliSettings)));
});
