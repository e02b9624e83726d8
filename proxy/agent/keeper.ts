import type { Clock } from "../../base/clock.ts";
import { UserError } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import type { RawHandle } from "./handles.ts";
import { answerRequest, listenError } from "./keeper-answers.ts";
import { replacementDelay, type KeeperPolicy } from "./keeper-policy.ts";
import type { FromWorker, KeeperFacts, ListenerPlan, SiblingState, SocketAddress } from "./messages.ts";
import type { PlainLog } from "./plain-log.ts";
import { WorkerProcess, type WorkerCommand } from "./worker-process.ts";

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
  /** How long `open` waits for a worker to listen, in milliseconds. @default 10_000 */
  readonly openMsMax?: number;
  /** Answers a worker's request, like "open these ports". */
  readonly onRequest?: (body: unknown) => Promise<unknown>;
}

interface Listener {
  readonly plan: ListenerPlan;
  readonly handle: RawHandle;
  /** Settles when a worker listens or says why it cannot. */
  readonly opened: PromiseWithResolvers<SocketAddress>;
}

/**
 * Owns the listening sockets and sees that one worker serves them. The keeper never accepts: while no worker
 * lives, connections wait in the kernel's backlog, so a worker may be killed at any time without a refusal.
 *
 * One worker leads: it follows the feed and reports. A successor is started beside it (hot restart, hang) and
 * takes the lead when it listens on everything; the old one finishes what it has in flight.
 */
export class Keeper {
  readonly #options: KeeperOptions;
  readonly #listeners = new Map<string, Listener>();
  readonly #closing = new Map<string, () => void>();
  /** Last told by workers that drain, by process id. */
  readonly #siblings = new Map<number, SiblingState>();
  #workers: WorkerProcess[] = [];
  #leader: WorkerProcess | undefined;
  #ticker: Disposable | undefined;
  #replacement: Disposable | undefined;
  #quickDeaths = 0;
  #stopping: PromiseWithResolvers<void> | undefined;
  #counts = { deaths: 0, hangs: 0, hotRestarts: 0 };

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  start(): void {
    this.#ticker = this.#options.clock.every(this.#options.policy.pingMs, () => this.#tick());
    this.#spawn();
  }

  /** Process ids of the workers that live, the leading one first. */
  get workerPids(): number[] {
    const rest = this.#workers.filter((worker) => worker !== this.#leader);
    return [...(this.#leader ? [this.#leader] : []), ...rest].map((worker) => worker.pid);
  }

  facts(): KeeperFacts {
    return { pid: process.pid, rssBytes: process.memoryUsage.rss(), ...this.#counts };
  }

  /**
   * Hands a bound socket to the workers, this one and every later one. Resolves when a worker listens on it.
   * On failure the socket is closed and forgotten.
   * @throws UserError `port_taken`, `listen_failed`, `listen_timeout` or `stopping`.
   */
  async open(plan: ListenerPlan, handle: RawHandle): Promise<SocketAddress> {
    if (this.#stopping !== undefined) {
      handle.close();
      throw new UserError("The proxy is stopping", { code: "stopping", status: 503 });
    }
    const opened = Promise.withResolvers<SocketAddress>();
    this.#listeners.set(plan.id, { plan, handle, opened });
    for (const worker of this.#workers) {
      if (worker.greeted && worker.state !== "draining") worker.send({ kind: "listen", plan }, handle);
    }
    const limitMs = this.#options.openMsMax ?? 10_000;
    const timer = this.#options.clock.after(limitMs, () => {
      opened.reject(
        new UserError(`No worker listened on ${plan.id} within ${limitMs / 1000} s`, {
          code: "listen_timeout",
          status: 503,
          next: "Try again; the proxy's log says why its worker is away.",
        }),
      );
    });
    try {
      return await opened.promise;
    } catch (error) {
      await this.close(plan.id);
      throw error;
    } finally {
      timer[Symbol.dispose]();
    }
  }

  /** Closes a socket in the keeper and in every worker. Connections already accepted go on. */
  async close(id: string): Promise<void> {
    const listener = this.#listeners.get(id);
    if (listener === undefined) return;
    this.#listeners.delete(id);
    listener.handle.close();
    for (const worker of this.#workers) worker.send({ kind: "unlisten", id });
    if (this.#leader === undefined) return;
    const closed = Promise.withResolvers<void>();
    this.#closing.set(id, closed.resolve);
    using _limit = this.#options.clock.after(2_000, closed.resolve);
    await closed.promise;
    this.#closing.delete(id);
  }

  /** Starts a successor; the worker that leads now drains once the successor listens. */
  restart(reason: string): void {
    if (this.#stopping !== undefined) return;
    if (this.#workers.some((worker) => worker.state === "starting")) {
      this.#options.log.info({ reason }, "a worker is already starting; nothing more to do");
      return;
    }
    this.#counts.hotRestarts += 1;
    this.#options.log.info({ reason }, "starting a successor for the worker");
    this.#spawn();
  }

  /** Closes every socket, lets the workers finish, cuts what outlives `drainMs`. Resolves when all are gone. */
  async stop(drainMs = this.#options.drainMs): Promise<void> {
    if (this.#stopping !== undefined) return this.#stopping.promise;
    this.#stopping = Promise.withResolvers();
    this.#replacement?.[Symbol.dispose]();
    for (const { handle, opened } of this.#listeners.values()) {
      handle.close();
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

  #spawn(): void {
    this.#replacement = undefined;
    const { command, clock } = this.#options;
    const worker = new WorkerProcess(command, clock.nowMs(), {
      onMessage: (from, message) => this.#heard(from, message),
      onExit: (from, how) => this.#exited(from, how),
    });
    this.#workers.push(worker);
  }

  #heard(worker: WorkerProcess, message: FromWorker): void {
    switch (message.kind) {
      case "hello":
        return this.#greet(worker);
      case "listening":
        return this.#listeners.get(message.id)?.opened.resolve(message.address);
      case "listen-failed":
        this.#options.log.warn({ id: message.id, reason: message.reason }, "worker cannot listen");
        return this.#listeners.get(message.id)?.opened.reject(listenError(message));
      case "unlistened":
        return this.#closing.get(message.id)?.();
      case "again": {
        const listener = this.#listeners.get(message.id);
        if (listener !== undefined) worker.send({ kind: "listen", plan: listener.plan }, listener.handle);
        return;
      }
      case "serving":
        return this.#serving(worker);
      case "handed-over":
        if (worker !== this.#leader) return;
        return this.#lead(this.#workers.find(({ state }) => state === "serving"));
      case "saved":
        for (const other of this.#draining()) other.send({ kind: "reload" });
        return;
      case "draining": {
        const { epoch, busy } = message;
        this.#siblings.set(worker.pid, { epoch, busy });
        if (worker !== this.#leader) this.#leader?.send({ kind: "sibling", pid: worker.pid, epoch, busy });
        return;
      }
      case "request":
        void this.#answer(worker, message.request, message.body);
        return;
      case "drained":
      case "pong":
        return;
    }
  }

  #greet(worker: WorkerProcess): void {
    const { drainMs, settings } = this.#options;
    const listeners = this.#listeners.size;
    worker.send({ kind: "start", settings, listeners, orphanDrainMs: drainMs });
    for (const { plan, handle } of this.#listeners.values()) worker.send({ kind: "listen", plan }, handle);
    // Nobody follows the feed: do not wait for the sockets.
    if (this.#leader === undefined) this.#lead(worker);
  }

  /** The worker listens on everything: whoever led before hands over. */
  #serving(worker: WorkerProcess): void {
    if (worker.state !== "starting") return;
    worker.state = "serving";
    const tookMs = Math.round(this.#options.clock.nowMs() - worker.startedMs);
    this.#options.log.info({ pid: worker.pid, tookMs }, "worker serves");
    const before = this.#leader;
    if (before === worker || before === undefined) return;
    this.#drain(before);
    // A leader that hangs cannot hand over; nobody must be without a feed for longer than this.
    this.#options.clock.after(1_000, () => {
      if (this.#leader === before && worker.state === "serving") this.#lead(worker);
    });
  }

  #lead(worker: WorkerProcess | undefined): void {
    if (worker === undefined) return;
    this.#leader = worker;
    for (const [pid, state] of this.#siblings) worker.send({ kind: "sibling", pid, ...state });
    worker.send({ kind: "lead" });
  }

  #drain(worker: WorkerProcess): void {
    const { drainMs, clock, policy } = this.#options;
    worker.state = "draining";
    worker.endReason = "replaced";
    worker.send({ kind: "drain", timeoutMs: drainMs, successor: true });
    clock.after(drainMs + 2_000, () => worker.kill("SIGKILL"));
    const draining = this.#draining();
    for (const oldest of draining.slice(0, draining.length - policy.drainingMax)) oldest.kill("SIGKILL");
  }

  #draining(): WorkerProcess[] {
    return this.#workers.filter(({ state }) => state === "draining");
  }

  #exited(worker: WorkerProcess, how: string): void {
    this.#workers = this.#workers.filter((other) => other !== worker);
    this.#siblings.delete(worker.pid);
    const led = this.#leader === worker;
    if (led) this.#leader = undefined;
    if (this.#stopping !== undefined) {
      if (this.#workers.length === 0) this.#stopping.resolve();
      return;
    }
    if (led) {
      this.#lead(this.#workers.find(({ state, greeted }) => state !== "draining" && greeted));
    } else {
      this.#leader?.send({ kind: "sibling-gone", pid: worker.pid });
    }
    if (worker.endReason !== "replaced") this.#replace(worker, how);
  }

  /** A worker died that was not asked to: another one takes its place unless one is on its way. */
  #replace(worker: WorkerProcess, how: string): void {
    const { clock, log, policy, random } = this.#options;
    if (worker.endReason === undefined) this.#counts.deaths += 1;
    const livedMs = clock.nowMs() - worker.startedMs;
    const { delayMs, quickDeaths } = replacementDelay(livedMs, this.#quickDeaths, policy, random);
    this.#quickDeaths = quickDeaths;
    log.warn({ pid: worker.pid, how, livedMs: Math.round(livedMs) }, "worker is gone");
    if (this.#workers.some(({ state }) => state !== "draining") || this.#replacement !== undefined) return;
    if (delayMs === 0) return this.#spawn();
    log.warn({ quickDeaths, delayMs: Math.round(delayMs) }, "workers die quickly; waiting before the next");
    this.#replacement = clock.after(delayMs, () => this.#spawn());
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
    }
    if (!this.#workers.some(({ state }) => state === "starting")) this.#spawn();
  }

  async #answer(worker: WorkerProcess, request: number, body: unknown): Promise<void> {
    const { log, onRequest } = this.#options;
    worker.send({ kind: "answer", request, result: await answerRequest(onRequest, body, log) });
  }
}
