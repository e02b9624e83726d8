import type { Clock } from "../../base/clock.ts";
import { UserError, errnoOf, messageOf } from "../../base/errors.ts";
import type { EdgeTraffic, MeshConfig } from "../../model/mesh.ts";
import type { MetricCounts } from "./merge-metrics.ts";
import type {
  FromWorker,
  Gathered,
  KeeperFacts,
  ListenerPlan,
  Result,
  SiblingState,
  SocketAddress,
  SocketName,
  ToWorker,
} from "./messages.ts";

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
  /** The keeper died. */
  onDisconnect(callback: () => void): void;
  exit(code: number): void;
}

export interface WorkerOptions {
  readonly channel: Channel;
  readonly clock: Clock;
  readonly start: (settings: unknown, link: KeeperLink) => Promise<WorkerProgram>;
}

/** How often a worker says how things are with it when that has changed, in milliseconds. */
const TELL_MS = 250;

/** Runs a program under a keeper until it is drained, or until the keeper dies and what is in flight is done. */
export function runWorker({ channel, clock, start }: WorkerOptions): void {
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  let requests = 0;
  let program: Promise<WorkerProgram> | undefined;
  let draining = false;
  let orphanDrainMs = 0;
  /** Sockets of the start that have not been tried yet. */
  let untried = 0;
  let lastTold = "";

  const ask = (make: (request: number) => FromWorker): Promise<unknown> => {
    const answer = Promise.withResolvers<unknown>();
    requests += 1;
    waiting.set(requests, answer);
    channel.send(make(requests));
    return answer.promise;
  };
  const tell = (running: WorkerProgram, always = true): void => {
    const state = running.state();
    const text = JSON.stringify(state);
    if (text === lastTold && !always) return;
    lastTold = text;
    channel.send({ kind: "state", state });
  };

  const link: KeeperLink = {
    saved: (epoch, config) =>
      channel.send(config === undefined ? { kind: "saved", epoch } : { kind: "saved", epoch, config }),
    gather: async (own) => (await ask((request) => ({ kind: "gather", request, own }))) as Gathered,
    tell: () => void program?.then(tell),
    again: (id) => channel.send({ kind: "again", id }),
    request: (body) => ask((request) => ({ kind: "request", request, body })),
  };

  const listen = async (running: WorkerProgram, plan: ListenerPlan, socket: number, handle: unknown) => {
    const { id } = plan;
    try {
      channel.send({ kind: "listening", id, address: await running.listen(plan, socket, handle) });
    } catch (error) {
      const code = errnoOf(error) ?? "unknown";
      channel.send({ kind: "listen-failed", id, reason: messageOf(error), code });
    }
    untried -= 1;
    if (untried === 0) channel.send({ kind: "serving" });
  };

  const drain = async (running: WorkerProgram, timeoutMs: number, successor: boolean) => {
    if (draining) return;
    draining = true;
    if (successor) {
      running.handOver();
      // In this order, so that the successor's first report already holds what is in flight here.
      tell(running);
      channel.send({ kind: "handed-over" });
    }
    const cut = await running.drain(timeoutMs);
    tell(running);
    channel.send({ kind: "counted", number: 0, metrics: await running.counts() });
    channel.send({ kind: "drained", cut });
    channel.exit(0);
  };

  const obey = (running: WorkerProgram, message: ToWorker, handle: unknown): void => {
    switch (message.kind) {
      case "listen":
        void listen(running, message.plan, message.socket, handle);
        return;
      case "sockets":
        untried = message.count;
        if (untried === 0) channel.send({ kind: "serving" });
        return;
      case "leave":
        return running.leave(message);
      case "unlisten":
        void running.unlisten(message.id).finally(() => {
          channel.send({ kind: "unlistened", id: message.id });
        });
        return;
      case "lead":
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
          channel.send({ kind: "counted", number: message.number, metrics });
        });
        return;
      case "ping":
        return running.keeper(message.keeper);
      case "start":
      case "answer":
        return;
    }
  };

  channel.onMessage((message, handle) => {
    if (message.kind === "start") {
      orphanDrainMs = message.orphanDrainMs;
      program = start(message.settings, link);
      void program.then((running) => {
        tell(running);
        clock.every(TELL_MS, () => tell(running, false));
      });
      return;
    }
    if (message.kind === "ping") channel.send({ kind: "pong", number: message.number });
    if (message.kind === "answer") {
      settle(waiting.get(message.request), message.result);
      waiting.delete(message.request);
      return;
    }
    // A rejected start is left unhandled on purpose: the process dies of it and the keeper tries again.
    void program?.then((running) => obey(running, message, handle));
  });
  channel.onDisconnect(() => {
    // The next keeper's worker has the same name in the mesh: an orphan must not speak under it.
    if (program === undefined) channel.exit(0);
    else void program.then((running) => drain(running, orphanDrainMs, true));
  });
  channel.send({ kind: "hello" });
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
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2"] as const) {
    process.on(signal, () => undefined);
  }
  return {
    send: (message) => {
      if (process.connected) process.send?.(message, undefined, {}, () => undefined);
    },
    onMessage: (callback) => {
      process.on("message", (message, handle: unknown) => callback(message as ToWorker, handle));
    },
    onDisconnect: (callback) => void process.on("disconnect", callback),
    exit: (code) => process.exit(code),
  };
}
