/**
 * Where desired state and registrations live. Two adapters keep these promises: `embedded` (SQLite, one machine)
 * and `consul`; test/contract/registry.contract.ts holds both to them.
 *
 * Keys are `/`-separated paths of `[a-z0-9._-]+`, at most 250 characters. Values are JSON, at most 512,000 bytes.
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

export interface Registry {
  /** For people: "embedded (/var/lib/gilliam/registry.db)". */
  readonly description: string;
  get(key: string): Promise<Entry | undefined>;
  list(prefix: string): Promise<Listing>;
  /**
   * All of it or nothing, at most 64 writes; when it resolves `ok`, it survives kill -9 and power loss.
   * @throws UserError "registry_full" (disk), "registry_unavailable", "value_too_large", "bad_key"; nothing was written.
   */
  write(writes: readonly Write[]): Promise<WriteResult>;
  /**
   * Resolves with the current listing when anything below `prefix` changed after `afterRevision`, or with the same
   * revision after `timeoutMs`. May resolve early: an answer does not promise a change.
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
  close(): Promise<void>;
}
