import { copyFileSync, existsSync, renameSync, rmSync, statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { crc32 } from "node:zlib";
import { UserError, errnoOf, messageOf } from "../../base/errors.ts";

/**
 * Opening the file of the embedded registry: one writer, checked from end to end, migrated step by step.
 * A file that is damaged, foreign or newer is refused by name and left alone; it is never taken for an empty one.
 */

/** "GLLM", in the header of every registry file, so that another program's database is told apart. */
const APPLICATION_ID = 0x474c4c4d;

/** Step n brings schema n to schema n+1. A new file takes all of them, so the way up is walked every time. */
export const MIGRATIONS: readonly string[] = [
  `CREATE TABLE entries (
     key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL, sum INTEGER NOT NULL
   ) WITHOUT ROWID, STRICT;
   CREATE TABLE registrations (
     kind TEXT NOT NULL, id TEXT NOT NULL, value TEXT NOT NULL, ttl_ms INTEGER NOT NULL, PRIMARY KEY (kind, id)
   ) WITHOUT ROWID, STRICT;
   CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID, STRICT;
   INSERT INTO counters VALUES ('revision', 0);`,
  // Deletions are remembered so that a watch over a prefix hears of them.
  `CREATE TABLE deletions (key TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID, STRICT;
   INSERT INTO counters VALUES ('deletions_since', (SELECT value FROM counters WHERE name = 'revision'));`,
];

/** Checksum of one row: a flipped bit on disk is noticed when the file is opened. */
export function rowSum(key: string, value: string, revision: number): number {
  return crc32(`${key}\n${revision}\n${value}`);
}

/**
 * Opens or creates the database at `path`, holding it for this process alone until closed.
 * @throws UserError "registry_in_use", "registry_damaged", "registry_foreign", "registry_too_new",
 * "registry_full", "registry_unavailable"
 */
export function openDatabase(path: string, migrations = MIGRATIONS, waitMs = 3_000): DatabaseSync {
  const isNew = !existsSync(path);
  if (isNew && existsSync(`${path}-wal`))
    throw damaged(path, "its write-ahead log is there, the file is not");
  if (!isNew && statSync(path).size === 0) throw damaged(path, "the file is empty");
  if (isNew) return create(path, migrations);
  const database = connect(path, waitMs);
  try {
    migrate(database, path, migrations);
    verify(database, path);
    keepBackup(database, path);
    return database;
  } catch (error) {
    database.close();
    throw asUserError(error, path);
  }
}

/** A file of this name is whole from the first moment: it is made beside and renamed. */
function create(path: string, migrations: readonly string[]): DatabaseSync {
  const draft = `${path}.new`;
  for (const end of ["", "-wal", "-shm"]) rmSync(`${draft}${end}`, { force: true });
  const made = connect(draft, 0);
  try {
    made.exec(`PRAGMA application_id=${APPLICATION_ID}`);
    migrate(made, draft, migrations);
  } catch (error) {
    throw asUserError(error, path);
  } finally {
    made.close(); // Folds the write-ahead log into the file.
  }
  renameSync(draft, path);
  return connect(path, 0);
}

function connect(path: string, waitMs: number): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path, { timeout: waitMs });
    database.exec("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
    database.exec("BEGIN IMMEDIATE; COMMIT"); // Takes the lock now, not at the first write.
    return database;
  } catch (error) {
    database?.close();
    throw asUserError(error, path);
  }
}

function migrate(database: DatabaseSync, path: string, migrations: readonly string[]): void {
  const id = numberOf(database, "PRAGMA application_id", "application_id");
  const version = numberOf(database, "PRAGMA user_version", "user_version");
  if (id !== APPLICATION_ID) {
    throw new UserError(`${path} is a database, but not a Gilliam registry`, {
      code: "registry_foreign",
      status: 500,
      next: `Point GILLIAM_STATE to Gilliam's own folder, or move ${path} away.`,
    });
  }
  if (version > migrations.length) {
    throw new UserError(
      `${path} was written by a newer Gilliam: its schema is ${version}, this version knows up to ${migrations.length}`,
      { code: "registry_too_new", status: 500, next: "Start the newer version again. Nothing was changed." },
    );
  }
  if (version === migrations.length) return;
  if (version > 0) {
    database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    copyFileSync(path, `${path}.schema-${version}`);
  }
  for (const [at, step] of migrations.entries()) {
    if (at < version) continue;
    database.exec(`BEGIN IMMEDIATE; ${step}; PRAGMA user_version=${at + 1}; COMMIT`);
  }
}

/** Reads everything once: the pages by SQLite's own check, the rows by their checksums. */
function verify(database: DatabaseSync, path: string): void {
  const [row] = database.prepare("PRAGMA quick_check(1)").all();
  if (row?.["quick_check"] !== "ok") throw damaged(path, String(row?.["quick_check"]));
  for (const { key, value, revision, sum } of database.prepare("SELECT * FROM entries").iterate()) {
    if (rowSum(String(key), String(value), Number(revision)) !== sum) {
      throw damaged(path, `the checksum of "${String(key)}" does not match`);
    }
  }
}

/** A whole copy of the state as it was opened, to go back to by hand. No space for it is no reason not to start. */
function keepBackup(database: DatabaseSync, path: string): void {
  const draft = `${path}.backup.new`;
  try {
    rmSync(draft, { force: true });
    database.prepare("VACUUM INTO ?").run(draft);
    renameSync(draft, `${path}.backup`);
  } catch (error) {
    rmSync(draft, { force: true });
    if (!isFull(error) && !isReadOnly(error)) throw error;
  }
}

function damaged(path: string, what: string): UserError {
  const backup = existsSync(`${path}.backup`)
    ? `To go back to the copy of ${statSync(`${path}.backup`).mtime.toISOString()}: mv ${path} ${path}.damaged; rm -f ${path}-wal; cp ${path}.backup ${path}`
    : `Restore ${path} from your own backup. To begin with an empty registry instead, move it away: mv ${path} ${path}.damaged; rm -f ${path}-wal`;
  return new UserError(`The registry ${path} is damaged: ${what}`, {
    code: "registry_damaged",
    status: 500,
    next: `${backup} Running instances and traffic are not touched meanwhile.`,
  });
}

function numberOf(database: DatabaseSync, sql: string, column: string): number {
  return Number(database.prepare(sql).get()?.[column]);
}

// Primary result codes: https://www.sqlite.org/rescode.html
const BUSY = 5;
const READONLY = 8;
const IO_ERROR = 10;
const CORRUPT = 11;
const FULL = 13;
const CANNOT_OPEN = 14;
const NOT_A_DATABASE = 26;

/** The low byte of an extended SQLite code; 0 when SQLite did not throw. */
function primaryCode(error: unknown): number {
  const code = (error as { errcode?: unknown } | null | undefined)?.errcode;
  return typeof code === "number" ? code & 0xff : 0;
}

function isFull(error: unknown): boolean {
  return primaryCode(error) === FULL || errnoOf(error) === "ENOSPC" || errnoOf(error) === "EDQUOT";
}

function isReadOnly(error: unknown): boolean {
  return primaryCode(error) === READONLY || primaryCode(error) === CANNOT_OPEN || errnoOf(error) === "EROFS";
}

/** What a failure of SQLite or of the file system means to whoever runs this control; bugs pass through. */
export function asUserError(error: unknown, path: string): unknown {
  if (error instanceof UserError) return error;
  if (isFull(error)) {
    return new UserError(`The disk of the registry ${path} is full; nothing was written, nothing is lost`, {
      code: "registry_full",
      status: 507,
      next: "Free some space on that disk, then try again.",
      cause: error,
    });
  }
  if (isReadOnly(error)) {
    return unavailable(
      `The registry ${path} cannot be written`,
      `Make ${path} and its folder writable.`,
      error,
    );
  }
  switch (primaryCode(error)) {
    case BUSY:
      return new UserError(`The registry ${path} is in use by another process`, {
        code: "registry_in_use",
        status: 503,
        next: `Stop the other control first; \`fuser ${path}\` names it.`,
        cause: error,
      });
    case CORRUPT:
    case NOT_A_DATABASE:
      return damaged(path, messageOf(error));
    case IO_ERROR:
      return unavailable(
        `The disk of the registry ${path} fails`,
        "Check the disk (dmesg), then restart the control; traffic goes on meanwhile.",
        error,
      );
    default:
      return error;
  }
}

/** True when what is on disk is no longer certain: nothing more may be acknowledged by this process. */
export function isDiskFailure(error: unknown): boolean {
  return primaryCode(error) === IO_ERROR;
}

function unavailable(message: string, next: string, cause: unknown): UserError {
  return new UserError(`${message}: ${messageOf(cause)}`, {
    code: "registry_unavailable",
    status: 503,
    next,
    cause,
  });
}
