import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { settingsReference } from "../base/settings.ts";
import { controlSettings } from "./settings.ts";

/** Cells without the padding a formatter may add. */
const cells = (table: string) =>
  table
    .trim()
    .split("\n")
    .map((row) => row.split("|").map((cell) => cell.trim().replace(/^-+$/, "---")));

test("the reference in README.md is what the settings are", () => {
  const text = readFileSync(new URL("README.md", import.meta.url), "utf8");
  const shown = /<!-- settings:[^\n]*-->\n(.*?)<!-- \/settings -->/s.exec(text)?.[1] ?? "";
  expect(cells(shown)).toEqual(cells(settingsReference(controlSettings)));
});
