import type { Clock } from "../../base/clock.ts";
import { equalJitterMs } from "../../base/backoff.ts";
import { UserError } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import { type CallOptions, type ConsulAnswer, type ConsulClient, ConsulError } from "./consul-client.ts";
import { Mirror } from "./consul-mirror.ts";
import { ConsulLocks, Sessions } from "./consul-sessions.ts";
import { ConsulRegistrations } from "./consul-registrations.ts";
import {
  IDENTITY_KEY,
  type KvItem,
  type TransactionAnswer,
  joinParts,
  partsFolder,
  planWrite,
  pointerIn,
  refusalOf,
  textOf,
  valueOf,
} from "./consul-values.ts";
import { checkKey, checkPrefix, checkWrites, fenced, WRITES_MAX } from "./limits.ts";
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

export interface ConsulOptions {
  readonly client: ConsulClient;
  /** Everything is kept below this key, like `gilliam`. */
  readonly prefix: string;
  readonly clock: Clock;
  readonly random: Random;
  /** For a registry that is new: an id that nobody else has. */
  readonly newId: () => string;
  /** Consul's `session_ttl_min`, in milliseconds. @default 10_000 */
  readonly ttlMsMin?: number;
  /** What a new registry begins with. */
  readonly seed?: () => Promise<readonly { readonly key: string; readonly value: unknown }[]>;
  /** Told when a wiped Consul was filled again, and the like. */
  readonly onNews?: (text: string) => void;
}

/** `~registry`: whose registry this is. That it can be read proves that the others could be, too. */
interface Identity {
  readonly format: number;
  readonly id: string;
}

const FORMAT = 1;
const BACKOFF = { baseMs: 250, capMs: 10_000 };
/** Shortest time between two answers to the same watch, in milliseconds. */
const POLL_MS_MIN = 100;
const WAIT_MS_MAX = 55_000;
const PROBE_MS = 5_000;

/**
 * The registry of many machines. Revisions are Consul's indexes; after Consul was wiped they go on above the old ones,
 * so that they never go back while this process lives.
 */
export class ConsulRegistry implements Registry {
  readonly description: string;
  readonly #options: ConsulOptions;
  readonly #client: ConsulClient;
  readonly #prefix: string;
  readonly #mirror = new Mirror();
  readonly #sessions: Sessions;
  readonly #locks: ConsulLocks;
  readonly #registrations: ConsulRegistrations;
  /** When the same prefix may be asked for again. */
  readonly #polledMs = new Map<string, number>();
  readonly #listed = new Set<string>();
  /** What cannot be done now, by kind of call. */
  readonly #troubles = new Map<string, string>();
  readonly #closing = new AbortController();
  /** Added to Consul's indexes; and the greatest revision handed out. */
  #offset = 0;
  #newest = 0;
  #id = "";
  #restoring: Promise<void> | undefined;
  #probing: Disposable | undefined;
  #isProbing = false;

  private constructor(options: ConsulOptions) {
    this.#options = options;
    this.#client = options.client;
    this.#prefix = options.prefix;
    this.description = `consul (${options.client.url}, ${options.prefix}/)`;
    const { client, prefix, clock, random, ttlMsMin = 10_000 } = options;
    const parts = { client, prefix, clock, random, ttlMsMin };
    this.#sessions = new Sessions(parts);
    this.#locks = new ConsulLocks(parts, this.#sessions);
    this.#registrations = new ConsulRegistrations(parts, this.#sessions, (path) => this.#verified(path));
  }

  /** @throws ConsulError while it cannot be asked; UserError "registry_too_new" */
  static async open(options: ConsulOptions): Promise<ConsulRegistry> {
    const registry = new ConsulRegistry(options);
    await registry.#identify();
    registry.#probing = options.clock.every(PROBE_MS, () => void registry.#probe());
    return registry;
  }

  get trouble(): string | undefined {
    return this.#troubles.values().next().value;
  }

  /** All that this process has seen, as it was when it was seen. */
  known(): Listing {
    return { entries: this.#mirror.below(""), revision: this.#newest };
  }

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    const path = `/kv/${this.#prefix}/${key}`;
    const answer = await this.#call<KvItem[]>("read", "GET", path, { query: CONSISTENT, accept: [404] });
    if (answer.status === 404) {
      const items = await this.#verified(key);
      const again = items.find((item) => item.Key === `${this.#prefix}/${key}`);
      if (again === undefined) this.#mirror.remove(key);
      return again && this.#remembered(again);
    }
    const [item] = answer.body;
    return item && this.#remembered(item);
  }

  async list(prefix: string): Promise<Listing> {
    checkPrefix(prefix);
    const answer = await this.#read(prefix, CONSISTENT);
    return this.#listing(prefix, answer);
  }

  async write(writes: readonly Write[], fence?: Fence): Promise<WriteResult> {
    const texts = checkWrites(writes);
    this.#assertOpen();
    if (writes.length === 0) return { ok: true, revision: this.#newest };
    const past = writes.find(
      ({ ifRevision = 0 }) => ifRevision !== 0 && (ifRevision <= this.#offset || ifRevision > this.#newest),
    );
    if (past !== undefined) return { ok: false, key: past.key }; // Of before Consul was wiped, or never given out.
    const indexed = writes.map((write) =>
      write.ifRevision ? { ...write, ifRevision: write.ifRevision - this.#offset } : write,
    );
    const id = this.#options.newId();
    const nonce = Math.floor(this.#options.random() * 2 ** 31);
    const { operations, parts } = planWrite(this.#prefix, indexed, texts, { id, nonce, fence });
    for (const { key, bytes } of parts) {
      await this.#call("write", "PUT", `/kv/${this.#prefix}/${key}`, { raw: bytes });
    }
    const { status, body } = await this.#call<TransactionAnswer>("write", "PUT", "/txn", {
      body: operations,
      accept: [409],
    });
    if (status === 409) {
      for (const { key } of parts) await this.#forgetParts(key.split("/").slice(0, -1).join("/"));
      return this.#refused(writes, body, fence);
    }
    return this.#written(writes, body, id);
  }

  #refused(writes: readonly Write[], answer: TransactionAnswer, fence: Fence | undefined): WriteResult {
    const refusal = refusalOf(answer);
    if (refusal.kind === "denied") throw this.#failed("write", "forbidden", refusal.what);
    if (refusal.kind === "other") throw this.#failed("write", "refused", refusal.what);
    const at = fence === undefined ? refusal.at : refusal.at - 1;
    if (fence !== undefined && at < 0) throw fenced(fence.lock);
    return { ok: false, key: writes[at]?.key ?? "" };
  }

  #written(writes: readonly Write[], { Results }: TransactionAnswer, id: string): WriteResult {
    const index = Math.max(0, ...(Results ?? []).map(({ KV }) => KV.ModifyIndex));
    // A transaction of deletions alone does not say its index; nothing has one then.
    const revision = this.#expose(index);
    for (const write of writes) {
      const known = this.#mirror.get(write.key);
      if (write.kind === "delete") this.#mirror.remove(write.key);
      else this.#mirror.put({ key: write.key, value: structuredClone(write.value), revision });
      if (known !== undefined) void this.#forgetParts(partsFolder(write.key), id);
    }
    return { ok: true, revision };
  }

  async watch(
    prefix: string,
    afterRevision: number,
    { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
  ): Promise<Listing> {
    checkPrefix(prefix);
    this.#assertOpen();
    const { clock, random } = this.#options;
    const stop = AbortSignal.any([signal, this.#closing.signal]);
    stop.throwIfAborted();
    const untilMs = clock.nowMs() + timeoutMs;
    const isKnown = this.#mirror.hasListing(prefix, afterRevision);
    let index = afterRevision > this.#newest ? 0 : Math.max(0, afterRevision - this.#offset);
    let failure: ConsulError | undefined;
    for (let failures = 0; ;) {
      await this.#pace(prefix, stop);
      const leftMs = Math.min(WAIT_MS_MAX, untilMs - clock.nowMs());
      if (leftMs <= 0) return this.#lastKnown(prefix, afterRevision, failure);
      try {
        const answer = await this.#read(prefix, { index, wait: `${Math.ceil(leftMs)}ms` }, stop);
        const listing = await this.#listing(prefix, answer);
        const isSame = isKnown
          ? this.#mirror.isSame(prefix, afterRevision, listing.entries)
          : index > 0 && answer.index <= index;
        // A change whose index went backwards is one all the same, and is told under a revision that grows.
        if (!isSame)
          return {
            ...listing,
            revision: Math.max(listing.revision, this.#above(prefix, afterRevision, listing)),
          };
        index = answer.index;
        failures = 0;
        failure = undefined;
      } catch (error) {
        stop.throwIfAborted();
        if (!(error instanceof ConsulError)) throw error;
        failure = error;
        index = 0; // The history may be another one: then look at once instead of waiting for an old index.
        const pauseMs = equalJitterMs(failures++, BACKOFF, random);
        await clock.sleep(Math.min(pauseMs, Math.max(0, untilMs - clock.nowMs())), stop);
      }
    }
  }

  #above(prefix: string, afterRevision: number, listing: Listing): number {
    if (listing.revision > afterRevision || afterRevision > this.#newest) return 0;
    this.#newest = Math.max(this.#newest, afterRevision + 1);
    this.#mirror.remember(prefix, afterRevision + 1, listing.entries);
    return afterRevision + 1;
  }

  #lastKnown(prefix: string, revision: number, failure: ConsulError | undefined): Listing {
    if (failure !== undefined && !this.#listed.has(prefix)) throw failure;
    return { entries: this.#mirror.below(prefix), revision };
  }

  async register(registration: Registration, ttlMs: number): Promise<void> {
    this.#assertOpen();
    const done = this.#noting("session", () => this.#registrations.register(registration, ttlMs));
    // A renewal of what is there already goes on in the background: a slow Consul must not hold up heartbeats.
    if (this.#registrations.isRegistered(registration)) done.catch(() => undefined);
    else await done;
  }

  async deregister(kind: Registration["kind"], id: string): Promise<void> {
    this.#assertOpen();
    await this.#noting("session", () => this.#registrations.deregister(kind, id));
  }

  async registrations(kind: Registration["kind"]): Promise<readonly Registration[]> {
    this.#assertOpen();
    return this.#noting("read", () => this.#registrations.list(kind));
  }

  async acquireLock(
    name: string,
    options: { value: unknown; ttlMs: number; above?: number; signal: AbortSignal },
  ): Promise<Lock> {
    checkKey(name);
    this.#assertOpen();
    const { value, ttlMs, above = 0 } = options;
    const signal = AbortSignal.any([options.signal, this.#closing.signal]);
    return this.#locks.acquire(name, value, { ttlMs, above, signal });
  }

  async lockHolder(name: string): Promise<LockHolder | undefined> {
    checkKey(name);
    this.#assertOpen();
    return this.#noting("read", () => this.#locks.holder(name));
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#probing?.[Symbol.dispose]();
    await this.#locks.close();
    this.#closing.abort(closed(this.#client.url));
    this.#client.close();
  }

  /**
   * Watches say nothing for a minute at a time, and their token was checked when they began: so it is asked now and
   * then whether the registry can still be read, and, after a write that failed, whether it can be written again.
   */
  async #probe(): Promise<void> {
    if (this.#isProbing) return;
    this.#isProbing = true;
    try {
      await this.#verified(IDENTITY_KEY);
      if (this.#troubles.has("write")) {
        await this.#call("write", "PUT", `/kv/${this.#prefix}/~probe`, { raw: Buffer.from("{}") });
      }
    } catch {
      // It stands in `trouble`.
    } finally {
      this.#isProbing = false;
    }
  }

  /** Reads or makes `~registry`. */
  async #identify(): Promise<void> {
    const path = `/kv/${this.#prefix}/${IDENTITY_KEY}`;
    for (;;) {
      const answer = await this.#call<KvItem[]>("read", "GET", path, { query: CONSISTENT, accept: [404] });
      const [item] = answer.status === 404 ? [] : answer.body;
      if (item !== undefined) {
        const { format, id } = valueOf(item) as Identity;
        if (format > FORMAT) throw tooNew(`${this.#prefix}/`, format);
        this.#id = id;
        return;
      }
      if (this.#id === "") await this.#sow();
      await this.#writeIdentity(this.#id === "" ? this.#options.newId() : this.#id);
    }
  }

  /** Before the identity: a control killed on the way begins again. */
  async #sow(): Promise<void> {
    const seed = (await this.#options.seed?.()) ?? [];
    for (let at = 0; at < seed.length; at += WRITES_MAX) {
      await this.write(
        seed.slice(at, at + WRITES_MAX).map(({ key, value }) => ({ kind: "set", key, value })),
      );
    }
    if (seed.length > 0) this.#options.onNews?.(`${seed.length} entries are written to ${this.description}`);
  }

  async #writeIdentity(id: string): Promise<void> {
    const identity: Identity = { format: FORMAT, id };
    await this.#call("write", "PUT", `/kv/${this.#prefix}/${IDENTITY_KEY}`, {
      query: { cas: 0 },
      raw: Buffer.from(JSON.stringify(identity)),
    });
  }

  #read(
    prefix: string,
    query: Readonly<Record<string, string | number>>,
    signal?: AbortSignal,
  ): Promise<ConsulAnswer<KvItem[]>> {
    return this.#call<KvItem[]>("read", "GET", `/kv/${this.#prefix}/${prefix}`, {
      query: { recurse: "", ...query },
      accept: [404],
      ...("wait" in query ? { timeoutMs: WAIT_MS_MAX * 1.1 + 5_000 } : {}),
      ...(signal === undefined ? {} : { signal }),
    });
  }

  /** What an answer says, unless it says less than was known: then it is asked again in a way that cannot be mistaken. */
  async #listing(prefix: string, answer: ConsulAnswer<KvItem[]>): Promise<Listing> {
    let items = this.#records(answer.status === 404 ? [] : answer.body);
    const keys = new Set(items.map((item) => this.#keyOf(item)));
    if (items.length === 0 || this.#mirror.lacks(prefix, keys)) {
      items = this.#records(await this.#verified(prefix));
    }
    const entries: Entry[] = [];
    for (const item of items) entries.push(await this.#entryOf(item));
    const newest = Math.max(0, ...entries.map(({ revision }) => revision));
    const revision = Math.max(this.#expose(answer.index), newest);
    this.#mirror.replace(prefix, entries);
    this.#mirror.remember(prefix, revision, entries);
    this.#listed.add(prefix);
    return { entries, revision };
  }

  /**
   * Everything below `prefix`, read in one step with the registry's identity: a token that lost its rights, and a
   * Consul that lost its data, both answer "nothing", and neither may be believed.
   */
  async #verified(prefix: string): Promise<KvItem[]> {
    for (let attempt = 0; ; attempt++) {
      const operations = [
        { KV: { Verb: "get", Key: `${this.#prefix}/${IDENTITY_KEY}` } },
        { KV: { Verb: "get-tree", Key: `${this.#prefix}/${prefix}` } },
      ];
      const { status, body } = await this.#call<TransactionAnswer>("read", "PUT", "/txn", {
        body: operations,
        query: CONSISTENT,
        accept: [409],
      });
      const items = (body.Results ?? []).map(({ KV }) => KV);
      const identity = items.find((item) => this.#keyOf(item) === IDENTITY_KEY);
      if (identity !== undefined && (valueOf(identity) as Identity).id === this.#id) {
        return items.filter((item) => item !== identity);
      }
      if (status !== 409 && identity === undefined) {
        throw this.#failed("read", "forbidden", `it may not read ${this.#prefix}/ (any more)`);
      }
      const refusal = refusalOf(body);
      if (status === 409 && refusal.kind !== "mismatch") throw this.#failed("read", "refused", refusal.what);
      if (attempt > 2) throw this.#failed("read", "refused", `its ${IDENTITY_KEY} keeps vanishing`);
      await this.#restore(identity);
    }
  }

  /** Consul was wiped, or somebody began anew there: what this process knows goes back, never over what is there. */
  async #restore(identity: KvItem | undefined): Promise<void> {
    this.#restoring ??= this.#refill(identity).finally(() => {
      this.#restoring = undefined;
    });
    return this.#restoring;
  }

  async #refill(identity: KvItem | undefined): Promise<void> {
    this.#offset = this.#newest;
    const answer = await this.#read("", CONSISTENT);
    const there = new Set((answer.status === 404 ? [] : answer.body).map((item) => this.#keyOf(item)));
    const missing = this.#mirror.below("").filter(({ key }) => !there.has(key));
    for (let at = 0; at < missing.length; at += WRITES_MAX) {
      const batch = missing
        .slice(at, at + WRITES_MAX)
        .map(({ key, value }): Write => ({ kind: "set", key, value, ifRevision: 0 }));
      if (!(await this.write(batch)).ok) for (const one of batch) await this.write([one]); // Others refill as well.
    }
    if (identity !== undefined) this.#id = (valueOf(identity) as Identity).id;
    else await this.#identify();
    const what = `Consul at ${this.#client.url} had lost ${this.#prefix}/: ${missing.length} entries are written again`;
    this.#options.onNews?.(what);
  }

  #records(items: readonly KvItem[]): KvItem[] {
    return items.filter((item) => RECORD.test(this.#keyOf(item)));
  }

  #keyOf({ Key }: KvItem): string {
    return Key.slice(this.#prefix.length + 1);
  }

  #remembered(item: KvItem): Promise<Entry> {
    return this.#entryOf(item).then((entry) => {
      this.#mirror.put(entry);
      return entry;
    });
  }

  async #entryOf(item: KvItem): Promise<Entry> {
    const key = this.#keyOf(item);
    const revision = this.#expose(item.ModifyIndex);
    const known = this.#mirror.get(key);
    if (known?.revision === revision) return known;
    return { key, revision, value: await this.#valueOf(key, item) };
  }

  async #valueOf(key: string, item: KvItem): Promise<unknown> {
    try {
      const pointer = pointerIn(item);
      if (pointer === undefined) return valueOf(item);
      const { status, body } = await this.#read(`${partsFolder(key)}${pointer.id}/`, CONSISTENT);
      const value = joinParts(pointer, status === 404 ? [] : body);
      if (value !== undefined) return value;
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
    // Replaced while it was read: the newer one is there now. Otherwise somebody else has written it.
    const [newer] = (await this.#read(key, CONSISTENT)).body ?? [];
    if (newer !== undefined && newer.Key === item.Key && newer.ModifyIndex !== item.ModifyIndex) {
      return this.#valueOf(key, newer);
    }
    throw damaged(`${this.#prefix}/${key}`, textOf(item.Value));
  }

  /** Parts of values that are replaced or gone. Best effort: what stays is removed with the next write of the key. */
  async #forgetParts(folder: string, except?: string): Promise<void> {
    const path = `/kv/${this.#prefix}/${folder}`;
    const found = await this.#client
      .call<string[]>("GET", path, { query: { keys: "" }, accept: [404] })
      .catch(() => undefined);
    if (found === undefined || found.status === 404) return;
    for (const key of found.body) {
      if (except !== undefined && key.includes(`/${except}/`)) continue;
      await this.#client.call("DELETE", `/kv/${key}`).catch(() => undefined);
    }
  }

  async #pace(prefix: string, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const dueMs = this.#polledMs.get(prefix) ?? 0;
    if (dueMs > clock.nowMs()) await clock.sleep(dueMs - clock.nowMs(), signal);
    this.#polledMs.set(prefix, clock.nowMs() + POLL_MS_MIN);
  }

  #expose(index: number): number {
    if (index === 0) return this.#newest;
    const revision = index + this.#offset;
    this.#newest = Math.max(this.#newest, revision);
    return revision;
  }

  async #call<T>(
    what: string,
    method: string,
    path: string,
    options: CallOptions = {},
  ): Promise<ConsulAnswer<T>> {
    this.#assertOpen();
    return this.#noting(what, () => this.#client.call<T>(method, path, options));
  }

  /** Remembers what cannot be done now, for `trouble`, until it can be done again. */
  async #noting<T>(what: string, action: () => Promise<T>): Promise<T> {
    try {
      const result = await action();
      this.#troubles.delete(what);
      return result;
    } catch (error) {
      if (this.#closing.signal.aborted) throw closed(this.#client.url);
      if (error instanceof ConsulError) this.#troubles.set(what, `${error.message}. ${error.next}`);
      throw error;
    }
  }

  #failed(what: string, trouble: ConsulError["trouble"], detail: string): ConsulError {
    const error = new ConsulError(trouble, this.#client.url, detail);
    this.#troubles.set(what, `${error.message}. ${error.next}`);
    return error;
  }

  #assertOpen(): void {
    if (this.#closing.signal.aborted) throw closed(this.#client.url);
  }
}

const CONSISTENT = { consistent: "" };
const RECORD = /^[a-z0-9._-]+(?:\/[a-z0-9._-]+)*$/;

function closed(url: string): UserError {
  return new UserError(`The registry in Consul at ${url} is closed`, {
    code: "registry_unavailable",
    status: 503,
    next: "The control is shutting down; try again in a moment.",
  });
}

function tooNew(where: string, format: number): UserError {
  return new UserError(`${where} in Consul was written by a newer Gilliam (format ${format})`, {
    code: "registry_too_new",
    status: 500,
    next: "Start the newer version again, or choose another prefix. Nothing was changed.",
  });
}

function damaged(key: string, text: string): UserError {
  return new UserError(`${key} in Consul is not what Gilliam wrote there: ${text.slice(0, 80)}`, {
    code: "registry_damaged",
    status: 500,
    next: "Somebody else writes there. Put back what `gilliam registry export` kept, or delete the key.",
  });
}
