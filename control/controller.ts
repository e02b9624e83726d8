import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import { adoptions } from "./adopt.ts";
import type { AssignmentsHub } from "./assignments.ts";
import type { EventLog, NumberedEvent } from "./events.ts";
import type { FeedHub } from "./feed-hub.ts";
import type { HostReports } from "./host-reports.ts";
import { reconcile } from "./reconcile.ts";
import type { Write } from "./registry/registry.ts";
import { WRITES_MAX } from "./registry/limits.ts";
import { keyOf, type ReservedCounter, type Store } from "./store.ts";
import type { Action, DecisionSettings, HostState, InstanceRecord, World } from "./world.ts";

export interface ControllerParts {
  readonly store: Store;
  readonly hub: FeedHub;
  readonly assignments: AssignmentsHub;
  readonly reports: HostReports;
  readonly events: EventLog;
  readonly epochs: ReservedCounter;
  /** Its wall time does not jump: steady-clock.ts. */
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly settings: DecisionSettings;
  readonly onTick?: (durationMs: number) => void;
  /** Called between any two steps; tests throw here to see that a control killed there loses nothing. */
  readonly failpoint?: (step: string) => void;
}

/** How often it looks without being told that something changed, and how many rounds one look may take. */
const TICK_MS = 1_000;
const ROUNDS_MAX = 20;

/**
 * The loop: registry and reports become a World, decisions become writes, and only what is written is told to
 * executors and proxies. Every step can be the last one of a killed control: the next one starts from the registry.
 */
export class Controller {
  readonly #parts: ControllerParts;
  readonly #startedAtMs: number;
  #running: Promise<void> | undefined;
  #again = false;
  #alarm: string | undefined;
  #unknown: readonly string[] = [];

  constructor(parts: ControllerParts) {
    this.#parts = parts;
    this.#startedAtMs = parts.clock.wallMs();
  }

  /** Plain sentences about what the loop itself cannot do. */
  alarms(): string[] {
    return [...(this.#alarm === undefined ? [] : [this.#alarm]), ...this.#unknown];
  }

  get startedAtMs(): number {
    return this.#startedAtMs;
  }

  /** Everything as it is known now; `proxies` as the hub knows them. */
  world(): World {
    const { store, hub, reports, settings, clock } = this.#parts;
    return {
      nowMs: clock.wallMs(),
      startedAtMs: this.#startedAtMs,
      formations: store.formations.values,
      releases: new Map(store.releases.ids.map((id) => [id, store.releases.get(id)!])),
      instances: store.instances.values.map((record) => withStatus(record, reports)),
      hosts: store.hosts.values.map((host): HostState => ({
        id: host.id,
        lastSeenMs: reports.lastSeenMs(host.id) ?? this.#startedAtMs,
        draining: host.draining,
        driver: host.driver,
        network: host.network,
        capacity: host.capacity,
        labels: host.labels,
      })),
      builds: reports.builds(),
      proxies: hub.proxies(),
      volumes: new Map(store.volumes.ids.map((name) => [name, store.volumes.get(name)!])),
      settings,
    };
  }

  /** Looks now, or right after the look in progress; resolves when a look that began after this call is done. */
  async poke(): Promise<void> {
    if (this.#running !== undefined) {
      this.#again = true;
      return this.#running;
    }
    this.#running = this.#lookUntilQuiet().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #lookUntilQuiet(): Promise<void> {
    do {
      this.#again = false;
      await this.#look();
    } while (this.#again);
  }

  /** Until aborted: every second, and whenever poked. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#parts;
    while (!signal.aborted) {
      await this.poke();
      await clock.sleep(TICK_MS, signal).catch(() => undefined);
    }
    await this.#running;
  }

  async #look(): Promise<void> {
    const { clock, log, onTick } = this.#parts;
    const startMs = clock.nowMs();
    try {
      await this.#step();
      this.#alarm = undefined;
    } catch (error) {
      const text = `Control cannot carry out its decisions: ${messageOf(error)}. What runs goes on running.`;
      if (this.#alarm !== text) log.error({ error: messageOf(error) }, "the controller loop failed");
      this.#alarm = text;
    }
    onTick?.(clock.nowMs() - startMs);
  }

  async #step(): Promise<void> {
    const { store, random } = this.#parts;
    // A registry that cannot be written now is no reason to tell proxies and executors nothing.
    const failed = await this.#adopt().then(
      () => undefined,
      (error: unknown) => error ?? new Error("adoption failed"),
    );
    if (failed !== undefined) {
      await this.#tell();
      throw failed as Error;
    }
    for (let round = 0; round < ROUNDS_MAX; round++) {
      await this.#tell();
      const actions = reconcile(this.world(), random);
      if (actions.length === 0) break;
      this.#at("decided");
      await this.#carryOut(actions);
    }
    for (const formation of store.deletions.ids) await this.#finishDeletion(formation);
  }

  /** What is written may be heard: first by the proxies, then by the executors. */
  async #tell(): Promise<void> {
    const { hub, epochs, assignments } = this.#parts;
    await epochs.reserve(hub.epoch);
    this.#at("reserved");
    const world = this.world();
    hub.update(world);
    this.#at("fed");
    assignments.update(world);
    this.#at("assigned");
  }

  /** Each action with what must be written together with it; as many as fit share a transaction. */
  async #carryOut(actions: readonly Action[]): Promise<void> {
    const { store, events } = this.#parts;
    let writes: Write[] = [];
    let told: NumberedEvent[] = [];
    const flush = async () => {
      const ok = await store.write(writes);
      this.#at("written");
      if (ok) for (const event of told) events.announce(event);
      writes = [];
      told = [];
      return ok;
    };
    for (const action of actions) {
      const change = this.#changeOf(action);
      if (change === undefined) continue;
      if (writes.length + change.writes.length > WRITES_MAX && !(await flush())) return; // Void: decide anew.
      // A volume placed in this same transaction was decided for both; writing its key twice is not allowed.
      writes.push(...change.writes.filter(({ key }) => !writes.some((write) => write.key === key)));
      told.push(...change.events);
    }
    await flush();
  }

  #changeOf(action: Action): { writes: Write[]; events: NumberedEvent[] } | undefined {
    const { store, events, clock } = this.#parts;
    const { instances } = store;
    if (action.kind === "place") {
      const { status: _status, ...record } = action.record;
      const { volume } = record.spec;
      const claim = volume === undefined || store.volumes.get(volume) === record.hostId ? [] : [volume];
      return {
        writes: [
          { kind: "set", key: keyOf.instance(record.id), value: record, ifRevision: 0 },
          ...claim.map((name) => store.set(store.volumes, name, record.hostId)),
        ],
        events: [],
      };
    }
    const record = instances.get(action.instanceId);
    if (record === undefined) return undefined;
    const { id, formation } = record;
    switch (action.kind) {
      case "remember":
        return { writes: [store.set(instances, id, { ...record, address: action.address })], events: [] };
      case "drain": {
        const draining = {
          ...record,
          want: "drain",
          drainSinceMs: clock.wallMs(),
          drainReason: action.reason,
        } as const;
        events.publish({ kind: "instance", formation, text: `${id} drains: ${action.reason}` });
        return { writes: [store.set(instances, id, draining)], events: [] };
      }
      case "stop": {
        const { event, writes } = events.prepare({
          kind: "receipt",
          formation,
          text: `${id} may stop: ${action.receipt}`,
        });
        return {
          writes: [store.set(instances, id, { ...record, want: "stop" }), ...writes],
          events: [event],
        };
      }
      case "forget":
        return { writes: [store.remove(instances, id)], events: [] };
    }
  }

  /** Takes over what hosts run that the registry does not know: see adopt.ts. */
  async #adopt(): Promise<void> {
    const { store, reports, events, log, clock } = this.#parts;
    const { writes, texts, unknown } = adoptions(store, reports, clock.wallMs());
    for (const sentence of unknown) if (!this.#unknown.includes(sentence)) log.warn(sentence);
    this.#unknown = unknown;
    for (let at = 0; at < writes.length; at += WRITES_MAX) {
      if (!(await store.write(writes.slice(at, at + WRITES_MAX)))) return;
      this.#at("adopted");
    }
    for (const { formation, text } of texts) events.publish({ kind: "instance", formation, text });
  }

  /** The last of it goes when nothing of it runs any more. */
  async #finishDeletion(formation: string): Promise<void> {
    const { store, events } = this.#parts;
    if (store.instancesOf(formation).length > 0) return;
    const secrets = store.secrets.ids.filter((id) => id.startsWith(`${formation}/`));
    const rest = [
      ...store
        .releasesOf(formation)
        .map(({ number }) => store.remove(store.releases, `${formation}/${number}`)),
      ...secrets.map((id) => store.remove(store.secrets, id)),
    ];
    for (let at = 0; at < rest.length; at += WRITES_MAX) {
      if (!(await store.write(rest.slice(at, at + WRITES_MAX)))) return;
      this.#at("deleting");
    }
    const { event, writes } = events.prepare({
      kind: "formation",
      formation,
      text: `${formation} is deleted`,
    });
    const last = [
      ...(store.formations.get(formation) ? [store.remove(store.formations, formation)] : []),
      store.remove(store.deletions, formation),
    ];
    if (await store.write([...last, ...writes])) events.announce(event);
  }

  #at(step: string): void {
    this.#parts.failpoint?.(step);
  }
}

function withStatus(record: InstanceRecord, reports: HostReports): InstanceRecord {
  const status = reports.statusOf(record.hostId, record.id);
  return status === undefined ? record : { ...record, status };
}
