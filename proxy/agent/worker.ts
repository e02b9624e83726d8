import fs from "node:fs";
import type { Clock } from "../../base/clock.ts";
import { UserError, errnoOf, messageOf } from "../../base/errors.ts";
import type { EdgeTraffic, MeshConfig } from "../../model/mesh.ts";
import { type HandlePipe, awaitPipe } from "./handle-pipe.ts";
import { type RawHandle, isOpen } from "./handles.ts";
import type { MetricCounts } from "./merge-metrics.ts";
import type {
  FromWorker,
  Gathered,
  KeeperFacts,
  ListenerPlan,
  OrphanPolicy,
  Result,
  SiblingState,
  SocketAddress,
  SocketName,
  ToWorker,
} from "./messages.ts";
import { type FromOrphan, orphanPath } from "./orphans.ts";

/** What a worker does for its keeper; the edge's and the sidecar's program implement it. */
export interface WorkerProgram {
  /** `socket` tells the sockets of one listener apart; the same one again takes the place of the one before. */
  listen(plan: ListenerPlan, socket: number, handle: unknown): Promise<SocketAddress>;
  /** Stops accepting on it; connections already accepted go on. */
  unlisten(id: string): Promise<void>;
  /** Stops accepting on one socket, which another worker serves again. */
  leave(name: SocketName): void;
  /** Follow the feed and report. */
  lead(): void;
  /** The keeper is gone: pages and API are for the next one, traffic goes on. */
  orphaned(): void;
  /** Stop following and reporting: a successor does. */
  handOver(): void;
  /** Apply the epoch the leader saved, or, when it cannot save, this one. */
  reload(config?: MeshConfig): void;
  /** Another worker's state. */
  sibling(pid: number, state: SiblingState): void;
  /** It ended; `gone` is what all that ended have counted. */
  siblingGone(pid: number, gone: readonly EdgeTraffic[]): void;
  /** Every other worker was told of this epoch. */
  settled(epoch: number): void;
  state(): SiblingState;
  /** Everything that is counted here, as JSON of prom-client. */
  counts(): Promise<readonly MetricCounts[]>;
  keeper(facts: KeeperFacts): void;
  /** Stops accepting, finishes what is in flight, cuts the rest; how many were cut. */
  drain(timeoutMs: number): Promise<number>;
}

/** What the program may ask of its keeper. */
export interface KeeperLink {
  /** `epoch` is in force and on disk; or, when it cannot be saved, `config` is to be handed on. */
  saved(epoch: number, config?: MeshConfig): void;
  /** What the other workers have counted, given what this one has. */
  gather(own: readonly MetricCounts[]): Promise<Gathered>;
  /** Tell the others how things are here, without waiting for the next time. */
  tell(): void;
  /** Have the handles of a listener sent once more. */
  again(id: string): void;
  /** @throws UserError as the keeper threw it. */
  request(body: unknown): Promise<unknown>;
}

/** The worker's end of the IPC channel; `process` is one. */
export interface Channel {
  send(message: FromWorker): void;
  onMessage(callback: (message: ToWorker, handle: unknown) => void): void;
  /** The keeper died, or left. */
  onDisconnect(callback: () => void): void;
  /** From now on nobody else hears signals for this process. */
  onTerminate(callback: () => void): void;
  exit(code: number): void;
}

export interface WorkerOptions {
  readonly channel: Channel;
  readonly clock: Clock;
  readonly start: (settings: unknown, link: KeeperLink) => Promise<WorkerProgram>;
}

/** How often a worker says how things are with it when that has changed, in milliseconds. */
const TELL_MS = 250;

/** Runs a program under a keeper, and after its death under the next one, until it is drained. */
export function runWorker({ channel, clock, start }: WorkerOptions): void {
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  let requests = 0;
  let program: Promise<WorkerProgram> | undefined;
  let draining = false;
  let orphan: OrphanPolicy | undefined;
  let leading = false;
  /** The next keeper, once the first is gone. */
  let pipe: HandlePipe | undefined;
  /** What is listened on, for the next keeper. */
  const sockets = new Map<string, { plan: ListenerPlan; socket: number; handle: RawHandle }>();
  /** Sockets of the start that have not been tried yet. */
  let untried = 0;
  let lastTold = "";

  const say = (message: FromWorker): void => {
    if (pipe === undefined) channel.send(message);
    else pipe.send(message);
  };
  const ask = (make: (request: number) => FromWorker): Promise<unknown> => {
    const answer = Promise.withResolvers<unknown>();
    requests += 1;
    waiting.set(requests, answer);
    say(make(requests));
    return answer.promise;
  };
  const tell = (running: WorkerProgram, always = true): void => {
    const state = running.state();
    const text = JSON.stringify(state);
    if (text === lastTold && !always) return;
    lastTold = text;
    say({ kind: "state", state });
  };

  const link: KeeperLink = {
    saved: (epoch, config) =>
      say(config === undefined ? { kind: "saved", epoch } : { kind: "saved", epoch, config }),
    gather: async (own) => (await ask((request) => ({ kind: "gather", request, own }))) as Gathered,
    tell: () => void program?.then(tell),
    again: (id) => say({ kind: "again", id }),
    request: (body) => ask((request) => ({ kind: "request", request, body })),
  };

  const listen = async (running: WorkerProgram, plan: ListenerPlan, socket: number, handle: unknown) => {
    const { id } = plan;
    try {
      const address = await running.listen(plan, socket, handle);
      if (plan.kind !== "admin" && plan.kind !== "api") {
        sockets.set(`${id}#${socket}`, { plan, socket, handle: handle as RawHandle });
      }
      say({ kind: "listening", id, address });
    } catch (error) {
      const code = errnoOf(error) ?? "unknown";
      say({ kind: "listen-failed", id, reason: messageOf(error), code });
    }
    untried -= 1;
    if (untried === 0) say({ kind: "serving" });
  };

  const drain = async (running: WorkerProgram, timeoutMs: number, successor: boolean) => {
    if (draining) return;
    draining = true;
    if (successor) {
      running.handOver();
      // In this order, so that the successor's first report already holds what is in flight here.
      tell(running);
      say({ kind: "handed-over" });
    }
    const cut = await running.drain(timeoutMs);
    tell(running);
    say({ kind: "counted", number: 0, metrics: await running.counts() });
    say({ kind: "drained", cut });
    channel.exit(0);
  };

  const obey = (running: WorkerProgram, message: ToWorker, handle: unknown): void => {
    switch (message.kind) {
      case "listen":
        void listen(running, message.plan, message.socket, handle);
        return;
      case "sockets":
        untried = message.count;
        if (untried === 0) say({ kind: "serving" });
        return;
      case "leave":
        sockets.delete(`${message.id}#${message.socket}`);
        return running.leave(message);
      case "unlisten":
        for (const [name, { plan }] of sockets) if (plan.id === message.id) sockets.delete(name);
        void running.unlisten(message.id).finally(() => {
          say({ kind: "unlistened", id: message.id });
        });
        return;
      case "lead":
        leading = true;
        return running.lead();
      case "drain":
        void drain(running, message.timeoutMs, message.successor);
        return;
      case "sibling":
        return running.sibling(message.pid, message.state);
      case "sibling-gone":
        return running.siblingGone(message.pid, message.gone);
      case "reload":
        running.reload();
        return tell(running);
      case "config":
        running.reload(message.config);
        return tell(running);
      case "settled":
        return running.settled(message.epoch);
      case "count":
        void running.counts().then((metrics) => {
          say({ kind: "counted", number: message.number, metrics });
        });
        return;
      case "ping":
        return running.keeper(message.keeper);
      case "start":
      case "answer":
        return;
    }
  };

  const hear = (message: ToWorker, handle: unknown): void => {
    if (message.kind === "start") {
      ({ orphan } = message);
      program = start(message.settings, link);
      void program.then((running) => {
        tell(running);
        clock.every(TELL_MS, () => tell(running, false));
      });
      return;
    }
    if (message.kind === "ping") say({ kind: "pong", number: message.number });
    if (message.kind === "answer") {
      settle(waiting.get(message.request), message.result);
      waiting.delete(message.request);
      return;
    }
    // A rejected start is left unhandled on purpose: the process dies of it and the keeper tries again.
    void program?.then((running) => obey(running, message, handle));
  };

  /**
   * Serves on without a keeper until the next one connects, and then under it; drains when none comes. What it leads it
   * goes on leading: there is no one else.
   */
  const waitForKeeper = (running: WorkerProgram, { folder, waitMs, drainMs }: OrphanPolicy): void => {
    const path = orphanPath(folder, process.pid);
    const end = () => {
      stop();
      fs.rmSync(path, { force: true });
      void drain(running, drainMs, true);
    };
    fs.rmSync(path, { force: true }); // Of an earlier process of this number.
    const late = clock.after(waitMs, end);
    const stop = awaitPipe(path, (next) => {
      late[Symbol.dispose]();
      pipe = next;
      next.onMessage = (message, handle) => hear(message as ToWorker, handle);
      next.onClose = () => {
        pipe = undefined;
        if (!draining) waitForKeeper(running, { folder, waitMs, drainMs });
      };
      const offer = (message: FromOrphan, handle?: RawHandle) => next.send(message, handle);
      offer({ kind: "orphan", pid: process.pid, leading });
      for (const { plan, socket, handle } of sockets.values()) {
        // Closed while accepting pauses: the next keeper has its own.
        if (isOpen(handle)) offer({ kind: "socket", plan, socket }, handle);
      }
      offer({ kind: "offered" });
      tell(running);
      next.start();
    });
  };

  channel.onMessage(hear);
  channel.onDisconnect(() => {
    if (program === undefined || orphan === undefined) return channel.exit(0);
    const policy = orphan;
    void program.then((running) => {
      for (const answer of waiting.values()) answer.reject(keeperGone());
      waiting.clear();
      if (draining) return;
      channel.onTerminate(() => void drain(running, policy.drainMs, true));
      // Whoever was not given a socket yet has nothing that anybody could miss.
      if (sockets.size === 0) return channel.exit(0);
      running.orphaned();
      try {
        waitForKeeper(running, policy);
      } catch {
        // Nobody can find it: as well as it can, it finishes what it has.
        void drain(running, policy.drainMs, true);
      }
    });
  });
  say({ kind: "hello" });
}

function keeperGone(): UserError {
  return new UserError("The proxy's keeper is gone; the next one is on its way", {
    code: "keeper_gone",
    status: 503,
    next: "Try again in a moment.",
  });
}

function settle(answer: PromiseWithResolvers<unknown> | undefined, result: Result): void {
  if (result.ok) answer?.resolve(result.value);
  else {
    const { message, code, status, next } = result;
    answer?.reject(new UserError(message, { code, status, next }));
  }
}

/** The channel to the process that forked this one. Signals are the keeper's to hear: a group gets them all. */
export function parentChannel(): Channel {
  let terminate = (): void => undefined;
  for (const signal of ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR2"] as const) {
    process.on(signal, () => {
      if (signal === "SIGTERM") terminate();
    });
  }
  return {
    send: (message) => {
      if (process.connected) process.send?.(message, undefined, {}, () => undefined);
    },
    onMessage: (callback) => {
      process.on("message", (message, handle: unknown) => callback(message as ToWorker, handle));
    },
    onDisconnect: (callback) => void process.on("disconnect", callback),
    onTerminate: (callback) => {
      terminate = callback;
    },
    exit: (code) => process.exit(code),
  };
}
