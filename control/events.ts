import type { Clock } from "../base/clock.ts";
import type { ControlEvent } from "../model/api.ts";
import type { Registry, Write } from "./registry/registry.ts";
import { keyOf } from "./store.ts";

export interface NumberedEvent {
  /** Grows with time; what `last-event-id` names. */
  readonly id: number;
  readonly event: ControlEvent;
}

/** Events in memory, and of them those in the registry; the oldest go first. */
const MEMORY_MAX = 2_000;
const STORED_MAX = 500;

type Draft = Omit<ControlEvent, "atMs">;

/**
 * What happened, for people: the last two thousand in memory, releases and receipts in the registry too.
 * Ids follow the wall clock, so that they grow over restarts without being written down.
 */
export class EventLog {
  readonly #clock: Clock;
  #events: NumberedEvent[] = [];
  #stored: number[] = [];
  readonly #listeners = new Set<(event: NumberedEvent) => void>();
  #lastId = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async load(registry: Registry): Promise<void> {
    const { entries } = await registry.list("events/");
    this.#events = entries.map(({ key, value }) => ({
      id: Number(key.slice("events/".length)),
      event: value as ControlEvent,
    }));
    this.#stored = this.#events.map(({ id }) => id);
    this.#lastId = this.#events.at(-1)?.id ?? 0;
  }

  /** Tells everybody who listens; kept in memory only. */
  publish(draft: Draft): void {
    this.announce(this.#number(draft));
  }

  /**
   * For events that must survive: the writes go into the transaction of what they tell, `announce` follows when it
   * is written. Also removes the oldest stored one when there are too many.
   */
  prepare(draft: Draft): { event: NumberedEvent; writes: Write[] } {
    const event = this.#number(draft);
    this.#stored.push(event.id);
    const writes: Write[] = [{ kind: "set", key: keyOf.event(event.id), value: event.event }];
    const oldest = this.#stored.length > STORED_MAX ? this.#stored.shift() : undefined;
    if (oldest !== undefined) writes.push({ kind: "delete", key: keyOf.event(oldest) });
    return { event, writes };
  }

  announce(event: NumberedEvent): void {
    this.#events.push(event);
    if (this.#events.length > MEMORY_MAX) this.#events.splice(0, this.#events.length - MEMORY_MAX);
    for (const listener of this.#listeners) listener(event);
  }

  /** The ones after `id`, oldest first. */
  after(id: number): readonly NumberedEvent[] {
    return this.#events.filter((event) => event.id > id);
  }

  get all(): readonly NumberedEvent[] {
    return this.#events;
  }

  listen(listener: (event: NumberedEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  #number(draft: Draft): NumberedEvent {
    const atMs = this.#clock.wallMs();
    this.#lastId = Math.max(this.#lastId + 1, Math.floor(atMs));
    return { id: this.#lastId, event: { atMs, ...draft } };
  }
}
