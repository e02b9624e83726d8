import type { FilterContext } from "./filter.ts";

const DELAY_MS_MAX = 10_000;
const NOTES_MAX = 8;
const NOTE_CHARS_MAX = 256;
const COUNTS_MAX = 16;

/** What a filter asked for beside its return value. */
export interface Effects {
  /** The cluster to go to. */
  readonly route?: string | undefined;
  readonly delayMs: number;
  readonly counts: readonly (readonly [name: string, label: string])[];
  readonly notes: readonly (readonly [key: string, value: string])[];
}

/** What a filter is told about one request beside its head. */
export interface RunFacts {
  readonly options: unknown;
  readonly requestId: string;
  readonly from: string;
  readonly to: string;
  readonly client: string;
  readonly clusters: Readonly<Record<string, string>> | undefined;
}

const NONE: readonly [] = [];

/** A filter's context, in whichever lane it runs, and the record of what it asked for. */
export class RunContext implements FilterContext, Effects {
  route: string | undefined;
  delayMs = 0;
  counts: (readonly [string, string])[] | readonly [] = NONE;
  notes: (readonly [string, string])[] | readonly [] = NONE;
  readonly #facts: RunFacts;
  readonly #wallMs: () => number;
  #state: Map<string, unknown> | undefined;

  constructor(facts: RunFacts, wallMs: () => number, state?: Map<string, unknown>) {
    this.#facts = facts;
    this.#wallMs = wallMs;
    this.#state = state;
  }

  get options(): unknown {
    return this.#facts.options;
  }

  get requestId(): string {
    return this.#facts.requestId;
  }

  get from(): string {
    return this.#facts.from;
  }

  get to(): string {
    return this.#facts.to;
  }

  get client(): string {
    return this.#facts.client;
  }

  get state(): Map<string, unknown> {
    return (this.#state ??= new Map<string, unknown>());
  }

  now(): number {
    return this.#wallMs();
  }

  routeTo(name: string): void {
    const { clusters } = this.#facts;
    const cluster = clusters !== undefined && Object.hasOwn(clusters, name) ? clusters[name] : undefined;
    if (cluster === undefined) {
      const known = Object.keys(clusters ?? {}).join(", ");
      throw new TypeError(
        `this use of the filter may not route to "${name}"; its \`clusters:\` in gilliam.yaml has ${known === "" ? "none" : known}`,
      );
    }
    this.route = cluster;
  }

  delay(ms: number): void {
    if (!Number.isFinite(ms) || ms < 0) throw new TypeError(`a delay is a number of milliseconds, not ${ms}`);
    this.delayMs = Math.min(this.delayMs + ms, DELAY_MS_MAX);
  }

  // What is written in JavaScript passes anything.
  count(name: unknown, label: unknown = ""): void {
    if (this.counts.length >= COUNTS_MAX) return;
    this.counts = [...this.counts, [String(name).slice(0, 64), String(label).slice(0, 64)]];
  }

  annotate(key: unknown, value: unknown): void {
    if (this.notes.length >= NOTES_MAX) return;
    this.notes = [
      ...this.notes,
      [String(key).slice(0, NOTE_CHARS_MAX), String(value).slice(0, NOTE_CHARS_MAX)],
    ];
  }
}
