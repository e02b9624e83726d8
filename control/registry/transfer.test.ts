import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ManualClock } from "../../base/manual-clock.ts";
import { EmbeddedRegistry } from "./embedded.ts";
import { exportRegistry, importRegistry } from "./transfer.ts";

let folder = "";
let from: EmbeddedRegistry;
let to: EmbeddedRegistry;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "transfer-"));
  const clock = new ManualClock();
  from = new EmbeddedRegistry({ path: join(folder, "from.db"), clock });
  to = new EmbeddedRegistry({ path: join(folder, "to.db"), clock });
});

afterEach(async () => {
  await from.close();
  await to.close();
  rmSync(folder, { recursive: true });
});

const contentOf = async (registry: EmbeddedRegistry) =>
  (await registry.list("")).entries.map(({ key, value }) => [key, value]);

test("what is exported from one registry is the content of another after the import, many transactions or not", async () => {
  for (let at = 0; at < 150; at++) await from.write([{ kind: "set", key: `a/${at}`, value: { at } }]);
  const dump = await exportRegistry(from, 5);
  expect(await importRegistry(to, dump, false)).toEqual({ written: 150, same: 0, kept: [] });
  expect(await contentOf(to)).toEqual(await contentOf(from));
  expect(await importRegistry(to, dump, false)).toEqual({ written: 0, same: 150, kept: [] });
});

test("what is there and differs stays and is named; with replace it is written over; nothing is removed", async () => {
  await from.write([{ kind: "set", key: "a", value: "theirs" }]);
  await to.write([
    { kind: "set", key: "a", value: "ours" },
    { kind: "set", key: "b", value: "only ours" },
  ]);
  const dump = await exportRegistry(from, 5);
  expect(await importRegistry(to, dump, false)).toEqual({ written: 0, same: 0, kept: ["a"] });
  expect((await to.get("a"))?.value).toBe("ours");
  expect(await importRegistry(to, dump, true)).toEqual({ written: 1, same: 0, kept: [] });
  expect(await contentOf(to)).toEqual([
    ["a", "theirs"],
    ["b", "only ours"],
  ]);
});

test("a counter never goes back, whatever is said", async () => {
  await from.write([{ kind: "set", key: "counters/epoch", value: 10 }]);
  await to.write([{ kind: "set", key: "counters/epoch", value: 20 }]);
  expect((await importRegistry(to, await exportRegistry(from, 5), true)).written).toBe(0);
  expect((await importRegistry(from, await exportRegistry(to, 5), false)).written).toBe(1);
  expect((await from.get("counters/epoch"))?.value).toBe(20);
});
