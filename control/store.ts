import type { FormationRecord, Release } from "../model/release.ts";
import type { Capacity } from "../model/host.ts";
import type { Registry, Write } from "./registry/registry.ts";
import type { InstanceRecord } from "./world.ts";

/** Registry key `hosts/{id}`: what must be known of a host before it speaks again. */
export interface HostRecord {
  readonly id: string;
  readonly draining: boolean;
  readonly driver: "process" | "docker";
  readonly network: "namespace" | "shared";
  readonly capacity: Capacity;
  readonly labels: Readonly<Record<string, string>>;
  readonly executorUrl: string;
  readonly metricsUrl: string;
}

/** The keys of the registry; README.md lists them. */
export const keyOf = {
  formation: (name: string) => `formations/${name}`,
  release: (formation: string, number: number) => `releases/${formation}/${number}`,
  instance: (id: string) => `instances/${id}`,
  host: (id: string) => `hosts/${id}`,
  volume: (name: string) => `volumes/${name}`,
  secrets: (formation: string, service: string) => `secrets/${formation}/${service}`,
  /** A formation that is being deleted: its instances are drained first. */
  deletion: (formation: string) => `deletions/${formation}`,
  event: (id: number) => `events/${String(id).padStart(15, "0")}`,
  counter: (name: string) => `counters/${name}`,
} as const;

/** One kind of record held in memory as the registry has it, with the revisions that check-and-set needs. */
export class Table<T> {
  readonly prefix: string;
  #rows = new Map<string, { value: T; revision: number }>();
  #revision = 0;

  constructor(prefix: string) {
    this.prefix = prefix;
  }

  /** By what follows the prefix in the key: `shop`, `shop/3`. */
  get(id: string): T | undefined {
    return this.#rows.get(id)?.value;
  }

  /** For `ifRevision`: 0 when it is not there. */
  revisionOf(id: string): number {
    return this.#rows.get(id)?.revision ?? 0;
  }

  get ids(): string[] {
    return [...this.#rows.keys()];
  }

  get values(): T[] {
    return [...this.#rows.values()].map(({ value }) => value);
  }

  /** The registry's revision this table is at; what `watch` continues from. */
  get revision(): number {
    return this.#revision;
  }

  replace(entries: readonly { key: string; value: unknown; revision: number }[], revision: number): void {
    if (revision < this.#revision) return; // An older listing that was overtaken by a write of our own.
    this.#revision = revision;
    this.#rows = new Map(
      entries.map(({ key, value, revision }) => [
        key.slice(this.prefix.length),
        { value: value as T, revision },
      ]),
    );
  }

  apply(write: Write, revision: number): void {
    if (!write.key.startsWith(this.prefix)) return;
    this.#revision = Math.max(this.#revision, revision);
    const id = write.key.slice(this.prefix.length);
    if (write.kind === "delete") this.#rows.delete(id);
    else this.#rows.set(id, { value: structuredClone(write.value) as T, revision });
  }
}

/**
 * Desired state as control works with it: the registry's records in memory, every change through the registry first.
 * Whatever another control writes arrives by `follow`.
 */
export class Store {
  readonly registry: Registry;
  readonly formations = new Table<FormationRecord>("formations/");
  readonly releases = new Table<Release>("releases/");
  /** Without `status`: that is the executor's word, not desired state. */
  readonly instances = new Table<InstanceRecord>("instances/");
  readonly hosts = new Table<HostRecord>("hosts/");
  readonly volumes = new Table<string>("volumes/");
  readonly secrets = new Table<Record<string, string>>("secrets/");
  readonly deletions = new Table<{ sinceMs: number }>("deletions/");
  readonly #tables: readonly Table<unknown>[];
  #writes = 0;
  #refused = 0;

  constructor(registry: Registry) {
    this.registry = registry;
    this.#tables = [
      this.formations,
      this.releases,
      this.instances,
      this.hosts,
      this.volumes,
      this.secrets,
      this.deletions,
    ] as readonly Table<unknown>[];
  }

  /** For metrics: transactions written, and those a check-and-set refused. */
  get counts(): { writes: number; refused: number } {
    return { writes: this.#writes, refused: this.#refused };
  }

  async load(): Promise<void> {
    for (const table of this.#tables) {
      const { entries, revision } = await this.registry.list(table.prefix);
      table.replace(entries, revision);
    }
  }

  /** False when a revision did not match; what is in memory is then fresh again, so that the caller may retry. */
  async write(writes: readonly Write[]): Promise<boolean> {
    if (writes.length === 0) return true;
    const result = await this.registry.write(writes);
    if (!result.ok) {
      this.#refused += 1;
      await this.load();
      return false;
    }
    this.#writes += 1;
    for (const write of writes) for (const table of this.#tables) table.apply(write, result.revision);
    return true;
  }

  /** Takes over what others write, until aborted. `onChange` is called after every change, our own included. */
  async follow(onChange: () => void, signal: AbortSignal): Promise<void> {
    await Promise.all(
      this.#tables.map(async (table) => {
        while (!signal.aborted) {
          const before = table.revision;
          const options = { timeoutMs: 60_000, signal };
          const { entries, revision } = await this.registry.watch(table.prefix, before, options);
          if (revision <= before) continue;
          table.replace(entries, revision);
          onChange();
        }
      }),
    );
  }

  /** Every release of a formation, by number. */
  releasesOf(formation: string): Release[] {
    return this.releases.values
      .filter((release) => release.formation === formation)
      .sort((a, b) => a.number - b.number);
  }

  instancesOf(formation: string): InstanceRecord[] {
    return this.instances.values.filter((record) => record.formation === formation);
  }

  /** A check-and-set of one record as it is in memory now. */
  set<T>(table: Table<T>, id: string, value: T): Write {
    return { kind: "set", key: `${table.prefix}${id}`, value, ifRevision: table.revisionOf(id) };
  }

  remove<T>(table: Table<T>, id: string): Write {
    return { kind: "delete", key: `${table.prefix}${id}`, ifRevision: table.revisionOf(id) };
  }
}

/** A number that never goes back over restarts: blocks of it are reserved in the registry before they are used. */
export class ReservedCounter {
  readonly #registry: Registry;
  readonly #key: string;
  readonly #block: number;
  #reserved = 0;

  constructor(registry: Registry, name: string, block = 10_000) {
    this.#registry = registry;
    this.#key = keyOf.counter(name);
    this.#block = block;
  }

  /** The first number this process may use. */
  async open(): Promise<number> {
    const entry = await this.#registry.get(this.#key);
    const first = Number(entry?.value ?? 0);
    await this.reserve(first);
    return first;
  }

  /** Makes sure that numbers well above `current` may be used; writes only once a block. */
  async reserve(current: number): Promise<void> {
    if (current + this.#block / 2 < this.#reserved) return;
    const reserved = current + this.#block;
    await this.#registry.write([{ kind: "set", key: this.#key, value: reserved }]);
    this.#reserved = reserved;
  }
}
