import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { writeDurable } from "../../base/durable-file.ts";
import { silentLog } from "../../base/log.ts";
import { Cluster, type MeshConfig } from "../../model/mesh.ts";
import { EpochSaver, loadSavedEpoch } from "./saved-epoch.ts";

let folder = "";
let path = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "epoch-"));
  path = join(folder, "epoch.json");
});
afterEach(() => rmSync(folder, { recursive: true }));

const config = (epoch: number): MeshConfig => ({
  epoch,
  clusters: [Cluster.parse({ name: "api.shop", protocol: "http", endpoints: [] })],
  edges: [],
  routes: [],
});

test("the newest epoch is on disk; of several during a write only the newest is written", async () => {
  const settled: number[] = [];
  const saver = new EpochSaver({ path, log: silentLog, onSettled: ({ epoch }) => settled.push(epoch) });
  for (const epoch of [1, 2, 3, 4]) saver.save(config(epoch));
  await saver.idle();
  expect(settled).toEqual([1, 4]);
  expect(loadSavedEpoch(path, silentLog)).toEqual(config(4));
  expect(readdirSync(folder).sort()).toEqual(["epoch.json", "epoch.json.previous"]);
});

test("a disk that refuses does not stop it, and it says so until it works again", async () => {
  const settled: unknown[] = [];
  const blocked = join(folder, "blocked");
  const saver = new EpochSaver({
    path: join(blocked, "epoch.json"),
    log: silentLog,
    onSettled: ({ epoch }, saved) => settled.push([epoch, saved]),
  });
  saver.save(config(1));
  await saver.idle();
  expect(settled).toEqual([[1, false]]);
  expect(saver.failed).toBe(true);
});

test("a damaged file gives the previous generation", () => {
  writeDurable(path, config(1));
  writeDurable(path, config(2));
  writeFileSync(path, "broken");
  expect(loadSavedEpoch(path, silentLog)).toEqual(config(1));
});

test.for([
  { what: "missing", write: () => undefined },
  { what: "damaged twice", write: () => writeFileSync(path, "broken") },
  { what: "of another version", write: () => writeDurable(path, { epoch: 1, tables: [] }) },
])("a file that is $what is nothing, never an empty configuration", ({ write }) => {
  write();
  expect(loadSavedEpoch(path, silentLog)).toBeUndefined();
});
