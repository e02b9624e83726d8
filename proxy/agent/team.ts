import type { Clock } from "../../base/clock.ts";
import type { EdgeTraffic } from "../../model/mesh.ts";
import { type MetricCounts, countersOf, mergeMetrics } from "./merge-metrics.ts";
import type { FromWorker, Gathered, SiblingState } from "./messages.ts";
import { sumTraffic } from "./siblings.ts";
import type { WorkerProcess } from "./worker-process.ts";

type Told<K extends FromWorker["kind"]> = Extract<FromWorker, { kind: K }>;

/** A worker that has not counted after this long is left out of a scrape: what it said last stands in. */
const COUNT_MS_MAX = 500;

/**
 * What the workers of one proxy know of each other. One leads: it follows the feed, reports for all, and saves epochs,
 * which the others then take from disk. What a worker has counted outlives it here.
 */
export class Team {
  readonly #clock: Clock;
  readonly #states = new Map<WorkerProcess, SiblingState>();
  readonly #counts = new Map<WorkerProcess, readonly MetricCounts[]>();
  readonly #counting = new Map<WorkerProcess, { number: number; done: () => void }>();
  #goneMetrics: readonly MetricCounts[] = [];
  #goneTraffic: readonly EdgeTraffic[] = [];
  #leader: WorkerProcess | undefined;
  #savedEpoch = 0;
  #numbers = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get leader(): WorkerProcess | undefined {
    return this.#leader;
  }

  /** True when the worker has said what is in force in it, which comes before its first socket. */
  knows(worker: WorkerProcess): boolean {
    return this.#states.has(worker);
  }

  /** It has missed the newest saved epoch. */
  isBehind(worker: WorkerProcess): boolean {
    return (this.#states.get(worker)?.epoch ?? 0) < this.#savedEpoch;
  }

  lead(worker: WorkerProcess): void {
    this.#leader = worker;
    worker.send({ kind: "sibling-gone", pid: 0, gone: this.#goneTraffic });
    for (const [{ pid }, state] of this.#states) {
      if (pid !== worker.pid) worker.send({ kind: "sibling", pid, state });
    }
    worker.send({ kind: "lead" });
  }

  /** It led under an earlier keeper, and goes on. */
  goesOnLeading(worker: WorkerProcess): void {
    this.#leader = worker;
  }

  heard(worker: WorkerProcess, { state }: Told<"state">): void {
    this.#states.set(worker, state);
    if (worker !== this.#leader) this.#leader?.send({ kind: "sibling", pid: worker.pid, state });
  }

  /** The leader has a newer epoch: everybody else gets it, and then the leader may say that all know. */
  saved(worker: WorkerProcess, { epoch, config }: Told<"saved">): void {
    if (worker !== this.#leader) return;
    if (config === undefined) this.#savedEpoch = epoch;
    for (const other of this.#states.keys()) {
      if (other === worker) continue;
      other.send(config === undefined ? { kind: "reload" } : { kind: "config", config });
    }
    worker.send({ kind: "settled", epoch });
  }

  /** Everything the other workers have counted, those that ended included. */
  async gather(worker: WorkerProcess, { request, own }: Told<"gather">): Promise<void> {
    this.#counts.set(worker, own);
    const others = [...this.#states.keys()].filter((other) => other !== worker);
    await Promise.all(others.map((other) => this.#count(other)));
    const value: Gathered = {
      live: others.map((other) => this.#counts.get(other) ?? []),
      gone: this.#goneMetrics,
    };
    worker.send({ kind: "answer", request, result: { ok: true, value } });
  }

  counted(worker: WorkerProcess, { number, metrics }: Told<"counted">): void {
    this.#counts.set(worker, metrics);
    const waiting = this.#counting.get(worker);
    if (waiting?.number === number) waiting.done();
  }

  /** It ended: what it had said last is kept. True when it was the leader. */
  remove(worker: WorkerProcess): boolean {
    const state = this.#states.get(worker);
    this.#states.delete(worker);
    this.#counting.get(worker)?.done();
    const counts = this.#counts.get(worker);
    this.#counts.delete(worker);
    if (counts !== undefined) this.#goneMetrics = mergeMetrics([this.#goneMetrics, countersOf(counts)]);
    if (state !== undefined) this.#goneTraffic = sumTraffic([this.#goneTraffic, state.traffic]);
    const led = this.#leader === worker;
    if (led) this.#leader = undefined;
    else this.#leader?.send({ kind: "sibling-gone", pid: worker.pid, gone: this.#goneTraffic });
    return led;
  }

  async #count(worker: WorkerProcess): Promise<void> {
    const done = Promise.withResolvers<void>();
    this.#numbers += 1;
    this.#counting.get(worker)?.done();
    this.#counting.set(worker, { number: this.#numbers, done: done.resolve });
    using _limit = this.#clock.after(COUNT_MS_MAX, done.resolve);
    worker.send({ kind: "count", number: this.#numbers });
    await done.promise;
  }
}
