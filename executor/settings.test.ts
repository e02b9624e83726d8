import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readSettings, settingsReference } from "../base/settings.ts";
import { executorSettings } from "./settings.ts";

test("README.md lists every setting as it is", () => {
  const readme = readFileSync(join(import.meta.dirname, "README.md"), "utf8");
  const section = /<!-- settings -->\n([\s\S]*?)\n<!-- \/settings -->/.exec(readme)?.[1] ?? "";
  const cells = (table: string) =>
    table
      .trim()
      .split("\n")
      .map((row) => row.split("|").map((cell) => cell.trim().replace(/^-+$/, "---")));
  expect(cells(section)).toEqual(cells(settingsReference(executorSettings)));
});

test("one machine needs no setting but the state folder", () => {
  expect(readSettings("executor", executorSettings, { GILLIAM_STATE: "/state" })).toMatchObject({
    state: "/state",
    controlUrl: "http://127.0.0.1:7000",
    port: 7010,
    network: "auto",
  });
  expect(() => readSettings("executor", executorSettings, {})).toThrow("settings are wrong");
});
