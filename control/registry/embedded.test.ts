import { execFileSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
  closeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ManualClock } from "../../base/manual-clock.ts";
import { EmbeddedRegistry } from "./embedded.ts";
import { MIGRATIONS, openDatabase, rowSum } from "./sqlite.ts";

let folder = "";
let path = "";
let open: EmbeddedRegistry[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "embedded-"));
  path = join(folder, "registry.db");
});
afterEach(async () => {
  for (const registry of open) await registry.close();
  open = [];
  rmSync(folder, { recursive: true, force: true });
});

function openRegistry(at = path): EmbeddedRegistry {
  const registry = new EmbeddedRegistry({ path: at, clock: new ManualClock() });
  open.push(registry);
  return registry;
}

/** A closed registry with one hundred entries. */
async function fill(): Promise<void> {
  const registry = openRegistry();
  for (let block = 0; block < 2; block++) {
    await registry.write(
      Array.from({ length: 50 }, (_, at) => ({
        kind: "set" as const,
        key: `entry/${block * 50 + at}`,
        value: { text: at === 25 ? "needle" : "x".repeat(200) },
      })),
    );
  }
  await registry.close();
}

describe("a damaged file is refused by name, never taken for an empty registry", () => {
  const damages: { what: string; damage: () => void }[] = [
    { what: "emptied", damage: () => writeFileSync(path, "") },
    { what: "truncated", damage: () => truncateSync(path, Math.floor(statSync(path).size / 2)) },
    { what: "overwritten at its beginning", damage: () => overwrite(0, "garbage garbage") },
    { what: "flipped by one bit in a value", damage: () => flip("needle") },
    { what: "not a database at all", damage: () => writeFileSync(path, "x".repeat(5_000)) },
    {
      what: "gone, but its log is there",
      damage: () => {
        writeFileSync(`${path}-wal`, "log");
        rmSync(path);
      },
    },
  ];
  test.for(damages)("$what", async ({ damage }) => {
    await fill();
    damage();
    expect(() => openRegistry()).toThrowError(
      expect.objectContaining({ code: "registry_damaged", message: expect.stringContaining(path) }),
    );
  });

  test("the way back that the error names works", async () => {
    await fill();
    await openRegistry().close(); // Keeps a copy of what it opened.
    flip("needle");
    let next = "";
    try {
      openRegistry();
    } catch (error) {
      next = (error as { next: string }).next;
    }
    const command = /(mv .*) Running/.exec(next)?.[1]?.replace(/\.$/, "") ?? "";
    expect(command).toContain(`cp ${path}.backup ${path}`);
    execFileSync("sh", ["-ec", command]);
    expect((await openRegistry().list("entry/")).entries).toHaveLength(100);
  });

  function overwrite(position: number, text: string): void {
    const file = openSync(path, "r+");
    writeSync(file, text, position);
    closeSync(file);
  }

  /** In every place: pages keep old copies of rows that moved. */
  function flip(text: string): void {
    const bytes = readFileSync(path);
    for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + 1)) overwrite(at, "N");
  }
});

describe("schema", () => {
  test("the first schema is brought up, with a copy kept of how it was", async () => {
    const old = openDatabase(path, MIGRATIONS.slice(0, 1));
    old.prepare("INSERT INTO entries VALUES ('a', '1', 1, ?)").run(rowSum("a", "1", 1));
    old.exec("UPDATE counters SET value = 1");
    old.close();
    const registry = openRegistry();
    expect(await registry.list("")).toEqual({ entries: [{ key: "a", value: 1, revision: 1 }], revision: 1 });
    expect((await registry.write([{ kind: "delete", key: "a" }])).ok).toBe(true);
    const kept = new DatabaseSync(`${path}.schema-1`, { readOnly: true });
    expect(kept.prepare("PRAGMA user_version").get()).toEqual({ user_version: 1 });
    kept.close();
  });

  test("a newer one is refused and not touched", async () => {
    await fill();
    const database = new DatabaseSync(path);
    database.exec(`PRAGMA user_version=${MIGRATIONS.length + 5}`);
    database.close();
    const before = readFileSync(path);
    expect(() => openRegistry()).toThrowError(expect.objectContaining({ code: "registry_too_new" }));
    expect(readFileSync(path)).toEqual(before);
  });

  test("another program's database is refused", () => {
    const database = new DatabaseSync(path);
    database.exec("CREATE TABLE songs (title TEXT)");
    database.close();
    expect(() => openRegistry()).toThrowError(expect.objectContaining({ code: "registry_foreign" }));
  });
});

test("a second process is told that the registry is in use", async () => {
  openRegistry();
  const script = `
    const { EmbeddedRegistry } = await import(${JSON.stringify(new URL("embedded.ts", import.meta.url).href)});
    const { systemClock } = await import(${JSON.stringify(new URL("../../base/clock.ts", import.meta.url).href)});
    try { new EmbeddedRegistry({ path: ${JSON.stringify(path)}, clock: systemClock, waitMs: 50 }); } catch (error) { console.log(error.code); }`;
  const told = execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  expect(told.trim()).toBe("registry_in_use");
});

test("a file left half made by a crash is made anew", async () => {
  writeFileSync(`${path}.new`, "half");
  await openRegistry().write([{ kind: "set", key: "a", value: 1 }]);
  expect(existsSync(`${path}.new`)).toBe(false);
});

test("a watcher further behind than deletions are remembered hears at once", async () => {
  const registry = openRegistry();
  const { revision } = await registry.list("a/");
  for (let block = 0; block < 160; block++) {
    const keys = Array.from({ length: 63 }, (_, at) => `b/${block * 63 + at}`);
    await registry.write(keys.map((key) => ({ kind: "set", key, value: 0 })));
    await registry.write(keys.map((key) => ({ kind: "delete", key })));
  }
  const signal = AbortSignal.timeout(5_000);
  const listing = await registry.watch("a/", revision, { timeoutMs: 60_000, signal });
  expect(listing.entries).toEqual([]);
});

const isRoot = process.getuid?.() === 0;

describe.runIf(isRoot && process.platform === "linux")("on a small disk", () => {
  let disk = "";
  beforeEach(() => {
    disk = join(folder, "disk");
    mkdirSync(disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=512k", "tmpfs", disk]);
  });
  afterEach(async () => {
    for (const registry of open) await registry.close();
    open = [];
    execFileSync("umount", [disk]);
  });

  test("when it is full, writes are refused, nothing acknowledged is lost, and with space it goes on", async () => {
    const at = join(disk, "registry.db");
    const registry = openRegistry(at);
    const acknowledged: string[] = [];
    let refusal: { code?: string } = {};
    for (let number = 0; refusal.code === undefined && number < 500; number++) {
      const key = `k/${number}`;
      try {
        await registry.write([{ kind: "set", key, value: "x".repeat(5_000) }]);
        acknowledged.push(key);
      } catch (error) {
        refusal = error as { code?: string };
      }
    }
    expect(refusal.code).toBe("registry_full");
    expect(acknowledged.length).toBeGreaterThan(5);
    const keys = async (from: EmbeddedRegistry) => (await from.list("k/")).entries.map(({ key }) => key);
    expect(await keys(registry)).toEqual(acknowledged.toSorted());
    execFileSync("mount", ["-o", "remount,size=4m", disk]);
    expect((await registry.write([{ kind: "set", key: "k/after", value: 1 }])).ok).toBe(true);
    await registry.close();
    expect(await keys(openRegistry(at))).toEqual([...acknowledged, "k/after"].toSorted());
  });

  test("when it has no room for a registry at all, the error says so", () => {
    writeFileSync(join(disk, "ballast"), Buffer.alloc(508 * 1024));
    expect(() => openRegistry(join(disk, "registry.db"))).toThrowError(
      expect.objectContaining({ code: "registry_full" }),
    );
  });

  test("when it is read-only, it is said that it cannot be written", async () => {
    await fill();
    copyFileSync(path, join(disk, "registry.db"));
    execFileSync("mount", ["-o", "remount,ro", disk]);
    expect(() => openRegistry(join(disk, "registry.db"))).toThrowError(
      expect.objectContaining({ code: "registry_unavailable" }),
    );
  });
});

test("a folder that cannot be written is told as such", () => {
  chmodSync(folder, 0o555);
  // Root may write anywhere, so it steps down for the attempt.
  if (isRoot) process.seteuid?.(65_534);
  try {
    expect(() => openRegistry()).toThrowError(expect.objectContaining({ code: "registry_unavailable" }));
  } finally {
    if (isRoot) process.seteuid?.(0);
    chmodSync(folder, 0o700);
  }
});
