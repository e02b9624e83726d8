import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Clock } from "../../base/clock.ts";
import { UserError } from "../../base/errors.ts";
import { EmbeddedLocks } from "./embedded-locks.ts";
import { checkKey, checkPrefix, checkRegistration, checkWrites } from "./limits.ts";
import type {
  Entry,
  Fence,
  Listing,
  Lock,
  LockHolder,
  Registration,
  Registry,
  Write,
  WriteResult,
} from "./registry.ts";
import { MIGRATIONS, asUserError, isDiskFailure, openDatabase, rowSum } from "./sqlite.ts";

export interface EmbeddedOptions {
  /** The database file; its folder exists. */
  readonly path: string;
  readonly clock: Clock;
  /** How long to wait for a control that is just being replaced, in milliseconds. @default 3_000 */
  readonly waitMs?: number;
}

/** Deletions a watch can still hear of; a watcher further behind is told to look again. */
const DELETIONS_MAX = 10_000;

interface Waiter {
  readonly prefix: string;
  readonly wake: () => void;
}

/**
 * The registry of one machine: one SQLite file in write-ahead mode with a sync at every commit, held by one process.
 * Revisions come from one counter over all keys, so the listing's revision is the registry's.
 */
export class EmbeddedRegistry implements Registry {
  readonly description: string;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #database: DatabaseSync;
  readonly #sql: Record<keyof typeof SQL, StatementSync>;
  readonly #waiters = new Set<Waiter>();
  /** Monotonic expiry of every registration, by `kind/id`. */
  readonly #expiresMs = new Map<string, number>();
  readonly #locks: EmbeddedLocks;
  #failure: UserError | undefined;
  #closed = false;

  constructor({ path, clock, waitMs = 3_000 }: EmbeddedOptions) {
    this.description = `embedded (${path})`;
    this.#path = path;
    this.#clock = clock;
    this.#database = openDatabase(path, MIGRATIONS, waitMs);
    this.#sql = Object.fromEntries(
      Object.entries(SQL).map(([name, text]) => [name, this.#database.prepare(text)]),
    ) as Record<keyof typeof SQL, StatementSync>;
    this.#locks = new EmbeddedLocks((name, above) =>
      this.#transaction(() => {
        const counter = `lock/${name}`;
        const token = Math.max(Number(this.#sql.counter.get(counter)?.["value"] ?? 0), above) + 1;
        this.#sql.setCounter.run(counter, token);
        return token;
      }),
    );
    // Nobody could renew while no control ran: each gets its whole time again, measured from now.
    for (const { kind, id, ttl_ms } of this.#sql.registrations.all()) {
      this.#expiresMs.set(`${String(kind)}/${String(id)}`, clock.nowMs() + Number(ttl_ms));
    }
  }

  get trouble(): string | undefined {
    return this.#failure?.message;
  }

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    return this.#guard(() => {
      const row = this.#sql.get.get(key);
      return row === undefined ? undefined : entryOf(row);
    });
  }

  async list(prefix: string): Promise<Listing> {
    checkPrefix(prefix);
    return this.#guard(() => ({
      entries: this.#sql.list.all(prefix, afterPrefix(prefix)).map(entryOf),
      revision: this.#revision(),
    }));
  }

  async write(writes: readonly Write[], fence?: Fence): Promise<WriteResult> {
    const texts = checkWrites(writes);
    if (fence !== undefined) this.#locks.check(fence);
    const result = this.#transaction(() => this.#apply(writes, texts));
    if (result.ok) {
      for (const { prefix, wake } of this.#waiters) {
        if (writes.some(({ key }) => key.startsWith(prefix))) wake();
      }
    }
    return result;
  }

  #apply(writes: readonly Write[], texts: readonly (string | undefined)[]): WriteResult {
    for (const { key, ifRevision } of writes) {
      if (ifRevision === undefined) continue;
      const found = Number(this.#sql.revisionOf.get(key)?.["revision"] ?? 0);
      if (found !== ifRevision) return { ok: false, key };
    }
    const revision = this.#revision() + 1;
    this.#sql.setRevision.run(revision);
    for (const [at, { key }] of writes.entries()) {
      const text = texts[at];
      if (text === undefined) {
        if (this.#sql.remove.run(key).changes > 0) this.#sql.bury.run(key, revision);
      } else {
        this.#sql.set.run(key, text, revision, rowSum(key, text, revision));
        this.#sql.unbury.run(key);
      }
    }
    this.#pruneDeletions();
    return { ok: true, revision };
  }

  #pruneDeletions(): void {
    if (Number(this.#sql.deletionCount.get()?.["count"]) <= DELETIONS_MAX) return;
    this.#sql.setDeletionsSince.run(Number(this.#sql.medianDeletion.get(DELETIONS_MAX / 2)?.["revision"]));
    this.#sql.pruneDeletions.run();
  }

  async watch(
    prefix: string,
    afterRevision: number,
    { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
  ): Promise<Listing> {
    checkPrefix(prefix);
    signal.throwIfAborted();
    if (!this.#guard(() => this.#changedAfter(prefix, afterRevision))) {
      await this.#change(prefix, timeoutMs, signal);
    }
    return this.list(prefix);
  }

  /** True too when it cannot be known: more deletions than are remembered, or a revision from another history. */
  #changedAfter(prefix: string, revision: number): boolean {
    if (revision > this.#revision()) return true;
    if (revision < Number(this.#sql.deletionsSince.get()?.["value"])) return true;
    const bounds = [prefix, afterPrefix(prefix), revision] as const;
    return this.#sql.changed.get(...bounds, ...bounds) !== undefined;
  }

  #change(prefix: string, timeoutMs: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const tidy = () => {
        timer[Symbol.dispose]();
        signal.removeEventListener("abort", onAbort);
        this.#waiters.delete(waiter);
      };
      const wake = () => {
        tidy();
        resolve();
      };
      const onAbort = () => {
        tidy();
        reject(signal.reason as Error);
      };
      const waiter: Waiter = { prefix, wake };
      const timer = this.#clock.after(timeoutMs, wake);
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }

  /** A renewal with the same value only moves the expiry, in memory: after a restart all get their whole time again. */
  async register(registration: Registration, ttlMs: number): Promise<void> {
    const text = checkRegistration(registration);
    const { kind, id } = registration;
    const known = this.#guard(() => this.#sql.registration.get(kind, id));
    if (known?.["value"] !== text || known["ttl_ms"] !== Math.ceil(ttlMs)) {
      this.#transaction(() => this.#sql.register.run(kind, id, text, Math.ceil(ttlMs)));
    }
    this.#expiresMs.set(`${kind}/${id}`, this.#clock.nowMs() + ttlMs);
  }

  async deregister(kind: Registration["kind"], id: string): Promise<void> {
    this.#transaction(() => this.#sql.deregister.run(kind, id));
    this.#expiresMs.delete(`${kind}/${id}`);
  }

  async registrations(kind: Registration["kind"]): Promise<readonly Registration[]> {
    const rows = this.#guard(() => this.#sql.registrations.all()).filter((row) => row["kind"] === kind);
    const alive = (id: string) => (this.#expiresMs.get(`${kind}/${id}`) ?? 0) > this.#clock.nowMs();
    const found: Registration[] = [];
    for (const row of rows) {
      const id = String(row["id"]);
      if (alive(id)) found.push({ kind, id, value: JSON.parse(String(row["value"])) as unknown });
      else await this.deregister(kind, id).catch(() => undefined); // Full disk: it is left out all the same.
    }
    return found;
  }

  async acquireLock(
    name: string,
    { value, above = 0, signal }: { value: unknown; above?: number; signal: AbortSignal },
  ): Promise<Lock> {
    checkKey(name);
    return this.#locks.acquire(name, value, above, signal);
  }

  async lockHolder(name: string): Promise<LockHolder | undefined> {
    checkKey(name);
    return this.#guard(() => this.#locks.holder(name));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#locks.close();
    for (const { wake } of this.#waiters) wake();
    this.#database.close();
  }

  #revision(): number {
    return Number(this.#sql.revision.get()?.["value"]);
  }

  /** All or nothing. After a disk that failed to sync, nothing more is acknowledged until a restart has verified it. */
  #transaction<T>(body: () => T): T {
    if (this.#failure !== undefined) throw this.#failure;
    return this.#guard(() => {
      this.#database.exec("BEGIN IMMEDIATE");
      try {
        const result = body();
        this.#database.exec("COMMIT");
        return result;
      } catch (error) {
        if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
        throw error;
      }
    });
  }

  #guard<T>(body: () => T): T {
    if (this.#closed) {
      throw new UserError(`The registry ${this.#path} is closed`, {
        code: "registry_unavailable",
        status: 503,
        next: "The control is shutting down; try again in a moment.",
      });
    }
    try {
      return body();
    } catch (error) {
      const told = asUserError(error, this.#path);
      if (isDiskFailure(error) && told instanceof UserError) this.#failure = told;
      throw told;
    }
  }
}

const SQL = {
  get: "SELECT key, value, revision FROM entries WHERE key = ?",
  list: "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key",
  revisionOf: "SELECT revision FROM entries WHERE key = ?",
  revision: "SELECT value FROM counters WHERE name = 'revision'",
  setRevision: "UPDATE counters SET value = ? WHERE name = 'revision'",
  set: "INSERT OR REPLACE INTO entries (key, value, revision, sum) VALUES (?, ?, ?, ?)",
  remove: "DELETE FROM entries WHERE key = ?",
  bury: "INSERT OR REPLACE INTO deletions (key, revision) VALUES (?, ?)",
  unbury: "DELETE FROM deletions WHERE key = ?",
  deletionCount: "SELECT count(*) AS count FROM deletions",
  medianDeletion: "SELECT revision FROM deletions ORDER BY revision LIMIT 1 OFFSET ?",
  deletionsSince: "SELECT value FROM counters WHERE name = 'deletions_since'",
  setDeletionsSince: "UPDATE counters SET value = ? WHERE name = 'deletions_since'",
  pruneDeletions:
    "DELETE FROM deletions WHERE revision <= (SELECT value FROM counters WHERE name = 'deletions_since')",
  changed: `SELECT 1 FROM entries WHERE key >= ? AND key < ? AND revision > ?
    UNION ALL SELECT 1 FROM deletions WHERE key >= ? AND key < ? AND revision > ? LIMIT 1`,
  registration: "SELECT value, ttl_ms FROM registrations WHERE kind = ? AND id = ?",
  registrations: "SELECT kind, id, value, ttl_ms FROM registrations ORDER BY kind, id",
  register: "INSERT OR REPLACE INTO registrations (kind, id, value, ttl_ms) VALUES (?, ?, ?, ?)",
  counter: "SELECT value FROM counters WHERE name = ?",
  setCounter: "INSERT OR REPLACE INTO counters (name, value) VALUES (?, ?)",
  deregister: "DELETE FROM registrations WHERE kind = ? AND id = ?",
} as const;

function entryOf(row: Record<string, unknown>): Entry {
  return {
    key: String(row["key"]),
    value: JSON.parse(String(row["value"])) as unknown,
    revision: Number(row["revision"]),
  };
}

/** The first text after every key that begins with `prefix`: no allowed character sorts after "z". */
function afterPrefix(prefix: string): string {
  return `${prefix}{`;
}
