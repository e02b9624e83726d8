import { fork, spawn, type ChildProcess } from "node:child_process";
import type { RawHandle } from "./handles.ts";
import { isHung, type KeeperPolicy } from "./keeper-policy.ts";
import type { FromWorker, KeeperFacts, ToWorker } from "./messages.ts";
import type { Orphan } from "./orphans.ts";

export interface WorkerCommand {
  /** The worker's entry file. */
  readonly entry: string;
  readonly execArgv: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** Put before `node …`, like `setpriv …`; empty for nothing. */
  readonly prefix: readonly string[];
}

export type WorkerState = "starting" | "serving" | "draining" | "gone";

export interface WorkerEvents {
  readonly onMessage: (worker: WorkerProcess, message: FromWorker) => void;
  readonly onExit: (worker: WorkerProcess, how: string) => void;
}

/** A worker that was taken over: it leaves when every place has a worker. */
export const NO_SLOT = -1;

interface Process {
  readonly pid: number;
  send(message: ToWorker, handle: RawHandle | undefined): void;
  kill(signal: NodeJS.Signals): void;
}

/** One worker process as its keeper sees it. */
export class WorkerProcess {
  state: WorkerState = "starting";
  readonly startedMs: number;
  /** Its place among the workers; a successor has its predecessor's. */
  readonly slot: number;
  /** It was told to read the newest epoch before it got its sockets. */
  reloaded = false;
  /** Set when the keeper itself decided to end it, so that its exit is not taken for a crash. */
  endReason: string | undefined;
  readonly #process: Process;
  #sent = 0;
  #answered = 0;
  #greeted = false;

  /** Starts a worker. */
  static start(command: WorkerCommand, slot: number, startedMs: number, events: WorkerEvents): WorkerProcess {
    const child = startChild(command);
    const worker = new WorkerProcess(slot, startedMs, {
      pid: child.pid ?? 0,
      send: (message, handle) => {
        if (!child.connected) return;
        child.send(message, handle as never, {}, () => {
          // Whether it arrived shows in its answer, or in the worker's exit.
        });
      },
      kill: (signal) => void child.kill(signal),
    });
    child.on("message", (message) => worker.#heard(message as FromWorker, events));
    // A send that fails because the worker is gone is also told by "exit"; a failed fork only here.
    child.on("error", (error) => {
      if (child.pid === undefined) worker.#gone(events, error.message);
    });
    child.on("exit", (code, signal) => worker.#gone(events, signal ?? `exit code ${String(code)}`));
    return worker;
  }

  /** Takes over a worker that serves already and has no place of its own here. */
  static adopt({ pid, pipe }: Orphan, startedMs: number, events: WorkerEvents): WorkerProcess {
    const worker = new WorkerProcess(NO_SLOT, startedMs, {
      pid,
      send: (message, handle) => pipe.send(message, handle),
      kill: (signal) => {
        try {
          process.kill(pid, signal);
        } catch {
          // Gone already.
        }
      },
    });
    worker.state = "serving";
    worker.endReason = "replaced";
    worker.#greeted = true;
    pipe.onMessage = (message) => worker.#heard(message as FromWorker, events);
    pipe.onClose = () => worker.#gone(events, "its end of the pipe closed");
    return worker;
  }

  private constructor(slot: number, startedMs: number, process: Process) {
    this.slot = slot;
    this.startedMs = startedMs;
    this.#process = process;
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** True once the worker listens to messages; pings before that would count its start as a hang. */
  get greeted(): boolean {
    return this.#greeted;
  }

  send(message: ToWorker, handle?: RawHandle): void {
    if (this.state !== "gone") this.#process.send(message, handle);
  }

  /** Sends the next ping. True when the worker left too many of them unanswered. */
  ping(policy: KeeperPolicy, keeper: KeeperFacts): boolean {
    if (!this.#greeted || this.slot === NO_SLOT) return false;
    if (isHung({ sent: this.#sent, answered: this.#answered }, policy)) return true;
    this.#sent += 1;
    this.send({ kind: "ping", number: this.#sent, keeper });
    return false;
  }

  kill(signal: NodeJS.Signals): void {
    if (this.state !== "gone") this.#process.kill(signal);
  }

  #heard(told: FromWorker, events: WorkerEvents): void {
    if (told.kind === "pong") {
      this.#answered = Math.max(this.#answered, told.number);
      return;
    }
    if (told.kind === "hello") this.#greeted = true;
    events.onMessage(this, told);
  }

  #gone(events: WorkerEvents, how: string): void {
    if (this.state === "gone") return;
    this.state = "gone";
    events.onExit(this, how);
  }
}

function startChild({ entry, execArgv, environment, prefix }: WorkerCommand): ChildProcess {
  const [program, ...before] = prefix;
  if (program === undefined) {
    return fork(entry, [], { execArgv: [...execArgv], env: { ...environment }, stdio: "inherit" });
  }
  return spawn(program, [...before, process.execPath, ...execArgv, entry], {
    env: { ...environment },
    stdio: ["inherit", "inherit", "inherit", "ipc"],
  });
}
