import type { Entry } from "./registry.ts";

/**
 * What this process has last seen of the registry: it notices entries that are suddenly gone, saves parsing what has
 * not changed, and is what a wiped Consul is filled from again. Holds the very objects that were handed out.
 */
export class Mirror {
  readonly #entries = new Map<string, Entry>();
  /** By `prefix revision`: what a listing held, so that "nothing changed" is told from "something is gone". */
  readonly #listings = new Map<string, string>();

  get(key: string): Entry | undefined {
    return this.#entries.get(key);
  }

  /** All that is known below `prefix`, by key. */
  below(prefix: string): Entry[] {
    return [...this.#entries.values()]
      .filter(({ key }) => key.startsWith(prefix))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  /** Whether something known below `prefix` is not among `keys`. */
  lacks(prefix: string, keys: ReadonlySet<string>): boolean {
    for (const key of this.#entries.keys()) if (key.startsWith(prefix) && !keys.has(key)) return true;
    return false;
  }

  put(entry: Entry): void {
    const known = this.#entries.get(entry.key);
    if (known === undefined || known.revision <= entry.revision) this.#entries.set(entry.key, entry);
  }

  remove(key: string): void {
    this.#entries.delete(key);
  }

  /** Everything below `prefix` is as `entries` say. */
  replace(prefix: string, entries: readonly Entry[]): void {
    const keys = new Set(entries.map(({ key }) => key));
    for (const key of this.#entries.keys()) {
      if (key.startsWith(prefix) && !keys.has(key)) this.#entries.delete(key);
    }
    for (const entry of entries) this.#entries.set(entry.key, entry);
  }

  remember(prefix: string, revision: number, entries: readonly Entry[]): void {
    const name = `${prefix} ${revision}`;
    this.#listings.delete(name);
    this.#listings.set(name, printOf(entries));
    const oldest = this.#listings.keys().next().value;
    if (this.#listings.size > LISTINGS_MAX && oldest !== undefined) this.#listings.delete(oldest);
  }

  hasListing(prefix: string, revision: number): boolean {
    return this.#listings.has(`${prefix} ${revision}`);
  }

  /** Whether the listing of `revision` is known and held exactly `entries`. */
  isSame(prefix: string, revision: number, entries: readonly Entry[]): boolean {
    return this.#listings.get(`${prefix} ${revision}`) === printOf(entries);
  }
}

const LISTINGS_MAX = 64;

/** Keys and revisions say all: a revision is never given twice. */
function printOf(entries: readonly Entry[]): string {
  return entries.map(({ key, revision }) => `${key} ${revision}`).join("\n");
}
