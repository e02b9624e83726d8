import { ConsulError } from "./consul-client.ts";
import type { SessionParts, Sessions } from "./consul-sessions.ts";
import { type KvItem, type TransactionAnswer, registrationKey, refusalOf, valueOf } from "./consul-values.ts";
import { checkKey, checkRegistration } from "./limits.ts";
import type { Registration } from "./registry.ts";

interface Own {
  readonly session: string;
  readonly text: string;
  readonly renewedMs: number;
}

/** Registrations are KV keys that vanish with their session. One is renewed when a third of its time is over, not sooner. */
export class ConsulRegistrations {
  readonly #parts: SessionParts;
  readonly #sessions: Sessions;
  readonly #verified: (path: string) => Promise<readonly KvItem[]>;
  readonly #own = new Map<string, Own>();
  /** One change of a registration at a time. */
  readonly #turns = new Map<string, Promise<void>>();

  constructor(
    parts: SessionParts,
    sessions: Sessions,
    verified: (path: string) => Promise<readonly KvItem[]>,
  ) {
    this.#parts = parts;
    this.#sessions = sessions;
    this.#verified = verified;
  }

  register(registration: Registration, ttlMs: number): Promise<void> {
    const text = checkRegistration(registration);
    const name = registrationKey(registration.kind, registration.id);
    const waiting = this.#turns.get(name);
    // While Consul is slow, renewals do not queue up: the one under way is as good.
    if (waiting !== undefined && this.#own.get(name)?.text === text) return waiting;
    return this.#inTurn(name, () => this.#put(name, text, ttlMs));
  }

  /** With this very value, as far as is known. */
  isRegistered({ kind, id, value }: Registration): boolean {
    return this.#own.get(registrationKey(kind, id))?.text === JSON.stringify(value);
  }

  deregister(kind: Registration["kind"], id: string): Promise<void> {
    checkKey(id);
    const name = registrationKey(kind, id);
    return this.#inTurn(name, async () => {
      const { client, prefix } = this.#parts;
      const own = this.#own.get(name);
      this.#own.delete(name);
      await client.call("DELETE", `/kv/${prefix}/${name}`);
      if (own !== undefined) await this.#sessions.destroy(own.session);
    });
  }

  async list(kind: Registration["kind"]): Promise<readonly Registration[]> {
    const { client, prefix } = this.#parts;
    const folder = registrationKey(kind);
    const answer = await client.call<KvItem[]>("GET", `/kv/${prefix}/${folder}`, {
      query: { recurse: "", consistent: "" },
      accept: [404],
    });
    const items = answer.status === 404 ? await this.#verified(folder) : answer.body;
    return items
      .filter(({ Session }) => Session !== undefined)
      .map((item) => ({ kind, id: item.Key.slice(`${prefix}/${folder}`.length), value: valueOf(item) }));
  }

  async #put(name: string, text: string, ttlMs: number): Promise<void> {
    const { clock } = this.#parts;
    const nowMs = clock.nowMs();
    const own = this.#own.get(name);
    if (own !== undefined) {
      const isDue = nowMs - own.renewedMs >= this.#sessions.ttlOf(ttlMs) / 3;
      if (!isDue && own.text === text) return;
      if (await this.#sessions.renew(own.session)) {
        if (own.text !== text) await this.#take(name, text, own.session);
        this.#own.set(name, { session: own.session, text, renewedMs: nowMs });
        return;
      }
      this.#own.delete(name);
    }
    const session = await this.#sessions.create(`gilliam ${name.slice(1)}`, "delete", ttlMs);
    try {
      await this.#take(name, text, session);
    } catch (error) {
      void this.#sessions.destroy(session);
      throw error;
    }
    this.#own.set(name, { session, text, renewedMs: nowMs });
  }

  /** Also from the session of an earlier process, which must not take the key with it when it ends. */
  async #take(name: string, text: string, session: string): Promise<void> {
    const { client, prefix } = this.#parts;
    const Key = `${prefix}/${name}`;
    const Value = Buffer.from(text).toString("base64");
    const { status, body } = await client.call<TransactionAnswer>("PUT", "/txn", {
      body: [{ KV: { Verb: "delete", Key } }, { KV: { Verb: "lock", Key, Value, Session: session } }],
      accept: [409],
    });
    if (status !== 409) return;
    const refusal = refusalOf(body);
    const trouble = refusal.kind === "denied" ? "forbidden" : "refused";
    throw new ConsulError(trouble, client.url, "what" in refusal ? refusal.what : `cannot lock ${Key}`);
  }

  #inTurn(name: string, action: () => Promise<void>): Promise<void> {
    const turn = (this.#turns.get(name) ?? Promise.resolve()).catch(() => undefined).then(action);
    this.#turns.set(name, turn);
    return turn.finally(() => {
      if (this.#turns.get(name) === turn) this.#turns.delete(name);
    });
  }
}
