import type { Clock } from "../../base/clock.ts";
import { UserError } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import type { RawHandle } from "./handles.ts";
import { answerRequest, listenError } from "./keeper-answers.ts";
import { replacementDelay, type KeeperPolicy } from "./keeper-policy.ts";
import type { FromWorker, KeeperFacts, ListenerPlan, SocketAddress } from "./messages.ts";
import type { PlainLog } from "./plain-log.ts";
import type { Orphan } from "./orphans.ts";
import { type OpenListener, socketsOf } from "./sockets.ts";
import { Team } from "./team.ts";
import { NO_SLOT, type WorkerCommand, type WorkerEvents, WorkerProcess } from "./worker-process.ts";

export interface KeeperOptions {
  readonly command: WorkerCommand;
  /** Handed to every worker as it starts. */
  readonly settings: unknown;
  readonly policy: KeeperPolicy;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: PlainLog;
  /** How long a replaced worker may finish what it has in flight, in milliseconds. */
  readonly drainMs: number;
  /** Where workers wait for the next keeper should this one die. */
  readonly folder: string;
  /** How long they serve on without one, in milliseconds. @default 120_000 */
  readonly orphanMs?: number;
  /** How long `open` waits for a worker to listen, in milliseconds. @default 10_000 */
  readonly openMsMax?: number;
  /** Workers at once. @default 1 */
  readonly workers?: number;
  /** Answers a worker's request, like "open these ports". */
  readonly onRequest?: (body: unknown) => Promise<unknown>;
}

/**
 * Owns the listening sockets and sees that workers serve them. The keeper never accepts: while no worker lives,
 * connections wait in the kernel's backlog, so a worker may be killed at any time without a refusal.
 *
 * Each worker has a place, and with it sockets of its own (sockets.ts). While a place is empty another worker accepts for
 * it. One worker leads (team.ts). A successor is started beside its predecessor (hot restart, hang) and takes its place
 * when it listens on everything; the old one finishes what it has in flight.
 */
export class Keeper {
  readonly #options: KeeperOptions;
  readonly #slots: number;
  readonly #listeners = new Map<string, OpenListener>();
  readonly #closing = new Map<string, () => void>();
  readonly #team: Team;
  readonly #events: WorkerEvents = {
    onMessage: (from, message) => this.#heard(from, message),
    onExit: (from, how) => this.#exited(from, how),
  };
  /** Who accepts for an empty place. */
  readonly #helpers = new Map<number, WorkerProcess>();
  readonly #replacements = new Map<number, Disposable>();
  #workers: WorkerProcess[] = [];
  /** Places whose workers are still to be replaced by the hot restart under way. */
  #rolling: number[] = [];
  #ticker: Disposable | undefined;
  #quickDeaths = 0;
  #stopping: PromiseWithResolvers<void> | undefined;
  #counts = { deaths: 0, hangs: 0, hotRestarts: 0 };

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#slots = options.workers ?? 1;
    this.#team = new Team(options.clock);
  }

  /** `orphans` serve until every place has a worker that listens; then they drain. */
  start(orphans: readonly Orphan[] = []): void {
    for (const orphan of orphans) {
      const worker = WorkerProcess.adopt(orphan, this.#options.clock.nowMs(), this.#events);
      this.#workers.push(worker);
      if (orphan.leading && this.#team.leader === undefined) this.#team.goesOnLeading(worker);
      else worker.send({ kind: "reload" }); // Without a keeper it was not told what the leading one has saved.
    }
    this.#ticker = this.#options.clock.every(this.#options.policy.pingMs, () => this.#tick());
    for (let slot = 0; slot < this.#slots; slot += 1) this.#spawn(slot);
  }

  /** Process ids of the workers that live, the leading one first. */
  get workerPids(): number[] {
    const { leader } = this.#team;
    const rest = this.#workers.filter((worker) => worker !== leader);
    return [...(leader ? [leader] : []), ...rest].map((worker) => worker.pid);
  }

  facts(): KeeperFacts {
    return { pid: process.pid, rssBytes: process.memoryUsage.rss(), ...this.#counts };
  }

  /**
   * Hands bound sockets of one port to the workers, these and every later one. Resolves when a worker listens.
   * On failure the sockets are closed and forgotten.
   * @throws UserError `port_taken`, `listen_failed`, `listen_timeout` or `stopping`.
   */
  async open(plan: ListenerPlan, ...handles: readonly RawHandle[]): Promise<SocketAddress> {
    if (this.#stopping !== undefined) {
      for (const handle of handles) handle.close();
      throw new UserError("The proxy is stopping", { code: "stopping", status: 503 });
    }
    const listener: OpenListener = { plan, handles, opened: Promise.withResolvers() };
    this.#listeners.set(plan.id, listener);
    for (const worker of this.#workers) {
      const takes = this.#team.knows(worker) && worker.state !== "draining" && worker.slot !== NO_SLOT;
      if (takes) this.#share(worker, listener, worker.slot);
    }
    for (const [slot, helper] of this.#helpers) {
      if (canBeLent(listener, this.#slots)) this.#share(helper, listener, slot);
    }
    const limitMs = this.#options.openMsMax ?? 10_000;
    const timer = this.#options.clock.after(limitMs, () => {
      listener.opened.reject(
        new UserError(`No worker listened on ${plan.id} within ${limitMs / 1000} s`, {
          code: "listen_timeout",
          status: 503,
          next: "Try again; the proxy's log says why its worker is away.",
        }),
      );
    });
    try {
      return await listener.opened.promise;
    } catch (error) {
      await this.close(plan.id);
      throw error;
    } finally {
      timer[Symbol.dispose]();
    }
  }

  /** Closes a listener in the keeper and in every worker. Connections already accepted go on. */
  async close(id: string): Promise<void> {
    const listener = this.#listeners.get(id);
    if (listener === undefined) return;
    this.#listeners.delete(id);
    for (const handle of listener.handles) handle.close();
    const { leader } = this.#team;
    for (const worker of this.#workers) worker.send({ kind: "unlisten", id });
    if (leader === undefined) return;
    const closed = Promise.withResolvers<void>();
    this.#closing.set(id, closed.resolve);
    using _limit = this.#options.clock.after(2_000, closed.resolve);
    await closed.promise;
    this.#closing.delete(id);
  }

  /** Replaces the workers, one after the other: each drains once its successor listens. */
  restart(reason: string): void {
    if (this.#stopping !== undefined) return;
    if (this.#rolling.length > 0 || this.#workers.some((worker) => worker.state === "starting")) {
      this.#options.log.info({ reason }, "a worker is already starting; nothing more to do");
      return;
    }
    this.#counts.hotRestarts += 1;
    this.#options.log.info({ reason }, "starting a successor for each worker");
    this.#rolling = Array.from({ length: this.#slots }, (_, slot) => slot);
    this.#roll();
  }

  /** Closes every socket, lets the workers finish, cuts what outlives `drainMs`. Resolves when all are gone. */
  async stop(drainMs = this.#options.drainMs): Promise<void> {
    if (this.#stopping !== undefined) return this.#stopping.promise;
    this.#stopping = Promise.withResolvers();
    for (const replacement of this.#replacements.values()) replacement[Symbol.dispose]();
    for (const { handles, opened } of this.#listeners.values()) {
      for (const handle of handles) handle.close();
      opened.reject(new UserError("The proxy is stopping", { code: "stopping", status: 503 }));
      opened.promise.catch(() => undefined);
    }
    this.#listeners.clear();
    for (const worker of this.#workers) {
      worker.endReason = "stop";
      if (!worker.greeted) worker.kill("SIGKILL");
      else worker.send({ kind: "drain", timeoutMs: drainMs, successor: false });
    }
    using _limit = this.#options.clock.after(drainMs + 2_000, () => {
      for (const worker of this.#workers) worker.kill("SIGKILL");
    });
    if (this.#workers.length === 0) this.#stopping.resolve();
    await this.#stopping.promise;
    this.#ticker?.[Symbol.dispose]();
  }

  #spawn(slot: number): void {
    this.#replacements.delete(slot);
    const { command, clock } = this.#options;
    this.#workers.push(WorkerProcess.start(command, slot, clock.nowMs(), this.#events));
  }

  #heard(worker: WorkerProcess, message: FromWorker): void {
    const team = this.#team;
    switch (message.kind) {
      case "hello":
        return worker.send({
          kind: "start",
          settings: this.#options.settings,
          orphan: {
            folder: this.#options.folder,
            waitMs: this.#options.orphanMs ?? 120_000,
            drainMs: this.#options.drainMs,
          },
        });
      case "listening":
        return this.#listeners.get(message.id)?.opened.resolve(message.address);
      case "listen-failed":
        this.#options.log.warn({ id: message.id, reason: message.reason }, "worker cannot listen");
        return this.#listeners.get(message.id)?.opened.reject(listenError(message));
      case "unlistened":
        return worker === team.leader ? this.#closing.get(message.id)?.() : undefined;
      case "again": {
        const listener = this.#listeners.get(message.id);
        if (listener !== undefined) this.#share(worker, listener, Math.max(0, worker.slot));
        return;
      }
      case "serving":
        return this.#serving(worker);
      case "handed-over":
        return worker === team.leader ? this.#elect((state) => state === "serving") : undefined;
      case "saved":
        return team.saved(worker, message);
      case "state": {
        const first = !team.knows(worker);
        team.heard(worker, message);
        if (worker.slot !== NO_SLOT && (first || worker.reloaded)) this.#admit(worker);
        return;
      }
      case "counted":
        return team.counted(worker, message);
      case "gather":
        void team.gather(worker, message);
        return;
      case "request":
        void this.#answer(worker, message.request, message.body);
        return;
      case "drained":
      case "pong":
        return;
    }
  }

  /**
   * Gives a worker its sockets, now that it has said what is in force in it: never an older epoch than the one that was
   * acknowledged for all.
   */
  #admit(worker: WorkerProcess): void {
    if (!worker.reloaded && this.#team.isBehind(worker)) {
      worker.reloaded = true;
      return worker.send({ kind: "reload" });
    }
    worker.reloaded = false;
    const listeners = [...this.#listeners.values()];
    const count = listeners.flatMap((listener) => socketsOf(listener, worker.slot, this.#slots)).length;
    worker.send({ kind: "sockets", count });
    for (const listener of listeners) this.#share(worker, listener, worker.slot);
    // Nobody follows the feed: do not wait for the sockets.
    if (this.#team.leader === undefined) this.#team.lead(worker);
  }

  /** Has `worker` accept on the sockets that belong to `slot`. */
  #share(worker: WorkerProcess, listener: OpenListener, slot: number): void {
    for (const socket of socketsOf(listener, slot, this.#slots)) {
      worker.send({ kind: "listen", plan: listener.plan, socket }, listener.handles[socket]);
    }
  }

  /** The worker listens on everything: whoever had its place before hands over. */
  #serving(worker: WorkerProcess): void {
    if (worker.state !== "starting") return;
    worker.state = "serving";
    const { clock, log } = this.#options;
    const tookMs = Math.round(clock.nowMs() - worker.startedMs);
    log.info({ pid: worker.pid, slot: worker.slot, tookMs }, "worker serves");
    this.#relieve(worker.slot);
    const serving = this.#workers.filter((other) => other !== worker && other.state === "serving");
    const complete =
      new Set(serving.map(({ slot }) => slot)).add(worker.slot).add(NO_SLOT).size > this.#slots;
    const before = serving.filter(({ slot }) => slot === worker.slot || (slot === NO_SLOT && complete));
    for (const predecessor of before) {
      this.#drain(predecessor);
      if (predecessor !== this.#team.leader) continue;
      // A leader that hangs cannot hand over; nobody must be without a feed for longer than this.
      clock.after(1_000, () => {
        if (this.#team.leader === predecessor && worker.state === "serving") this.#team.lead(worker);
      });
    }
    if (this.#rolling[0] === worker.slot) {
      this.#rolling.shift();
      this.#roll();
    }
  }

  #roll(): void {
    const [slot] = this.#rolling;
    if (slot !== undefined && this.#stopping === undefined) this.#spawn(slot);
  }

  #elect(may: (state: WorkerProcess["state"]) => boolean): void {
    const next = this.#workers.find((worker) => may(worker.state) && this.#team.knows(worker));
    if (next !== undefined) this.#team.lead(next);
  }

  /** Another worker accepts for a place that is empty, or whose worker stands still. */
  #lend(slot: number): void {
    if (this.#helpers.has(slot)) return;
    const helper = this.#workers.find((worker) => worker.state === "serving" && worker.slot !== slot);
    if (helper === undefined) return;
    this.#helpers.set(slot, helper);
    for (const listener of this.#listeners.values()) {
      if (canBeLent(listener, this.#slots)) this.#share(helper, listener, slot);
    }
  }

  #relieve(slot: number): void {
    const helper = this.#helpers.get(slot);
    this.#helpers.delete(slot);
    for (const listener of helper === undefined ? [] : this.#listeners.values()) {
      if (!canBeLent(listener, this.#slots)) continue;
      const { id } = listener.plan;
      for (const socket of socketsOf(listener, slot, this.#slots))
        helper?.send({ kind: "leave", id, socket });
    }
  }

  #drain(worker: WorkerProcess): void {
    const { drainMs, clock, policy } = this.#options;
    worker.state = "draining";
    worker.endReason = "replaced";
    worker.send({ kind: "drain", timeoutMs: drainMs, successor: true });
    clock.after(drainMs + 2_000, () => worker.kill("SIGKILL"));
    const draining = this.#workers.filter(({ state }) => state === "draining");
    const max = policy.drainingMax * this.#slots;
    for (const oldest of draining.slice(0, draining.length - max)) oldest.kill("SIGKILL");
  }

  #exited(worker: WorkerProcess, how: string): void {
    this.#workers = this.#workers.filter((other) => other !== worker);
    const led = this.#team.remove(worker);
    if (this.#stopping !== undefined) {
      if (this.#workers.length === 0) this.#stopping.resolve();
      return;
    }
    if (led) this.#elect((state) => state !== "draining");
    for (const [slot, helper] of this.#helpers) {
      if (helper !== worker) continue;
      this.#helpers.delete(slot);
      this.#lend(slot);
    }
    if (worker.endReason !== "replaced") this.#replace(worker, how);
  }

  /** A worker died that was not asked to: another one takes its place unless one is on its way. */
  #replace(worker: WorkerProcess, how: string): void {
    const { clock, log, policy, random } = this.#options;
    const { pid, slot } = worker;
    if (worker.endReason === undefined) this.#counts.deaths += 1;
    const livedMs = clock.nowMs() - worker.startedMs;
    const { delayMs, quickDeaths } = replacementDelay(livedMs, this.#quickDeaths, policy, random);
    this.#quickDeaths = quickDeaths;
    log.warn({ pid, slot, how, livedMs: Math.round(livedMs) }, "worker is gone");
    const taken = this.#workers.some((other) => other.slot === slot && other.state !== "draining");
    if (this.#rolling[0] === slot) this.#rolling = []; // What does not start here starts nowhere.
    if (taken || this.#replacements.has(slot)) return;
    this.#lend(slot);
    if (delayMs === 0) return this.#spawn(slot);
    log.warn({ quickDeaths, delayMs: Math.round(delayMs) }, "workers die quickly; waiting before the next");
    this.#replacements.set(
      slot,
      clock.after(delayMs, () => this.#spawn(slot)),
    );
  }

  #tick(): void {
    const { clock, log, policy } = this.#options;
    const facts = this.facts();
    for (const worker of this.#workers) {
      const late = clock.nowMs() - worker.startedMs > policy.startMsMax;
      if (worker.state === "starting" && late) {
        log.error({ pid: worker.pid }, "worker did not start in time; killing it");
        worker.kill("SIGKILL");
      } else if (worker.ping(policy, facts)) this.#hung(worker);
    }
  }

  /** First a successor; the hung one is killed only when that listens, so it may still come back and drain. */
  #hung(worker: WorkerProcess): void {
    const { log } = this.#options;
    if (worker.state !== "serving" || this.#stopping !== undefined) {
      log.error({ pid: worker.pid }, "worker does not answer; killing it");
      worker.kill("SIGKILL");
      return;
    }
    if (worker.endReason !== "hung") {
      worker.endReason = "hung";
      this.#counts.hangs += 1;
      log.error({ pid: worker.pid }, "worker does not answer; replacing it");
      this.#lend(worker.slot);
    }
    const onItsWay = this.#workers.some(({ slot, state }) => slot === worker.slot && state === "starting");
    if (!onItsWay) this.#spawn(worker.slot);
  }

  async #answer(worker: WorkerProcess, request: number, body: unknown): Promise<void> {
    const { log, onRequest } = this.#options;
    worker.send({ kind: "answer", request, result: await answerRequest(onRequest, body, log) });
  }
}

/** A socket that all listen on needs no helper; pages and the API are worth waiting for. */
function canBeLent({ plan, handles }: OpenListener, slots: number): boolean {
  return plan.kind !== "admin" && plan.kind !== "api" && handles.length >= slots && slots > 1;
}
