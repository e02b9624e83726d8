import type { Clock } from "../../base/clock.ts";
import { seededRandom, type Random } from "../../base/random.ts";
import { buildOrders } from "../../control/builds.ts";
import { FeedHub } from "../../control/feed-hub.ts";
import { reconcile } from "../../control/reconcile.ts";
import type { Action, DecisionSettings, HostState, InstanceRecord, World } from "../../control/world.ts";
import type { BuildStatus } from "../../model/host.ts";
import type { InstanceStatus } from "../../model/instance.ts";
import type { FormationRecord, Release } from "../../model/release.ts";
import { host } from "../fixtures/world.ts";
import { SimHost } from "./sim-host.ts";
import { SimProxy } from "./sim-proxy.ts";

export const TICK_MS = 500;
const START_MS = 1_000_000;

export const SIM_SETTINGS: DecisionSettings = {
  drainMsMax: 10_000,
  silentMs: 3_000,
  replaceMs: 8_000,
  proxyGoneMs: 6_000,
  readyMsMax: 20_000,
};

/** How often things go wrong, each a chance for one tick. */
export interface Faults {
  /** Of a report to be lost. */
  readonly loss: number;
  /** Of an instance to crash, an executor or proxy or control to fall over, a link to break. */
  readonly break: number;
  /** Of an epoch to be refused. */
  readonly refuse: number;
}

export const CALM: Faults = { loss: 0, break: 0, refuse: 0 };

/**
 * The whole platform without a byte of I/O: a registry that survives, a control that does not, hosts and proxies that
 * hear late or never. Every action is shown to `onActions` before it takes effect.
 */
export class SimPlatform {
  nowMs = START_MS;
  readonly random: Random;
  readonly hosts: SimHost[];
  readonly proxies: SimProxy[] = [];
  /** The registry: all that survives a restart of control. */
  readonly formations = new Map<string, FormationRecord>();
  readonly releases = new Map<string, Release>();
  readonly records = new Map<string, InstanceRecord>();
  readonly volumes = new Map<string, string>();
  readonly hostStates = new Map<string, HostState>();
  readonly receipts: string[] = [];
  faults: Faults = CALM;
  hub: FeedHub;
  #startedAtMs = START_MS;
  #controlDownUntilMs = 0;
  #epochs = 0;
  readonly #statuses = new Map<string, Map<string, InstanceStatus>>();
  readonly #builds = new Map<string, Map<string, BuildStatus>>();
  readonly #onActions: (world: World, actions: readonly Action[]) => void;
  readonly #clock: Pick<Clock, "wallMs">;

  constructor(
    seed: number,
    hostCount: number,
    onActions: (world: World, actions: readonly Action[]) => void,
  ) {
    this.random = seededRandom(seed);
    this.#onActions = onActions;
    this.#clock = { wallMs: () => this.nowMs };
    this.hub = new FeedHub({ clock: this.#clock as Clock });
    this.hosts = Array.from({ length: hostCount }, (_, index) => {
      const id = String.fromCharCode(97 + index);
      this.hostStates.set(id, host(id, { lastSeenMs: START_MS }));
      this.proxies.push(new SimProxy(`sidecar-${id}`, "sidecar", id, this.random));
      return new SimHost(id, this.random);
    });
    this.proxies.push(new SimProxy("edge-1", "edge", "a", this.random));
  }

  get controlIsUp(): boolean {
    return this.nowMs >= this.#controlDownUntilMs;
  }

  tick(): void {
    this.nowMs += TICK_MS;
    this.#break();
    for (const one of this.hosts) one.step(this.nowMs);
    for (const proxy of this.proxies) proxy.step(this.nowMs);
    if (!this.controlIsUp) return;
    for (const one of this.hosts) this.#exchange(one);
    for (const proxy of this.proxies) this.#feed(proxy);
    this.#control();
  }

  /** The world as control sees it now. */
  world(): World {
    const statusOf = (record: InstanceRecord) => this.#statuses.get(record.hostId)?.get(record.id);
    return {
      nowMs: this.nowMs,
      startedAtMs: this.#startedAtMs,
      formations: [...this.formations.values()],
      releases: this.releases,
      instances: [...this.records.values()].map((record) => {
        const status = statusOf(record);
        return status === undefined ? record : { ...record, status };
      }),
      hosts: [...this.hostStates.values()],
      builds: this.#builds,
      proxies: this.hub.proxies(),
      volumes: this.volumes,
      settings: SIM_SETTINGS,
    };
  }

  /** Everything is up and linked again. */
  heal(): void {
    this.faults = CALM;
    for (const one of this.hosts) one.awake = true;
    for (const proxy of this.proxies) {
      if (!proxy.alive) proxy.start();
      proxy.linked = true;
      proxy.refuseShare = 0;
    }
  }

  #chance(share: number): boolean {
    return share > 0 && this.random() < share;
  }

  #break(): void {
    const { random, nowMs } = this;
    for (const one of this.hosts) {
      if (this.#chance(this.faults.break)) one.crash(random, nowMs);
      if (this.#chance(this.faults.break)) one.awake = !one.awake;
    }
    for (const proxy of this.proxies) {
      proxy.refuseShare = this.faults.refuse;
      if (!proxy.alive) {
        if (random() < 0.5) proxy.start();
      } else if (this.#chance(this.faults.break)) proxy.kill();
      if (this.#chance(this.faults.break)) {
        proxy.linked = !proxy.linked;
        if (!proxy.linked) proxy.cut();
      }
    }
    if (this.controlIsUp && this.#chance(this.faults.break)) this.#restartControl();
  }

  #restartControl(): void {
    this.#controlDownUntilMs = this.nowMs + this.random() * 10_000;
    for (const proxy of this.proxies) proxy.cut();
    this.#statuses.clear();
    this.#builds.clear();
    // As control does it: the registry hands each start a block of numbers of its own.
    this.#epochs += 10_000;
    this.hub = new FeedHub({ clock: this.#clock as Clock, epoch: this.#epochs });
    this.#startedAtMs = Math.ceil(this.#controlDownUntilMs / TICK_MS) * TICK_MS;
  }

  #exchange(one: SimHost): void {
    if (!one.awake) return;
    if (!this.#chance(this.faults.loss)) {
      const state = this.hostStates.get(one.id);
      if (state !== undefined) this.hostStates.set(one.id, { ...state, lastSeenMs: this.nowMs });
      this.#statuses.set(one.id, new Map(one.statuses().map((status) => [status.instanceId, status])));
      for (const status of one.builds()) {
        const byHost = this.#builds.get(status.image) ?? new Map<string, BuildStatus>();
        this.#builds.set(status.image, byHost.set(one.id, status));
      }
    }
    if (this.#chance(this.faults.loss)) return;
    const mine = [...this.records.values()].filter((record) => record.hostId === one.id);
    const assignments = mine.map(({ id, spec, want }) => ({
      instanceId: id,
      spec,
      want: want === "stop" ? ("stop" as const) : ("run" as const),
    }));
    one.assign(assignments, buildOrders(this.world(), one.id), this.nowMs);
  }

  #feed(proxy: SimProxy): void {
    if (!proxy.alive || !proxy.linked) return;
    const { id, kind, hostId } = proxy;
    proxy.stream ??= this.hub.connect({ id, kind, hostId, epoch: proxy.config.epoch }, (message) =>
      proxy.hear(message, this.nowMs),
    );
    if (!this.#chance(this.faults.loss)) this.hub.report(id, proxy.report(), this.nowMs);
  }

  #control(): void {
    for (let round = 0; round < 5; round += 1) {
      this.hub.update(this.world());
      const world = this.world();
      const actions = reconcile(world, this.random);
      this.#onActions(world, actions);
      if (actions.length === 0) return;
      for (const action of actions) this.#act(action);
    }
  }

  #act(action: Action): void {
    if (action.kind === "place") {
      const { record } = action;
      this.records.set(record.id, record);
      if (record.spec.volume !== undefined) this.volumes.set(record.spec.volume, record.hostId);
      return;
    }
    const record = this.records.get(action.instanceId);
    if (record === undefined) throw new Error(`${action.kind} for ${action.instanceId}, which has no record`);
    switch (action.kind) {
      case "remember":
        this.records.set(record.id, { ...record, address: action.address });
        return;
      case "drain":
        this.records.set(record.id, {
          ...record,
          want: "drain",
          drainSinceMs: this.nowMs,
          drainReason: action.reason,
        });
        return;
      case "stop":
        this.records.set(record.id, { ...record, want: "stop" });
        this.receipts.push(action.receipt);
        return;
      case "forget":
        this.records.delete(record.id);
    }
  }
}
