import { type ChildProcess, fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { getCompileCacheDir } from "node:module";
import { backoffMs, type BackoffPolicy } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { FailureKind, Job, JobResult } from "./job.ts";
import type { FilterShape } from "./module.ts";

export type ToLane =
  | { readonly kind: "load"; readonly source: string; readonly file: string }
  | { readonly kind: "job"; readonly job: Job }
  | { readonly kind: "ping" };

export type FromLane =
  | { readonly kind: "hello" }
  | { readonly kind: "loaded"; readonly shape: FilterShape }
  | { readonly kind: "refused"; readonly what: string }
  | { readonly kind: "result"; readonly result: JobResult }
  | { readonly kind: "stray"; readonly what: string }
  | { readonly kind: "pong" };

export interface LaneOptions {
  readonly source: string;
  readonly file: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** JavaScript heap of the process; everything it occupies may be 96 MB more. @default 64 */
  readonly heapMbMax?: number;
}

/** From the start of the process to the filter having run its top level. */
const LOAD_MS_MAX = 10_000;
/** A process that does not answer a ping for so long hangs. */
const PING_MS_MAX = 500;
/** What a run may wait longer for a process that has to be started for it. */
const START_MS_MAX = 5_000;
const JOBS_MAX = 1_024;
const LOOK_MS = 100;
const BACKOFF: BackoffPolicy = { baseMs: 50, capMs: 10_000 };
/** After so long without dying the next start is at once again. */
const CALM_MS = 30_000;
const OUTSIDE_HEAP_MB = 96;
const PRINT_CHARS_MAX = 1_000;

interface Waiting {
  readonly job: Job;
  readonly done: (result: JobResult) => void;
  readonly timer: Disposable;
}

/**
 * One filter in a process of its own. Whatever it does there, loop, allocate, exit, costs the runs under way in it and
 * a restart. Runs are refused while it is down for longer than they may take.
 */
export class Lane {
  readonly #options: LaneOptions;
  readonly #waiting = new Map<number, Waiting>();
  /** Not sent yet: the process is not ready, or perhaps hangs. */
  #held: Job[] = [];
  #child: ChildProcess | undefined;
  #ready = false;
  #closed = false;
  #ids = 0;
  #attempt = 0;
  #startedMs = 0;
  #endKind: FailureKind = "unavailable";
  #pinging: Disposable | undefined;
  #looking: Disposable | undefined;
  #restarting: Disposable | undefined;
  #loaded: PromiseWithResolvers<FilterShape> | undefined;
  restarts = 0;

  constructor(options: LaneOptions) {
    this.#options = options;
  }

  /** Starts the process. Rejects with what the filter's module is wrong about; then nothing runs. */
  async load(): Promise<FilterShape> {
    const { clock } = this.#options;
    this.#loaded ??= Promise.withResolvers<FilterShape>();
    const { promise, reject } = this.#loaded;
    this.#start();
    const late = clock.after(LOAD_MS_MAX, () =>
      reject(new Error(`its top level did not end within ${LOAD_MS_MAX} ms`)),
    );
    try {
      return await promise;
    } catch (error) {
      this.close();
      throw error;
    } finally {
      late[Symbol.dispose]();
    }
  }

  /** Runs the job; `done` is called once, on a fresh stack. */
  run(job: Omit<Job, "id">, timeoutMs: number, done: (result: JobResult) => void): void {
    this.#ids += 1;
    const id = this.#ids;
    if (this.#closed || this.#waiting.size >= JOBS_MAX) {
      const what = this.#closed ? "its process was ended" : `${JOBS_MAX} runs wait already`;
      queueMicrotask(() => done({ id, ok: false, kind: "unavailable", what }));
      return;
    }
    const full: Job = { ...job, id };
    const free = this.#ready && this.#pinging === undefined;
    const startMs = free ? 0 : START_MS_MAX;
    const timer = this.#options.clock.after(timeoutMs + startMs, () => this.#late(id, timeoutMs));
    this.#waiting.set(id, { job: full, done, timer });
    this.#looking ??= this.#options.clock.every(LOOK_MS, () => this.#look());
    if (free) this.#child?.send({ kind: "job", job: full } satisfies ToLane);
    else {
      this.#held.push(full);
      if (this.#child === undefined && this.#restarting === undefined) this.#start();
    }
  }

  /** Ends the process until it is needed. */
  sleep(): void {
    const child = this.#child;
    this.#child = undefined;
    this.#ready = false;
    child?.kill("SIGKILL");
  }

  close(): void {
    this.#closed = true;
    this.#restarting?.[Symbol.dispose]();
    this.#end("unavailable", "its process was ended");
  }

  #start(): void {
    if (this.#closed || this.#child !== undefined) return;
    const { clock, heapMbMax = 64, log, file, source } = this.#options;
    const cache = getCompileCacheDir();
    this.#startedMs = clock.nowMs();
    this.#endKind = "unavailable";
    const child = fork(new URL("./lane-main.ts", import.meta.url), [], {
      execArgv: [
        `--max-old-space-size=${heapMbMax}`,
        "--max-semi-space-size=4",
        "--disable-warning=ExperimentalWarning",
      ],
      env: cache === undefined ? {} : { NODE_COMPILE_CACHE: cache },
      serialization: "advanced",
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    this.#child = child;
    const print = (bytes: Buffer) =>
      log.info({ filter: file }, bytes.toString().slice(0, PRINT_CHARS_MAX).trimEnd());
    child.stdout?.on("data", print);
    child.stderr?.on("data", print);
    child.on("error", (error) =>
      log.error({ filter: file, err: error }, "the filter's process cannot be used"),
    );
    child.on("message", (message: FromLane) => this.#heard(child, message));
    child.on("exit", (code, signal) => {
      if (this.#child !== child) return;
      const memory = this.#endKind === "memory" || signal === "SIGABRT" || code === 134;
      const how = signal === null ? `exit code ${code}` : signal;
      this.#end(
        memory ? "memory" : this.#endKind,
        memory ? "it used more memory than it may" : `its process ended with ${how}`,
      );
    });
    child.send({ kind: "load", source, file } satisfies ToLane);
    child.unref();
    child.channel?.unref();
  }

  #heard(child: ChildProcess, message: FromLane): void {
    if (child !== this.#child) return;
    const { log, file } = this.#options;
    switch (message.kind) {
      case "hello":
        return;
      case "loaded": {
        this.#ready = true;
        this.#loaded?.resolve(message.shape);
        this.#sendHeld(child);
        return;
      }
      case "refused":
        this.#loaded?.reject(new Error(message.what));
        this.#end("unavailable", message.what);
        return;
      case "result":
        this.#settle(message.result);
        return;
      case "stray":
        log.warn({ filter: file, reason: message.what }, "the filter rejected a promise that nobody awaits");
        return;
      case "pong":
        this.#pinging?.[Symbol.dispose]();
        this.#pinging = undefined;
        this.#sendHeld(child);
    }
  }

  #sendHeld(child: ChildProcess): void {
    const held = this.#held;
    this.#held = [];
    for (const job of held) {
      if (this.#waiting.has(job.id)) child.send({ kind: "job", job } satisfies ToLane);
    }
  }

  #settle(result: JobResult): void {
    const waiting = this.#waiting.get(result.id);
    if (waiting === undefined) return;
    this.#waiting.delete(result.id);
    waiting.timer[Symbol.dispose]();
    if (this.#waiting.size === 0) {
      this.#looking?.[Symbol.dispose]();
      this.#looking = undefined;
    }
    waiting.done(result);
  }

  /** A run took too long: it is over, and whether the others are in danger a ping tells. */
  #late(id: number, timeoutMs: number): void {
    this.#settle({ id, ok: false, kind: "timeout", what: `it took longer than ${timeoutMs} ms` });
    if (!this.#ready || this.#pinging !== undefined) return;
    this.#child?.send({ kind: "ping" } satisfies ToLane);
    this.#pinging = this.#options.clock.after(PING_MS_MAX, () => {
      this.#pinging = undefined;
      this.#end("timeout", "it hangs; its process is replaced");
    });
  }

  /** Memory outside of the JavaScript heap has no limit that V8 knows. */
  #look(): void {
    const pid = this.#child?.pid;
    if (pid === undefined) return;
    const residentMb = residentBytes(pid) / 1_048_576;
    if (residentMb <= (this.#options.heapMbMax ?? 64) + OUTSIDE_HEAP_MB) return;
    this.#end("memory", `its process occupies ${Math.round(residentMb)} MB`);
  }

  /** The process is gone, or has to go; what it was running fails, and soon there is another. */
  #end(kind: FailureKind, what: string): void {
    const child = this.#child;
    const wasReady = this.#ready;
    this.#child = undefined;
    this.#ready = false;
    this.#pinging?.[Symbol.dispose]();
    this.#pinging = undefined;
    child?.kill("SIGKILL");
    // Those that were not sent are innocent, and wait for the next process; if there is one.
    const innocent = new Set(this.#closed ? [] : this.#held.map(({ id }) => id));
    for (const id of Array.from(this.#waiting.keys())) {
      if (!innocent.has(id)) this.#settle({ id, ok: false, kind, what });
    }
    if (!wasReady) this.#loaded?.reject(new Error(what));
    if (this.#closed || child === undefined || !wasReady) return;
    const { clock, log, random, file } = this.#options;
    this.restarts += 1;
    if (clock.nowMs() - this.#startedMs > CALM_MS) this.#attempt = 0;
    const delayMs = backoffMs(this.#attempt, BACKOFF, random);
    this.#attempt += 1;
    log.warn({ filter: file, reason: what, delayMs }, "the filter's process is started again");
    this.#restarting = clock.after(delayMs, () => {
      this.#restarting = undefined;
      this.#start();
    });
  }
}

/** Of a process, from procfs; 0 where there is none. */
function residentBytes(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, "latin1").split(" ")[1] ?? 0) * 4_096;
  } catch {
    return 0;
  }
}
