import type { ContainerNeeds, Resources, RunSpec } from "../model/run-spec.ts";

/**
 * The port to whatever runs instances on this host. One contract suite, test/contract/driver.contract.ts, holds
 * every adapter to the promises written here.
 *
 * An instance is known by its id. Its life is `prepare`, then any number of `start` … exit, then `remove`.
 * All calls for one instance come one after the other, except `exec`, which may run beside anything.
 * Nothing an adapter does for one instance touches another.
 */
export interface Driver {
  readonly kind: "process" | "docker";
  /** `namespace`: an instance has a 127.0.0.1 of its own. `shared`: it uses the host's, with a free port. */
  readonly network: "namespace" | "shared";

  /**
   * Makes folders and network; nothing runs yet. Idempotent: an instance prepared before, even by an executor that
   * has died since, keeps what it has, the shared port excepted when somebody else took it.
   */
  prepare(request: PrepareRequest): Promise<Prepared>;

  /**
   * Starts the command. It goes on when this process dies, however it dies; its output goes to the spools.
   * Rejects with a UserError in plain words when it cannot be started at all. Never makes a twin: whatever still
   * runs of this instance is killed first. Of a part of the platform (`privileges`) processes that outlived its
   * command are left alone, by its exit and by its next start: they serve until that takes them over.
   */
  start(request: StartRequest): Promise<Running>;

  /**
   * The instance as an earlier executor left it: running, or ended with an exit nobody has seen yet.
   * Undefined when it was never started or its last exit was already returned by `start` or `adopt`.
   */
  adopt(instanceId: string): Promise<Running | undefined>;

  /** Sends the signal to every process of the instance; false when none runs. Returns at once. */
  signal(instanceId: string, signal: StopSignal): Promise<boolean>;

  /** Kills every process of the instance, and resolves when none is left, grandchildren that left home included. */
  kill(instanceId: string): Promise<void>;

  /**
   * Runs a command beside the instance: same image, user, network, limits and environment. Resolves with its exit
   * code (128 + n after signal n). Aborting kills it and whatever it started. The instance need not be running.
   */
  exec(request: ExecRequest): Promise<number>;

  /** Ids of everything prepared and not removed, those of earlier executors included. */
  list(): Promise<readonly string[]>;

  /** The instance's network as an earlier `prepare` made it; undefined when there is none. */
  prepared(instanceId: string): Prepared | undefined;

  /** What is being listened on, as the instance's network sees it; empty when it cannot be told. */
  listeners(instanceId: string): Promise<readonly Listener[]>;

  /** Processor seconds and bytes used now; undefined where there is no accounting. */
  usage(instanceId: string): Usage | undefined;

  /** Kills and deletes all that belongs to the instance, its log spools too; volumes stay. Idempotent. */
  remove(instanceId: string): Promise<void>;

  /** Deletes what belongs to nobody: networks and limits of instances that are not in `list`. */
  sweep(): Promise<void>;

  /** Deletes what all instances share (bridge, parent cgroup). Only after every instance was removed. */
  dismantle(): Promise<void>;

  /** Lets go of everything in this process; instances run on. */
  close(): void;
}

export type StopSignal = RunSpec["stop"]["signal"];

export interface PrepareRequest {
  readonly instanceId: string;
  /** `host` puts it on the host's own network: only for the platform's parts. */
  readonly network: "own" | "host";
  /** The declared port; undefined when it listens nowhere. */
  readonly port: number | undefined;
  /** Name of its volume. */
  readonly volume: string | undefined;
  /** `platform` and `sidecar` run as the platform's user, the sidecar with CAP_SYS_ADMIN. */
  readonly privileges: Privileges;
  readonly resources: Resources;
  /** What a container needs to know besides; drivers of processes need none of it. */
  readonly container?: ContainerRequest | undefined;
}

export interface ContainerRequest {
  readonly needs: ContainerNeeds;
  /** Names that are this instance's own localhost: its declared dependencies. */
  readonly hosts: readonly string[];
  /** The manifest names no health check of its own, so the image's counts. */
  readonly imageHealthCheck: boolean;
}

export type Privileges = "none" | "platform" | "sidecar";

export interface Prepared {
  /** Where proxies and health checks reach it; undefined when it listens nowhere. */
  readonly address: { readonly host: string; readonly port: number } | undefined;
  /** What it must bind to: 0.0.0.0 in a namespace, else 127.0.0.1. */
  readonly bindHost: string;
  /** Path of its network namespace; null where it shares the host's. */
  readonly namespace: string | null;
  /** Its own writable folders. */
  readonly home: string;
  readonly temporary: string;
  readonly volume: string | undefined;
  /** Files its output is appended to. */
  readonly spools: { readonly stdout: string; readonly stderr: string };
}

export interface StartRequest {
  readonly instanceId: string;
  /** Working directory: the image. */
  readonly folder: string;
  /** Name of the container image; undefined for processes. */
  readonly image?: string | undefined;
  /** Shell command line; undefined: what a container image starts by itself. */
  readonly command: string | undefined;
  /** All of its environment; nothing is added. */
  readonly environment: Readonly<Record<string, string>>;
}

export interface Running {
  /** The command's own process. */
  readonly pid: number;
  /** Wall clock, milliseconds since 1970. */
  readonly startedAtMs: number;
  /** Resolves once, when the command has ended and everything it left behind has been killed; see `start`. */
  readonly exited: Promise<Exit>;
}

export interface Exit {
  /** Null after a signal, and when it is not known. */
  readonly code: number | null;
  /** `SIGKILL`; null when it ended by itself. */
  readonly signal: string | null;
  /** Wall clock, milliseconds since 1970. */
  readonly atMs: number;
  /** The kernel killed it, or a child of it, for its memory limit. */
  readonly outOfMemory: boolean;
}

export interface ExecRequest {
  readonly instanceId: string;
  /** Program and arguments, no shell. */
  readonly command: readonly string[];
  readonly folder: string;
  /** Name of the container image; undefined for processes. */
  readonly image?: string | undefined;
  readonly environment: Readonly<Record<string, string>>;
  readonly stdin?: Uint8Array | undefined;
  readonly onOutput: (stream: "stdout" | "stderr", bytes: Buffer) => void;
  readonly signal?: AbortSignal | undefined;
  /** Runs it on a terminal of its own: both streams are one, and what is typed comes as it is typed. */
  readonly terminal?: Terminal | undefined;
}

export interface Terminal {
  /** Calls back with what is typed, from the first byte on. */
  onInput(callback: (bytes: Uint8Array) => void): void;
  /** Calls back with the size in characters, the first one at once. */
  onResize(callback: (size: { readonly columns: number; readonly rows: number }) => void): void;
}

export interface Listener {
  /** `0.0.0.0`, `127.0.0.1`, `::`, … */
  readonly host: string;
  readonly port: number;
}

export interface Usage {
  readonly memoryBytes: number;
  readonly cpuSeconds: number;
}

export type { ContainerNeeds, Resources };
