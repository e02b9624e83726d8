import { equalJitterMs } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { type ConsulClient, ConsulError } from "./consul-client.ts";
import { type KvItem, type Operation, type TransactionAnswer, lockKey, valueOf } from "./consul-values.ts";
import type { Lock, LockHolder } from "./registry.ts";

export interface SessionParts {
  readonly client: ConsulClient;
  readonly prefix: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Consul's own `session_ttl_min`, in milliseconds; shorter TTLs become this. */
  readonly ttlMsMin: number;
}

/** Consul forgets a session not renewed for its TTL; it may take up to twice as long to notice. */
export class Sessions {
  readonly #parts: SessionParts;

  constructor(parts: SessionParts) {
    this.#parts = parts;
  }

  ttlOf(ttlMs: number): number {
    return Math.min(86_400_000, Math.max(this.#parts.ttlMsMin, Math.ceil(ttlMs)));
  }

  /** Bound to no check of any node: only its TTL ends it. */
  async create(name: string, behavior: "release" | "delete", ttlMs: number): Promise<string> {
    const body = {
      Name: name,
      TTL: `${this.ttlOf(ttlMs)}ms`,
      Behavior: behavior,
      Checks: [],
      LockDelay: "0s", // The fence keeps a late holder out, not a pause.
    };
    const answer = await this.#parts.client.call<{ ID: string }>("PUT", "/session/create", { body });
    return answer.body.ID;
  }

  /** False when Consul knows it no more. */
  async renew(id: string, timeoutMs?: number): Promise<boolean> {
    const { status } = await this.#parts.client.call("PUT", `/session/renew/${id}`, {
      accept: [404],
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
    return status !== 404;
  }

  /** Best effort: one that cannot be ended now ends by its TTL. */
  async destroy(id: string): Promise<void> {
    await this.#parts.client.call("PUT", `/session/destroy/${id}`).catch(() => undefined);
  }
}

const BACKOFF = { baseMs: 250, capMs: 5_000 };
const WAIT_MS = 30_000;

/** Locks that are KV keys held by a session; their value keeps the token, so that it grows over holders and wipes. */
export class ConsulLocks {
  readonly #parts: SessionParts;
  readonly #sessions: Sessions;
  readonly #held = new Set<Lock>();

  constructor(parts: SessionParts, sessions: Sessions) {
    this.#parts = parts;
    this.#sessions = sessions;
  }

  async acquire(
    name: string,
    value: unknown,
    options: { ttlMs: number; above: number; signal: AbortSignal },
  ): Promise<Lock> {
    const { clock, random } = this.#parts;
    const { signal, ttlMs } = options;
    let session: { id: string; atMs: number } | undefined;
    try {
      for (let attempt = 0; ; attempt++) {
        signal.throwIfAborted();
        try {
          const item = await this.#free(name, session?.id, signal);
          if (session !== undefined && clock.nowMs() - session.atMs > this.#sessions.ttlOf(ttlMs) / 3) {
            await this.#sessions.destroy(session.id);
            session = undefined;
          }
          session ??= {
            atMs: clock.nowMs(),
            id: await this.#sessions.create(`gilliam lock ${name}`, "release", ttlMs),
          };
          const token = await this.#take(name, value, session.id, item, options.above);
          if (token === undefined) continue; // Somebody else was faster.
          const lock = this.#hold(name, session, token, ttlMs);
          session = undefined;
          return lock;
        } catch (error) {
          if (signal.aborted || !(error instanceof ConsulError)) throw error;
          await clock.sleep(equalJitterMs(attempt, BACKOFF, random), signal);
        }
      }
    } finally {
      if (session !== undefined) void this.#sessions.destroy(session.id);
    }
  }

  async holder(name: string): Promise<LockHolder | undefined> {
    const item = await this.#read(name, {});
    if (item.found?.Session === undefined) return undefined;
    const { token, holder } = lockValue(item.found);
    return { token, value: holder };
  }

  async close(): Promise<void> {
    await Promise.all([...this.#held].map((lock) => lock.release()));
  }

  /** Waits until nobody else holds it; the item as it is then, undefined when it was never held. */
  async #free(name: string, own: string | undefined, signal: AbortSignal): Promise<KvItem | undefined> {
    let index = 0;
    for (;;) {
      const { found, index: newer } = await this.#read(
        name,
        index === 0 ? { consistent: "" } : { index, wait: `${WAIT_MS}ms` },
        signal,
      );
      if (found?.Session === undefined || found.Session === own) return found;
      index = newer < index ? 0 : newer;
    }
  }

  async #read(
    name: string,
    query: Readonly<Record<string, string | number>>,
    signal?: AbortSignal,
  ): Promise<{ found: KvItem | undefined; index: number }> {
    const { client, prefix } = this.#parts;
    const answer = await client.call<readonly KvItem[]>("GET", `/kv/${prefix}/${lockKey(name)}`, {
      query,
      accept: [404],
      timeoutMs: "wait" in query ? WAIT_MS * 1.1 + 5_000 : 10_000,
      ...(signal === undefined ? {} : { signal }),
    });
    return { found: answer.status === 404 ? undefined : answer.body[0], index: answer.index };
  }

  /** The token when the lock was taken. */
  async #take(
    name: string,
    holder: unknown,
    session: string,
    item: KvItem | undefined,
    above: number,
  ): Promise<number | undefined> {
    const { client, prefix } = this.#parts;
    if (item?.Session === session) return lockValue(item).token; // The answer to taking it was lost.
    const Key = `${prefix}/${lockKey(name)}`;
    const before = item === undefined ? 0 : Math.max(lockValue(item).token, item.LockIndex);
    const token = Math.max(before, above) + 1;
    const Value = Buffer.from(JSON.stringify({ token, holder })).toString("base64");
    const unchanged: Operation =
      item === undefined
        ? { KV: { Verb: "check-not-exists", Key } }
        : { KV: { Verb: "check-index", Key, Index: item.ModifyIndex } };
    const { status, body } = await client.call<TransactionAnswer>("PUT", "/txn", {
      body: [unchanged, { KV: { Verb: "lock", Key, Value, Session: session } }],
      accept: [409],
    });
    if (status !== 409) return token;
    const denied = body.Errors?.find(({ What }) => /permission denied/i.test(What));
    if (denied !== undefined) throw new ConsulError("forbidden", client.url, denied.What);
    return undefined;
  }

  #hold(name: string, session: { id: string; atMs: number }, token: number, ttlMs: number): Lock {
    const lost = new AbortController();
    const lock: Lock = {
      fence: { lock: name, token, session: session.id },
      lost: lost.signal,
      release: async () => {
        this.#held.delete(lock);
        if (lost.signal.aborted) return;
        lost.abort(new Error("released"));
        await this.#sessions.destroy(session.id);
      },
    };
    this.#held.add(lock);
    void this.#keep(session, this.#sessions.ttlOf(ttlMs), lost).finally(() => this.#held.delete(lock));
    return lock;
  }

  /** Renews until it is lost: Consul says so, or it could not be asked for a whole TTL. */
  async #keep(session: { id: string; atMs: number }, ttlMs: number, lost: AbortController): Promise<void> {
    const { clock, random } = this.#parts;
    let renewedMs = session.atMs;
    for (let attempt = 0; !lost.signal.aborted;) {
      const leftMs = renewedMs + ttlMs - clock.nowMs();
      if (leftMs <= 0) {
        lost.abort(new Error(`it could not be renewed for ${ttlMs / 1000} s`));
        return;
      }
      const pauseMs =
        attempt === 0 ? ttlMs / 3 : equalJitterMs(attempt, { baseMs: 100, capMs: ttlMs / 5 }, random);
      await clock.sleep(Math.min(leftMs, pauseMs), lost.signal).catch(() => undefined);
      if (lost.signal.aborted) return;
      const askedMs = clock.nowMs();
      try {
        if (!(await this.#sessions.renew(session.id, Math.max(100, renewedMs + ttlMs - askedMs)))) {
          lost.abort(new Error("its session has ended"));
          return;
        }
        renewedMs = askedMs;
        attempt = 0;
      } catch {
        attempt += 1;
      }
    }
  }
}

function lockValue(item: KvItem): { token: number; holder: unknown } {
  try {
    const { token, holder } = valueOf(item) as { token?: unknown; holder?: unknown };
    return { token: Number(token) || 0, holder };
  } catch {
    return { token: 0, holder: undefined }; // Somebody else has written there; the lock index still counts.
  }
}
