/**
 * Where desired state and registrations live. Two adapters keep these promises: `embedded` (SQLite, one machine)
 * and `consul`; test/contract/registry.contract.ts holds both to them.
 *
 * Keys are `/`-separated paths of `[a-z0-9._-]+`, at most 250 characters; the same holds for names of locks. Values are
 * JSON, at most 512,000 bytes.
 */
export interface Entry {
  readonly key: string;
  readonly value: unknown;
  /** Grows with every write of this key; 1 or more. What `ifRevision` compares. */
  readonly revision: number;
}

export interface Listing {
  readonly entries: readonly Entry[];
  /** Pass to `watch` to hear of everything after this listing. */
  readonly revision: number;
}

export type Write =
  /** `ifRevision: 0` only creates; a number only replaces that revision; absent writes whatever is there. */
  | { readonly kind: "set"; readonly key: string; readonly value: unknown; readonly ifRevision?: number }
  | { readonly kind: "delete"; readonly key: string; readonly ifRevision?: number };

export type WriteResult =
  /** `revision` is what every key set in this write has now. */
  | { readonly ok: true; readonly revision: number }
  /** A revision did not match: nothing at all was written. `key` is the first that did not. */
  | { readonly ok: false; readonly key: string };

/** Something that is alive as long as it says so: a host, a proxy, a control. */
export interface Registration {
  readonly kind: "host" | "proxy" | "control";
  readonly id: string;
  /** JSON, at most 64 kB. */
  readonly value: unknown;
}

/** Proof of a leadership, carried by every write of that leader: refused once somebody else has led. */
export interface Fence {
  readonly lock: string;
  /** Grows with every acquisition of this lock; what executors and proxies compare. */
  readonly token: number;
  /** What the adapter tells holders apart by. */
  readonly session: string;
}

export interface Lock {
  readonly fence: Fence;
  /** Aborted, with the reason, as soon as the lock is lost or nobody can say any more that it is held. */
  readonly lost: AbortSignal;
  /** Gives it back, so that others need not wait for the TTL. Never rejects; twice is no error. */
  readonly release: () => Promise<void>;
}

/** Who holds a lock, for those who do not: where to send what only a leader may do. */
export interface LockHolder {
  readonly token: number;
  readonly value: unknown;
}

export interface Registry {
  /** For people: "embedded (/var/lib/gilliam/registry.db)". */
  readonly description: string;
  /** What keeps it from answering now, one sentence for people with what to do; undefined when all is well. */
  readonly trouble: string | undefined;
  get(key: string): Promise<Entry | undefined>;
  list(prefix: string): Promise<Listing>;
  /**
   * All of it or nothing, at most 63 writes; when it resolves `ok`, it survives kill -9 and power loss. With a `fence`
   * it is written only while that leadership lasts, which is checked in the same step.
   * @throws UserError "registry_full" (disk), "registry_unavailable", "value_too_large", "bad_key", "fenced"; nothing
   * was written. After "registry_unavailable" by a lost connection it may have been: read again before deciding anew.
   */
  write(writes: readonly Write[], fence?: Fence): Promise<WriteResult>;
  /**
   * Resolves with the current listing when anything below `prefix` changed after `afterRevision`, or with the same
   * revision after `timeoutMs`. May resolve early: an answer does not promise a change. Troubles of the connection are
   * waited out: then the last listing known stands.
   */
  watch(
    prefix: string,
    afterRevision: number,
    options: { timeoutMs: number; signal: AbortSignal },
  ): Promise<Listing>;
  /** Adds or replaces; it expires unless registered again within `ttlMs`. */
  register(registration: Registration, ttlMs: number): Promise<void>;
  deregister(kind: Registration["kind"], id: string): Promise<void>;
  /**
   * The ones not expired. Rejects when the registry cannot be asked: an empty list always means that there are none
   * known, never that nobody could be asked; and callers still never stop anything because of it.
   */
  registrations(kind: Registration["kind"]): Promise<readonly Registration[]>;
  /**
   * Waits until this caller holds `name`; at most one holds it at a time. `value` is shown to the others, `above` is a
   * token that the new one must exceed (a registry that was lost must not number backwards).
   * Rejects with the signal's reason when aborted first; troubles of the connection are waited out.
   */
  acquireLock(
    name: string,
    options: { value: unknown; ttlMs: number; above?: number; signal: AbortSignal },
  ): Promise<Lock>;
  lockHolder(name: string): Promise<LockHolder | undefined>;
  close(): Promise<void>;
}
