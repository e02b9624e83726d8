import type { Clock } from "../../base/clock.ts";
import { UserError, errnoOf, messageOf } from "../../base/errors.ts";
import type {
  FromWorker,
  KeeperFacts,
  ListenerPlan,
  Result,
  SiblingState,
  SocketAddress,
  ToWorker,
} from "./messages.ts";

/** What a worker does for its keeper; the edge's and the sidecar's program implement it. */
export interface WorkerProgram {
  listen(plan: ListenerPlan, handle: unknown): Promise<SocketAddress>;
  /** Stops accepting on it; connections already accepted go on. */
  unlisten(id: string): Promise<void>;
  /** Follow the feed and report. */
  lead(): void;
  /** Stop following and reporting: a successor does. */
  handOver(): void;
  /** Apply the epoch the successor saved. */
  reload(): void;
  /** A draining sibling's state; undefined when it is gone. */
  sibling(pid: number, state: SiblingState | undefined): void;
  state(): SiblingState;
  keeper(facts: KeeperFacts): void;
  /** Stops accepting, finishes what is in flight, cuts the rest; how many were cut. */
  drain(timeoutMs: number): Promise<number>;
}

/** What the program may ask of its keeper. */
export interface KeeperLink {
  saved(epoch: number): void;
  /** Have the handle of a listener sent once more. */
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

/** Runs a program under a keeper until it is drained, or until the keeper dies and what is in flight is done. */
export function runWorker({ channel, clock, start }: WorkerOptions): void {
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  let requests = 0;
  let program: Promise<WorkerProgram> | undefined;
  let draining = false;
  let orphanDrainMs = 0;
  /** Listeners of the start that have not been tried yet. */
  let untried = 0;

  const link: KeeperLink = {
    saved: (epoch) => channel.send({ kind: "saved", epoch }),
    again: (id) => channel.send({ kind: "again", id }),
    request: (body) => {
      const answer = Promise.withResolvers<unknown>();
      requests += 1;
      waiting.set(requests, answer);
      channel.send({ kind: "request", request: requests, body });
      return answer.promise;
    },
  };

  const listen = async (running: WorkerProgram, plan: ListenerPlan, handle: unknown) => {
    const { id } = plan;
    try {
      channel.send({ kind: "listening", id, address: await running.listen(plan, handle) });
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
    const tell = () => channel.send({ kind: "draining", ...running.state() });
    if (successor) {
      running.handOver();
      // In this order, so that the successor's first report already holds what is in flight here.
      tell();
      channel.send({ kind: "handed-over" });
    }
    using _telling = clock.every(250, successor ? tell : () => undefined);
    const cut = await running.drain(timeoutMs);
    channel.send({ kind: "drained", cut });
    channel.exit(0);
  };

  const obey = (running: WorkerProgram, message: ToWorker, handle: unknown): void => {
    switch (message.kind) {
      case "listen":
        void listen(running, message.plan, handle);
        return;
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
        return running.sibling(message.pid, { epoch: message.epoch, busy: message.busy });
      case "sibling-gone":
        return running.sibling(message.pid, undefined);
      case "reload":
        return running.reload();
      case "ping":
        return running.keeper(message.keeper);
      case "start":
      case "answer":
        return;
    }
  };

  channel.onMessage((message, handle) => {
    if (message.kind === "start") {
      untried = message.listeners;
      orphanDrainMs = message.orphanDrainMs;
      program = start(message.settings, link);
      if (untried === 0) void program.then(() => channel.send({ kind: "serving" }));
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
