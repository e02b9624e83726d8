import { mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import type { Clock } from "../base/clock.ts";
import { readDurable, writeDurable } from "../base/durable-file.ts";
import type { LogLine } from "../model/api.ts";
import { LogFiles, readTail, type LogLimits, type Offsets, type StoredLine } from "./log-files.ts";
import { Spool } from "./spool.ts";

/** A line without its end is shown after this long all the same (a prompt, a progress bar), in milliseconds. */
const PARTIAL_MS = 2_000;
const POLL_MS = 150;
const LAST_LINES = 10;

const Names = z.object({ formation: z.string(), service: z.string(), release: z.int() });
export type LogNames = z.infer<typeof Names>;

export interface LogFilter {
  readonly instanceId?: string | undefined;
  readonly formation?: string | undefined;
  readonly service?: string | undefined;
}

export interface LogsOptions {
  /** One folder an instance below it. */
  readonly folder: string;
  readonly clock: Clock;
  readonly limits: LogLimits;
  /** Logs of instances that are gone which are kept. */
  readonly goneKept: number;
  /** Frees the first `bytes` of a file; false when this file system cannot. */
  readonly punch: (path: string, bytes: number) => Promise<boolean>;
  readonly onError: (instanceId: string, error: unknown) => void;
}

interface OpenLog {
  readonly names: LogNames;
  readonly files: LogFiles;
  readonly spools: Readonly<Record<"stdout" | "stderr", Spool>>;
  lastLines: string[];
  lastReadMs: number;
}

type Follower = (line: LogLine) => void;

/** The logs of all instances of this host: takes over what they write, keeps a bounded part, lets people follow. */
export class Logs {
  readonly #options: LogsOptions;
  readonly #open = new Map<string, OpenLog>();
  readonly #followers = new Map<Follower, LogFilter>();
  readonly #timer: Disposable;

  constructor(options: LogsOptions) {
    this.#options = options;
    mkdirSync(options.folder, { recursive: true, mode: 0o700 });
    this.#timer = options.clock.every(POLL_MS, () => this.#pollAll());
  }

  /** Begins, or goes on, to take over an instance's output. Idempotent. */
  open(
    instanceId: string,
    names: LogNames,
    spools: { readonly stdout: string; readonly stderr: string },
  ): void {
    if (this.#open.has(instanceId)) return;
    const folder = this.#folder(instanceId);
    const files = new LogFiles(folder, this.#options.limits);
    const offsets = files.open();
    writeDurable(join(folder, "names.json"), names);
    const { punch } = this.#options;
    this.#open.set(instanceId, {
      names,
      files,
      spools: {
        stdout: new Spool(spools.stdout, offsets.stdout, punch),
        stderr: new Spool(spools.stderr, offsets.stderr, punch),
      },
      lastLines: readTail(folder, LAST_LINES * 3)
        .filter(({ stream }) => stream !== "system")
        .map(({ text }) => text)
        .slice(-LAST_LINES),
      lastReadMs: this.#options.clock.nowMs(),
    });
  }

  /** Takes over everything written so far, an unfinished line included: the instance has ended. */
  flush(instanceId: string): void {
    this.#poll(instanceId, true);
  }

  /** Adds a line of the executor's own, stream `system`. */
  note(instanceId: string, text: string): void {
    const log = this.#open.get(instanceId);
    if (log === undefined) return;
    this.#poll(instanceId, false);
    this.#append(instanceId, log, [{ atMs: this.#options.clock.wallMs(), stream: "system", text }]);
  }

  /** The last lines the instance itself wrote, at most 10. */
  lastLines(instanceId: string): readonly string[] {
    return this.#open.get(instanceId)?.lastLines ?? [];
  }

  /** Takes over the rest and lets go; the log stays readable. */
  close(instanceId: string): void {
    const log = this.#open.get(instanceId);
    if (log === undefined) return;
    this.#poll(instanceId, true);
    this.#open.delete(instanceId);
    log.files.close();
    log.spools.stdout.close();
    log.spools.stderr.close();
    this.#collect();
  }

  closeAll(): void {
    this.#timer[Symbol.dispose]();
    this.#pollAll();
    for (const log of this.#open.values()) {
      log.files.close();
      log.spools.stdout.close();
      log.spools.stderr.close();
    }
    this.#open.clear();
  }

  /** The last `count` lines of every log that matches, oldest first. */
  tail(filter: LogFilter, count: number): LogLine[] {
    this.#pollAll();
    return this.#matching(filter)
      .flatMap(({ instanceId, names }) =>
        readTail(this.#folder(instanceId), count).map((line) => toLogLine(instanceId, names, line)),
      )
      .sort((a, b) => a.atMs - b.atMs);
  }

  /** Calls `follower` with every line from now on. */
  follow(filter: LogFilter, follower: Follower): Disposable {
    this.#followers.set(follower, filter);
    return { [Symbol.dispose]: () => void this.#followers.delete(follower) };
  }

  #pollAll(): void {
    for (const instanceId of this.#open.keys()) this.#poll(instanceId, false);
  }

  #poll(instanceId: string, all: boolean): void {
    const log = this.#open.get(instanceId);
    if (log === undefined) return;
    const nowMs = this.#options.clock.nowMs();
    const partial = all || nowMs - log.lastReadMs > PARTIAL_MS;
    let before = this.#offsets(log);
    try {
      for (const stream of ["stdout", "stderr"] as const) {
        before = this.#offsets(log);
        const lines = log.spools[stream].read(partial);
        if (lines.length === 0) continue;
        log.lastReadMs = nowMs;
        const atMs = this.#options.clock.wallMs();
        log.lastLines = [...log.lastLines, ...lines.slice(-LAST_LINES).map(({ text }) => text)].slice(
          -LAST_LINES,
        );
        this.#append(
          instanceId,
          log,
          lines.map(({ text, offset }) => ({ atMs, stream, text, offsets: { ...before, [stream]: offset } })),
        );
      }
    } catch (error) {
      // Nothing is lost when the disk is full: the spool keeps it until it can be stored.
      for (const stream of ["stdout", "stderr"] as const) log.spools[stream].rewind(before[stream]);
      this.#options.onError(instanceId, error);
    }
  }

  #append(
    instanceId: string,
    log: OpenLog,
    lines: readonly (StoredLine & { readonly offsets?: Offsets })[],
  ): void {
    log.files.append(lines.map(({ offsets = this.#offsets(log), ...line }) => ({ line, offsets })));
    for (const [follower, filter] of this.#followers) {
      if (!matches(filter, instanceId, log.names)) continue;
      for (const line of lines) follower(toLogLine(instanceId, log.names, line));
    }
  }

  #offsets(log: OpenLog): Offsets {
    return { stdout: log.spools.stdout.offset, stderr: log.spools.stderr.offset };
  }

  #matching(filter: LogFilter): { instanceId: string; names: LogNames }[] {
    return readdirSync(this.#options.folder).flatMap((instanceId) => {
      const names = this.#open.get(instanceId)?.names ?? this.#readNames(instanceId);
      return names !== undefined && matches(filter, instanceId, names) ? [{ instanceId, names }] : [];
    });
  }

  #readNames(instanceId: string): LogNames | undefined {
    const read = readDurable(join(this.#folder(instanceId), "names.json"));
    return read.kind === "read" ? Names.safeParse(read.value).data : undefined;
  }

  /** Logs of instances that are gone stay for a while, the newest of them. */
  #collect(): void {
    const gone = readdirSync(this.#options.folder)
      .filter((instanceId) => !this.#open.has(instanceId))
      .map((instanceId) => ({ instanceId, mtimeMs: statSync(this.#folder(instanceId)).mtimeMs }))
      .sort((a, b) => b.mtimeMs - a.mtimeMs);
    for (const { instanceId } of gone.slice(this.#options.goneKept)) {
      rmSync(this.#folder(instanceId), { recursive: true, force: true });
    }
  }

  #folder(instanceId: string): string {
    return join(this.#options.folder, instanceId);
  }
}

function matches(filter: LogFilter, instanceId: string, names: LogNames): boolean {
  return (
    (filter.instanceId ?? instanceId) === instanceId &&
    (filter.formation ?? names.formation) === names.formation &&
    (filter.service ?? names.service) === names.service
  );
}

function toLogLine(instanceId: string, names: LogNames, { atMs, stream, text }: StoredLine): LogLine {
  return { atMs, service: names.service, instanceId, release: names.release, stream, text };
}
