import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { settingsReference } from "../base/settings.ts";
import { edgeSettings } from "../proxy/agent/settings.ts";
import { edgeTlsSettings } from "../proxy/agent/tls-settings.ts";
import { sidecarSettings } from "../sidecar/settings.ts";

/** Formatters pad table cells; what is said is what counts. */
const squeeze = (text: string) =>
  text
    .trim()
    .split("\n")
    .filter((line) => !/^[|\s:-]+$/.test(line))
    .map((line) => line.replaceAll(/\s+/g, " "));

test.for([
  { readme: "proxy/agent/README.md", table: edgeSettings },
  { readme: "proxy/README.md", table: edgeTlsSettings },
  { readme: "sidecar/README.md", table: sidecarSettings },
])("the settings in $readme are those of the code", ({ readme, table }) => {
  const text = readFileSync(join(import.meta.dirname, "..", readme), "utf8");
  const written = /<!-- settings -->([^]*)<!-- \/settings -->/.exec(text)?.[1] ?? "";
  expect(squeeze(written)).toEqual(squeeze(settingsReference(table)));
});
