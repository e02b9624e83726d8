import { fork, spawn, type ChildProcess } from "node:child_process";
import type { RawHandle } from "./handles.ts";
import { isHung, type KeeperPolicy } from "./keeper-policy.ts";
import type { FromWorker, KeeperFacts, ToWorker } from "./messages.ts";

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
  readonly #child: ChildProcess;
  #sent = 0;
  #answered = 0;
  #greeted = false;

  constructor(command: WorkerCommand, slot: number, startedMs: number, events: WorkerEvents) {
    this.slot = slot;
    this.startedMs = startedMs;
    this.#child = startChild(command);
    this.#child.on("message", (message) => {
      const told = message as FromWorker;
      if (told.kind === "pong") this.#answered = Math.max(this.#answered, told.number);
      else {
        if (told.kind === "hello") this.#greeted = true;
        events.onMessage(this, told);
      }
    });
    // A send that fails because the worker is gone is also told by "exit"; a failed fork only here.
    this.#child.on("error", (error) => {
      if (this.#child.pid === undefined) this.#gone(events, error.message);
    });
    this.#child.on("exit", (code, signal) => this.#gone(events, signal ?? `exit code ${String(code)}`));
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** True once the worker listens to messages; pings before that would count its start as a hang. */
  get greeted(): boolean {
    return this.#greeted;
  }

  send(message: ToWorker, handle?: RawHandle): void {
    if (this.state === "gone" || !this.#child.connected) return;
    this.#child.send(message, handle as never, {}, () => {
      // Whether it arrived shows in its answer, or in the worker's exit.
    });
  }

  /** Sends the next ping. True when the worker left too many of them unanswered. */
  ping(policy: KeeperPolicy, keeper: KeeperFacts): boolean {
    if (!this.#greeted) return false;
    if (isHung({ sent: this.#sent, answered: this.#answered }, policy)) return true;
    this.#sent += 1;
    this.send({ kind: "ping", number: this.#sent, keeper });
    return false;
  }

  kill(signal: NodeJS.Signals): void {
    if (this.state !== "gone") this.#child.kill(signal);
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
