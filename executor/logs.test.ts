import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ManualClock } from "../base/manual-clock.ts";
import type { LogLine } from "../model/api.ts";
import { Logs } from "./logs.ts";
import { LINE_BYTES_MAX, splitLines } from "./spool.ts";

const id = "shop-web-r1-aaaaa";
const names = { formation: "shop", service: "web", release: 1 };
let folder = "";
let clock: ManualClock;
let errors: unknown[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "logs-"));
  clock = new ManualClock();
  errors = [];
});
afterEach(() => rmSync(folder, { recursive: true }));

const spools = () => ({ stdout: join(folder, "stdout"), stderr: join(folder, "stderr") });
const write = (text: string) => appendFileSync(spools().stdout, text);
const openLogs = (options: { fileBytes?: number; canPunch?: boolean; goneKept?: number } = {}) =>
  new Logs({
    folder: join(folder, "logs"),
    clock,
    limits: { fileBytes: options.fileBytes ?? 1_000_000, filesKept: 3 },
    goneKept: options.goneKept ?? 5,
    punch: async (path, bytes) => {
      if (options.canPunch === false) return false;
      execFileSync("fallocate", ["--punch-hole", "--offset", "0", "--length", String(bytes), path]);
      return true;
    },
    onError: (_id, error) => errors.push(error),
  });
const texts = (logs: Logs, count = 1_000) => logs.tail({ instanceId: id }, count).map(({ text }) => text);

test("lines of both streams are stored, an unfinished one when the instance has ended", () => {
  const logs = openLogs();
  logs.open(id, names, spools());
  write("one\r\ntwo\nthr");
  appendFileSync(spools().stderr, "oops\n");
  expect(texts(logs)).toEqual(["one", "two", "oops"]);
  write("ee");
  logs.flush(id);
  expect(texts(logs)).toEqual(["one", "two", "oops", "three"]);
  expect(logs.lastLines(id)).toEqual(["one", "two", "oops", "three"]);
  expect(logs.tail({}, 1)).toEqual([
    { atMs: clock.wallMs(), service: "web", instanceId: id, release: 1, stream: "stdout", text: "three" },
  ]);
  logs.closeAll();
});

test("an unfinished line is shown after two seconds, and not before", async () => {
  const logs = openLogs();
  logs.open(id, names, spools());
  write("Password: ");
  await clock.advance(1_900);
  expect(texts(logs)).toEqual([]);
  await clock.advance(400);
  expect(texts(logs)).toEqual(["Password: "]);
  logs.closeAll();
});

test("a new executor goes on exactly where the last one stopped, a torn line included", () => {
  const first = openLogs();
  first.open(id, names, spools());
  write("1\n2\n");
  first.closeAll();
  write("3\n4\n");
  const second = openLogs();
  second.open(id, names, spools());
  expect(texts(second)).toEqual(["1", "2", "3", "4"]);
  second.closeAll();
  const file = join(folder, "logs", id, "00000001.ndjson");
  truncateSync(file, statSync(file).size - 3); // Died while it wrote the row of "4".
  write("5\n");
  const third = openLogs();
  third.open(id, names, spools());
  expect(texts(third)).toEqual(["1", "2", "3", "4", "5"]);
  expect(third.lastLines(id)).toEqual(["1", "2", "3", "4", "5"]);
  third.closeAll();
});

test("files are rotated by size and only so many kept; what is left to read survives that and a restart", () => {
  const logs = openLogs({ fileBytes: 2_000 });
  logs.open(id, names, spools());
  for (let line = 0; line < 300; line += 1) {
    write(`line ${line}\n`);
    if (line % 10 === 9) logs.flush(id);
  }
  expect(readdirSync(join(folder, "logs", id)).filter((name) => name.endsWith(".ndjson")).length).toBe(3);
  expect(texts(logs, 3)).toEqual(["line 297", "line 298", "line 299"]);
  logs.closeAll();
  const again = openLogs({ fileBytes: 2_000 });
  again.open(id, names, spools());
  write("after\n");
  expect(texts(again, 2)).toEqual(["line 299", "after"]);
  again.closeAll();
});

test.for([true, false])("consumed output is given back to the disk (holes: %s)", async (canPunch) => {
  const logs = openLogs({ canPunch, fileBytes: 100_000 });
  logs.open(id, names, spools());
  const line = `${"x".repeat(999)}\n`;
  for (let part = 0; part < 8; part += 1) {
    write(line.repeat(1_000));
    await clock.advance(200);
  }
  await clock.advance(200);
  expect(statSync(spools().stdout).blocks * 512).toBeLessThan(3_000_000);
  write("after\n");
  expect(texts(logs, 1)).toEqual(["after"]);
  expect(errors).toEqual([]);
  logs.closeAll();
});

test("a follower gets the lines that match, from now on", async () => {
  const logs = openLogs();
  logs.open(id, names, spools());
  write("before\n");
  logs.flush(id);
  const mine: LogLine[] = [];
  const others: LogLine[] = [];
  const following = logs.follow({ formation: "shop", service: "web" }, (line) => mine.push(line));
  logs.follow({ service: "api" }, (line) => others.push(line));
  write("now\n");
  logs.note(id, "ready");
  expect(mine.map(({ stream, text }) => [stream, text])).toEqual([
    ["stdout", "now"],
    ["system", "ready"],
  ]);
  following[Symbol.dispose]();
  write("later\n");
  await clock.advance(200);
  expect(mine.length).toBe(2);
  expect(others).toEqual([]);
  logs.closeAll();
});

test("logs of instances that are gone stay, the newest of them", () => {
  const logs = openLogs({ goneKept: 1 });
  for (const gone of ["a", "b"]) {
    writeFileSync(spools().stdout, `${gone}\n`);
    logs.open(gone, names, spools());
    logs.close(gone);
  }
  expect(readdirSync(join(folder, "logs")).length).toBe(1);
  expect(logs.tail({ formation: "shop" }, 10).length).toBe(1);
  logs.closeAll();
});

test("a line without end is split, never inside a character", () => {
  const text = "é".repeat(LINE_BYTES_MAX); // Two bytes each.
  const lines = splitLines(Buffer.from(`a${text}\n`), 0, false);
  expect(lines.length).toBe(3);
  expect(lines.map((line) => line.text).join("")).toBe(`a${text}`);
  expect(lines.at(-1)?.offset).toBe(LINE_BYTES_MAX * 2 + 2);
});
