import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { settingsReference } from "../../base/settings.ts";
import { defaultHttp2Limits, http2Settings } from "./limits.ts";

test("the README has the reference of every setting", () => {
  // The formatter pads the columns of tables.
  const squeeze = (text: string) => text.replaceAll(/ +/g, " ");
  const readme = squeeze(readFileSync(new URL("README.md", import.meta.url), "utf8"));
  for (const row of settingsReference(http2Settings).split("\n").slice(2))
    expect(readme).toContain(squeeze(row));
});

test("the defaults parse", () => {
  expect(defaultHttp2Limits()).toMatchObject({
    streamsMax: 128,
    streamWindowBytes: 262_144,
    stallTimeoutMs: 60_000,
  });
});
