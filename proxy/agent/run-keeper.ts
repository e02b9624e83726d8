import fs from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { UserError, messageOf } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import type { Settings } from "../../base/settings.ts";
import type { Http2Limits } from "../http2/limits.ts";
import { type RawHandle, bindShared } from "./handles.ts";
import type { EngineLimits } from "../limits.ts";
import { Keeper } from "./keeper.ts";
import { defaultKeeperPolicy } from "./keeper-policy.ts";
import type { ListenerPlan, SocketAddress } from "./messages.ts";
import type { Orphans } from "./orphans.ts";
import { type PlainLog, createPlainLog } from "./plain-log.ts";
import { type commonSettings, formatAddress } from "./settings.ts";
import type { WorkerCommand } from "./worker-process.ts";
import type { TlsWorkerSettings, WorkerSettings } from "./worker-settings.ts";

export type CommonSettings = Settings<ReturnType<typeof commonSettings>>;

/** The process a keeper runs in; main.ts gives the real one. */
export interface Surroundings {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: PlainLog;
  /** Folder of this part's own state, which exists. */
  readonly folder: string;
}

export interface KeeperPlan {
  readonly part: "edge" | "sidecar";
  readonly settings: CommonSettings;
  readonly workerEntry: string;
  /** Absent: the defaults. */
  readonly http2Limits?: Http2Limits;
  /** Absent: no TLS. */
  readonly tls?: TlsWorkerSettings | undefined;
  /** Absent: connections begin without a PROXY header. */
  readonly proxyProtocolFrom?: readonly string[] | undefined;
  readonly limits?: EngineLimits;
  /** Of the keeper's environment, what the worker may see. */
  readonly environment: Readonly<Record<string, string>>;
  readonly prefix?: readonly string[];
  readonly onRequest?: (body: unknown) => Promise<unknown>;
}

/** The state folder when none is set: the system's as root, the user's own otherwise. */
export function defaultStateDir(environment: Readonly<Record<string, string | undefined>>): string {
  if (process.getuid?.() === 0) return "/var/lib/gilliam";
  const { HOME = "/tmp", XDG_STATE_HOME } = environment;
  return join(XDG_STATE_HOME ?? join(HOME, ".local/state"), "gilliam");
}

export function prepare(
  part: "edge" | "sidecar",
  stateDir: string,
  clock: Clock,
  random: Random,
): Surroundings {
  const log = createPlainLog(
    part,
    (line) => void fs.writeSync(1, line),
    () => clock.wallMs(),
  );
  const folder = join(stateDir, part);
  try {
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new UserError(`Cannot make the state folder ${folder}: ${messageOf(error)}`, {
      code: "state_folder",
      next: "Set GILLIAM_STATE to a folder this user may write to.",
    });
  }
  return { clock, random, log, folder };
}

/** @throws UserError `no_token` when neither the setting nor the file gives one. */
export function readHostToken(settings: CommonSettings, stateDir: string): string {
  if (settings.hostToken !== "") return settings.hostToken;
  const path = settings.hostTokenFile === "" ? join(stateDir, "host-token") : settings.hostTokenFile;
  try {
    return fs.readFileSync(path, "utf8").trim();
  } catch (error) {
    throw new UserError(`Cannot read the host token: ${messageOf(error)}`, {
      code: "no_token",
      next: "Set GILLIAM_HOST_TOKEN, or GILLIAM_HOST_TOKEN_FILE to a file this user may read.",
    });
  }
}

export function createKeeper(
  plan: KeeperPlan,
  around: Surroundings,
  token: string,
  admin: SocketAddress,
): Keeper {
  const { part, settings } = plan;
  const { clock, folder, log, random } = around;
  const hostId = settings.hostId === "" ? hostname() : settings.hostId;
  const heapMiB = Math.max(32, Math.floor(settings.workerHeapMax / 1024 ** 2));
  const command: WorkerCommand = {
    entry: plan.workerEntry,
    // What survives of a request is a few kilobytes: sharing that among threads costs more than looking at it.
    execArgv: [`--max-old-space-size=${heapMiB}`, "--no-parallel-scavenge"],
    // The worker has a cache of its own: it may write there, and what it writes must never run in the keeper.
    environment: { ...plan.environment, NODE_COMPILE_CACHE: join(folder, "compile-cache") },
    prefix: plan.prefix ?? [],
  };
  const worker: WorkerSettings = {
    kind: part,
    proxyId: settings.proxyId === "" ? `${part}-${hostId}` : settings.proxyId,
    hostId,
    controlUrl: settings.controlUrl,
    hostToken: token,
    epochFile: join(folder, "epoch.json"),
    metricsUrl: `http://${formatAddress(admin)}/metrics`,
    logLevel: settings.logLevel,
    accessLog: {
      policy: settings.accessLog,
      oneIn: settings.accessLogOneIn,
      path: settings.accessLogFile === "" ? undefined : settings.accessLogFile,
    },
    feedLineBytesMax: settings.feedLineMax,
    feedSilentMs: settings.feedSilence,
    reportEveryMs: settings.reportEvery,
    ...(plan.http2Limits === undefined ? {} : { http2Limits: plan.http2Limits }),
    ...(plan.tls === undefined ? {} : { tls: plan.tls }),
    ...(plan.proxyProtocolFrom === undefined ? {} : { proxyProtocolFrom: plan.proxyProtocolFrom }),
    ...(plan.limits === undefined ? {} : { limits: plan.limits }),
  };
  return new Keeper({
    command,
    settings: worker,
    policy: {
      ...defaultKeeperPolicy,
      pingMs: Math.max(50, settings.hangAfter / defaultKeeperPolicy.missedPingsMax),
      startMsMax: settings.startMax,
    },
    clock,
    random,
    log,
    workers: settings.workers,
    folder,
    orphanMs: settings.orphanMax,
    drainMs: settings.drain,
    // A worker may use up its whole start, be replaced, and the next one still be in time.
    openMsMax: Math.max(10_000, settings.startMax * 2),
    ...(plan.onRequest === undefined ? {} : { onRequest: plan.onRequest }),
  });
}

/** Sockets of one port, bound and not listened on. */
export interface Bound {
  readonly handles: readonly RawHandle[];
  readonly address: SocketAddress;
}

/**
 * Binds as many sockets as workers are to share the port, waiting a little for a predecessor to let go of the port: after a `kill -9` of the keeper its worker
 * closes the sockets as soon as it notices.
 */
export async function bindPatiently(
  wanted: SocketAddress,
  { clock, log }: Surroundings,
  sockets = 1,
  patienceMs = 5_000,
): Promise<Bound> {
  const untilMs = clock.nowMs() + patienceMs;
  for (let told = false; ; told = true) {
    try {
      return bindShared(wanted, sockets);
    } catch (error) {
      const taken = error instanceof UserError && error.code === "port_taken";
      if (!taken || clock.nowMs() >= untilMs) throw error;
      if (!told) log.warn({ address: formatAddress(wanted) }, "the port is taken; waiting for it");
      await clock.sleep(50);
    }
  }
}

/** As `bindPatiently`, on the sockets of a predecessor's workers where there are any. */
export async function inheritOrBind(
  id: string,
  wanted: SocketAddress,
  around: Surroundings,
  orphans: Orphans,
  sockets: number,
): Promise<Bound> {
  const untilMs = around.clock.nowMs() + 5_000;
  for (;;) {
    await orphans.look();
    const inherited = orphans.inherit(id, wanted);
    if (inherited !== undefined) return inherited;
    try {
      return bindShared(wanted, sockets);
    } catch (error) {
      const taken = error instanceof UserError && error.code === "port_taken";
      if (!taken || around.clock.nowMs() >= untilMs) throw error;
      await around.clock.sleep(20);
    }
  }
}

/** Opens a socket that the program cannot do without, and says where it listens. */
export async function openListener(
  keeper: Keeper,
  plan: ListenerPlan,
  bound: Bound,
  log: PlainLog,
): Promise<void> {
  const address = await keeper.open(plan, ...bound.handles);
  log.info({ listener: plan.id, address: formatAddress(address) }, "listening");
}

/**
 * Obeys signals until the keeper has stopped: TERM and INT drain and end, QUIT leaves the workers to the next keeper,
 * HUP and USR2 replace the workers.
 */
export function obeySignals(keeper: Keeper, log: PlainLog, exit: (code: number) => void): void {
  const stop = (signal: string) => {
    log.info({ signal }, "stopping");
    void keeper.stop().then(() => {
      log.info({}, "stopped");
      exit(0);
    });
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  process.on("SIGQUIT", (signal) => {
    log.info({ signal }, "leaving; the workers serve on until the next keeper is there");
    exit(0);
  });
  process.on("SIGHUP", (signal) => keeper.restart(signal));
  process.on("SIGUSR2", (signal) => keeper.restart(signal));
}

/** The last words of a program that cannot start; the exit code is 2 when its settings are to blame. */
export function startFailure(error: unknown): { text: string; code: number } {
  if (!(error instanceof UserError))
    return { text: `${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`, code: 1 };
  const lines = [error.message, ...error.problems.map((problem) => `- ${problem}`), error.next];
  return {
    text: `${lines.filter((line) => line !== undefined).join("\n")}\n`,
    code: error.code === "bad_settings" ? 2 : 1,
  };
}
