import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { inspectState, prepareState, readToken } from "./state-folder.ts";

let parent: string;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), "gilliam-state-"));
});
afterEach(() => rmSync(parent, { recursive: true }));

function prepare(state: string, token: string) {
  // As root the way to the folder must be open to other users, as it is below /var/lib.
  if (process.getuid?.() === 0) mkdirSync(state, { recursive: true, mode: 0o755 });
  try {
    prepareState(state, () => token);
  } catch (error) {
    if ((error as { code?: string }).code !== "state_folder") throw error; // A closed temporary folder.
  }
}

test("a folder is prepared once: tokens stay, and only their owner reads them", () => {
  const state = join(parent, "state");
  prepare(state, "first");
  prepare(state, "second");
  expect(readToken(state, "token")).toBe("first");
  expect(statSync(join(state, "token")).mode & 0o777).toBe(0o600);
  expect(readFileSync(join(state, "version"), "utf8")).toBe("gilliam state 1\n");
  expect(inspectState(state)).toEqual({ exists: true, platform: undefined });
});

test.for([
  { line: "gilliam state 0\n", words: /older/ },
  { line: "gilliam state 2\n", words: /newer/ },
])("a folder that says $line is refused and left alone", ({ line, words }) => {
  writeFileSync(join(parent, "version"), line);
  writeFileSync(join(parent, "precious"), "");
  expect(() => inspectState(parent)).toThrow(words);
  expect(readdirSync(parent).sort()).toEqual(["precious", "version"]);
});

test("a folder with other things in it is not taken for a state folder", () => {
  writeFileSync(join(parent, "holiday.jpg"), "");
  expect(() => inspectState(parent)).toThrow(expect.objectContaining({ code: "not_state" }));
});

test("a missing and an empty folder are the same: nothing there yet", () => {
  expect(inspectState(join(parent, "missing"))).toEqual({ exists: false, platform: undefined });
  expect(inspectState(parent)).toEqual({ exists: false, platform: undefined });
});
