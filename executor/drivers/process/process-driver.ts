import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { chownSync, closeSync, existsSync, openSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import type { Clock } from "../../../base/clock.ts";
import { UserError, messageOf } from "../../../base/errors.ts";
import type { Log } from "../../../base/log.ts";
import type {
  Driver,
  ExecRequest,
  Exit,
  Listener,
  Prepared,
  PrepareRequest,
  Running,
  StartRequest,
  StopSignal,
  Usage,
} from "../../driver.ts";
import { Cgroups } from "./cgroup.ts";
import { runTool } from "./command.ts";
import { execArguments, shimArguments, type Launch } from "./launch.ts";
import { findListeners } from "./listeners.ts";
import { NamespaceNetwork } from "./network.ts";
import { isAlive, processesWithVariable, readText } from "./proc.ts";
import { Records, checkReachable, makePassable, type InstanceRecord } from "./records.ts";
import {
  clearRunFiles,
  isShimAlive,
  livePids,
  pidsOfSession,
  readExitFile,
  readRunFiles,
} from "./run-files.ts";

export interface ProcessDriverOptions {
  readonly stateFolder: string;
  /** Own network namespaces; `auto` has them as root where the kernel lets us. */
  readonly network: "auto" | "namespace" | "shared";
  readonly clock: Clock;
  readonly log: Log;
}

/** How often an adopted instance is looked at, in milliseconds: its parent is not us, so nobody tells. */
const ADOPTED_POLL_MS = 150;
/** How long a killed instance may take to be gone, in milliseconds; the kernel may be busy writing its memory out. */
const KILL_MS_MAX = 10_000;

/** How long something that left a command's session may keep its output open after its end, in milliseconds. */
const PIPES_MS_MAX = 1_000;
/** File with the group's count of such kills at the start: a later one is this run's, also after adoption. */
const OUT_OF_MEMORY_BEFORE = "out-of-memory-before";

/** Runs instances as processes of this machine: see driver.ts for the promises and launch.ts for the mechanism. */
export class ProcessDriver implements Driver {
  readonly kind = "process";
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #records: Records;
  readonly #networks: NamespaceNetwork | undefined;
  readonly #cgroups: Cgroups | undefined;
  readonly #setpriv: boolean;
  readonly #running = new Map<string, Promise<Exit>>();
  readonly #stopWatching = new AbortController();

  private constructor(
    options: ProcessDriverOptions,
    found: { networks: NamespaceNetwork | undefined; cgroups: Cgroups | undefined; setpriv: boolean },
  ) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#networks = found.networks;
    this.#cgroups = found.cgroups;
    this.#setpriv = found.setpriv;
    const executorFolder = join(options.stateFolder, "executor");
    for (const folder of [options.stateFolder, executorFolder]) makePassable(folder);
    if (isRoot()) checkReachable(executorFolder);
    this.#records = new Records({
      instancesFolder: join(executorFolder, "instances"),
      volumesFolder: join(options.stateFolder, "volumes"),
      root: isRoot(),
      onDamaged: (instanceId) =>
        options.log.error({ instanceId }, "driver record is damaged; instance left alone"),
    });
  }

  static async open(options: ProcessDriverOptions): Promise<ProcessDriver> {
    if (process.platform !== "linux") {
      throw new UserError(`The process driver needs Linux; this is ${process.platform}`, {
        code: "not_linux",
        status: 500,
      });
    }
    const digest = createHash("sha256").update(options.stateFolder).digest();
    const name = `glm${digest.toString("hex").slice(0, 6)}`;
    let networks: NamespaceNetwork | undefined;
    if (options.network === "namespace" || (options.network === "auto" && isRoot())) {
      try {
        networks = await NamespaceNetwork.open(name, digest.readUInt16BE(4) % 4096, options.log);
      } catch (error) {
        if (options.network === "namespace") throw error;
        options.log.warn(
          { reason: messageOf(error) },
          "no network namespaces here; instances share the loopback",
        );
      }
    }
    const setpriv = (await runTool(["setpriv", "--version"])).code === 0;
    if (isRoot() && !setpriv) {
      throw new UserError("Instances must not run as root, and setpriv is missing to prevent it", {
        code: "no_setpriv",
        status: 500,
        next: 'Run "apt-get install util-linux".',
      });
    }
    return new ProcessDriver(options, { networks, cgroups: Cgroups.open(name), setpriv });
  }

  get network(): "namespace" | "shared" {
    return this.#networks === undefined ? "shared" : "namespace";
  }

  /** Whether setpriv is there to run things as another user. */
  get hasSetpriv(): boolean {
    return this.#setpriv;
  }

  async prepare(request: PrepareRequest): Promise<Prepared> {
    const { instanceId, network, privileges, port, volume, resources } = request;
    const before = this.#records.get(instanceId);
    const slot = before?.slot ?? this.#records.nextSlot();
    const uid = this.#records.chooseUid(slot, privileges, volume);
    const actualPort = await this.#choosePort(request, before);
    const record: InstanceRecord = { slot, uid, network, privileges, port, actualPort, volume };
    // Written before anything is made, so that nothing made is ever without an owner.
    if (JSON.stringify(record) !== JSON.stringify(before)) this.#records.save(instanceId, record);
    this.#records.makeFolders(instanceId, uid);
    if (volume !== undefined) this.#records.openVolume(volume, uid);
    if (network === "own") await this.#networks?.create(slot, port);
    this.#cgroups?.create(String(slot), resources);
    return this.#describe(instanceId, record);
  }

  prepared(instanceId: string): Prepared | undefined {
    const record = this.#records.get(instanceId);
    return record === undefined ? undefined : this.#describe(instanceId, record);
  }

  async start({ instanceId, folder, command, environment }: StartRequest): Promise<Running> {
    const record = this.#mustGet(instanceId);
    if (command === undefined)
      throw new UserError(`There is no command to start ${instanceId} with`, { code: "no_command" });
    const runFolder = this.#runFolder(instanceId);
    if (!this.#mayOutlive(instanceId, record)) await this.kill(instanceId);
    await this.#running.get(instanceId)?.catch(() => undefined); // It reads the files that are cleared next.
    clearRunFiles(runFolder);
    if (!existsSync(folder)) {
      throw new UserError(`Cannot start ${instanceId}: its folder ${folder} is gone`, {
        code: "image_missing",
        status: 500,
      });
    }
    const outOfMemoryBefore = this.#outOfMemoryKills(record);
    writeFileSync(join(runFolder, OUT_OF_MEMORY_BEFORE), String(outOfMemoryBefore));
    const [program = "", ...args] = shimArguments(this.#launch(instanceId, record), command);
    const { stdout, stderr } = this.#describe(instanceId, record).spools;
    const files = [openSpool(stdout, record.uid), openSpool(stderr, record.uid)] as const;
    const child = spawn(program, args, {
      cwd: folder,
      env: { ...environment },
      detached: true,
      stdio: ["ignore", ...files],
    });
    for (const file of files) closeSync(file);
    child.unref();
    const ended = new Promise<void>((resolve, reject) => {
      child.on("exit", () => resolve());
      child.on("error", reject);
    });
    ended.catch(() => undefined); // Reported below, or by whoever awaits the exit.
    const exited = ended.then(() => this.#afterExit(instanceId, record, outOfMemoryBefore));
    exited.catch(() => undefined);
    this.#running.set(instanceId, exited);
    const started = await this.#awaitChildFile(runFolder, ended);
    return { ...started, exited };
  }

  async adopt(instanceId: string): Promise<Running | undefined> {
    const record = this.#records.get(instanceId);
    if (record === undefined) return undefined;
    const runFolder = this.#runFolder(instanceId);
    const { shim, child, startedAtMs } = readRunFiles(runFolder);
    if (shim === undefined) return undefined;
    const watch = async () => {
      while (isShimAlive(runFolder, shim)) {
        await this.#clock.sleep(ADOPTED_POLL_MS, this.#stopWatching.signal);
      }
      return this.#afterExit(instanceId, record, Number(readText(join(runFolder, OUT_OF_MEMORY_BEFORE))));
    };
    const exited = watch();
    exited.catch(() => undefined);
    this.#running.set(instanceId, exited);
    return { pid: child?.pid ?? shim.pid, startedAtMs, exited };
  }

  signal(instanceId: string, signal: StopSignal): Promise<boolean> {
    const runFolder = this.#runFolder(instanceId);
    const { shim } = readRunFiles(runFolder);
    if (shim === undefined || !isShimAlive(runFolder, shim)) return Promise.resolve(false);
    try {
      process.kill(-shim.pid, signal);
      return Promise.resolve(true);
    } catch {
      return Promise.resolve(false);
    }
  }

  async kill(instanceId: string): Promise<void> {
    const runFolder = this.#runFolder(instanceId);
    const deadlineMs = this.#clock.nowMs() + KILL_MS_MAX;
    const { shim } = readRunFiles(runFolder);
    // First all but the shim, so that it can still write down how the command ended; then the shim, if it hangs.
    for (let round = 0; ; round += 1) {
      const members = this.#members(instanceId);
      const shimAlive = isShimAlive(runFolder, shim);
      if (members.length === 0 && !shimAlive) return;
      if (this.#clock.nowMs() > deadlineMs) {
        throw new UserError(`Processes ${members.join(", ")} of ${instanceId} survive SIGKILL`, {
          code: "unkillable",
          status: 500,
          next: "They hang in the kernel, usually on a disk or network file system; see dmesg.",
        });
      }
      for (const pid of members) sendKill(pid);
      if (members.length === 0 && round > 20 && shim !== undefined) sendKill(shim.pid);
      await this.#clock.sleep(Math.min(5 + round * 5, 100));
    }
  }

  exec(request: ExecRequest): Promise<number> {
    const record = this.#mustGet(request.instanceId);
    const [program = "", ...args] = execArguments(this.#launch(request.instanceId, record), request.command);
    const child = spawn(program, args, {
      cwd: request.folder,
      env: { ...request.environment },
      detached: true,
      stdio: ["pipe", "pipe", "pipe"],
    });
    const end = () => {
      if (child.pid !== undefined) for (const pid of pidsOfSession(child.pid)) sendKill(pid);
    };
    request.signal?.addEventListener("abort", end, { once: true });
    if (request.signal?.aborted === true) end();
    child.stdout.on("data", (bytes: Buffer) => request.onOutput("stdout", bytes));
    child.stderr.on("data", (bytes: Buffer) => request.onOutput("stderr", bytes));
    child.stdin.on("error", () => undefined); // It need not read what it is given.
    child.stdin.end(request.stdin);
    return new Promise((resolve, reject) => {
      child.on("error", reject);
      // Its own children may hold the pipes open for ever: the exit counts, then they are ended.
      child.on("exit", () => {
        end();
        this.#clock.after(PIPES_MS_MAX, () => {
          child.stdout.destroy();
          child.stderr.destroy();
        });
      });
      child.on("close", (code, signal) => {
        request.signal?.removeEventListener("abort", end);
        resolve(code ?? 128 + (signal === "SIGKILL" ? 9 : 15));
      });
    });
  }

  list(): Promise<readonly string[]> {
    return Promise.resolve(this.#records.ids());
  }

  listeners(instanceId: string): Promise<readonly Listener[]> {
    const record = this.#records.get(instanceId);
    const inGroup = record === undefined ? [] : (this.#cgroups?.members(String(record.slot)) ?? []);
    return Promise.resolve(findListeners(inGroup.length > 0 ? inGroup : this.#members(instanceId)));
  }

  usage(instanceId: string): Usage | undefined {
    const record = this.#records.get(instanceId);
    return record === undefined ? undefined : this.#cgroups?.usage(String(record.slot));
  }

  async remove(instanceId: string): Promise<void> {
    const record = this.#records.get(instanceId);
    if (record === undefined) return;
    await this.kill(instanceId);
    await this.#running.get(instanceId)?.catch(() => undefined);
    this.#running.delete(instanceId);
    if (record.network === "own") await this.#networks?.delete(record.slot);
    await this.#removeGroup(String(record.slot));
    this.#records.delete(instanceId);
  }

  async sweep(): Promise<void> {
    const slots = this.#records.slots();
    for (const slot of (await this.#networks?.slots()) ?? []) {
      if (slots.has(slot)) continue;
      this.#log.warn({ slot }, "deleting a network that belongs to no instance");
      await this.#networks?.delete(slot);
    }
    for (const group of this.#cgroups?.list() ?? []) {
      if (slots.has(Number(group))) continue;
      for (const pid of this.#cgroups?.members(group) ?? []) sendKill(pid);
      await this.#removeGroup(group);
    }
  }

  async dismantle(): Promise<void> {
    await this.#networks?.dismantle();
    this.#cgroups?.dismantle();
  }

  close(): void {
    this.#stopWatching.abort(new Error("the driver was closed"));
  }

  /** Every process of the instance but the shim: by session, by cgroup, and by its HOME, which only it has. */
  #members(instanceId: string): number[] {
    const record = this.#records.get(instanceId);
    if (record === undefined) return [];
    const { shim } = readRunFiles(this.#runFolder(instanceId));
    const pids = new Set<number>([
      ...(shim === undefined ? [] : pidsOfSession(shim.pid)),
      ...(this.#cgroups?.members(String(record.slot)) ?? []),
      ...processesWithVariable(`HOME=${this.#homeOf(instanceId)}`).map(({ pid }) => pid),
    ]);
    if (shim !== undefined && isAlive(shim)) pids.delete(shim.pid);
    return livePids(pids);
  }

  async #afterExit(instanceId: string, record: InstanceRecord, outOfMemoryBefore: number): Promise<Exit> {
    this.#stopWatching.signal.throwIfAborted(); // Closed: this exit is for the next executor to see.
    const runFolder = this.#runFolder(instanceId);
    if (!this.#mayOutlive(instanceId, record)) await this.kill(instanceId);
    const ended = readExitFile(runFolder) ?? { code: null, signal: null, atMs: this.#clock.wallMs() };
    clearRunFiles(runFolder);
    const outOfMemory = this.#outOfMemoryKills(record) > outOfMemoryBefore;
    return { ...ended, outOfMemory };
  }

  /**
   * A part of the platform that ended may leave processes behind, which serve until its next start takes them over
   * (proxy/agent). Not when its command itself is what is left: then its shim was killed, and there would be twins.
   */
  #mayOutlive(instanceId: string, record: InstanceRecord): boolean {
    if (record.privileges === "none") return false;
    const { child, shim } = readRunFiles(this.#runFolder(instanceId));
    return !isShimAlive(this.#runFolder(instanceId), shim) && !(child !== undefined && isAlive(child));
  }

  /** The shim writes its files before the command runs; the files, not the fork, say that it started. */
  async #awaitChildFile(
    runFolder: string,
    ended: Promise<void>,
  ): Promise<{ pid: number; startedAtMs: number }> {
    let over = false;
    const failed = ended.then(() => {
      over = true;
    });
    for (;;) {
      const { shim, child, startedAtMs } = readRunFiles(runFolder);
      if (child !== undefined) return { pid: child.pid, startedAtMs };
      if (over) return { pid: shim?.pid ?? 0, startedAtMs: this.#clock.wallMs() };
      await Promise.race([failed, this.#clock.sleep(3)]);
    }
  }

  #launch(instanceId: string, record: InstanceRecord): Launch {
    const { namespace } = this.#describe(instanceId, record);
    const group = String(record.slot);
    return {
      runFolder: this.#runFolder(instanceId),
      namespace,
      cgroupFiles: this.#cgroups?.joinFiles(group) ?? [],
      identity: { uid: record.uid, privileges: record.privileges, setpriv: this.#setpriv },
    };
  }

  #describe(instanceId: string, record: InstanceRecord): Prepared {
    const folder = this.#records.folder(instanceId);
    const own = record.network === "own" && this.#networks !== undefined;
    const host = own ? (this.#networks?.addressOf(record.slot) ?? "") : "127.0.0.1";
    const { actualPort, volume } = record;
    return {
      address: actualPort === undefined ? undefined : { host, port: actualPort },
      bindHost: own ? "0.0.0.0" : "127.0.0.1",
      namespace: own ? (this.#networks?.pathOf(record.slot) ?? null) : null,
      home: this.#homeOf(instanceId),
      temporary: join(folder, "tmp"),
      volume: volume === undefined ? undefined : this.#records.openVolume(volume, record.uid),
      spools: { stdout: join(folder, "run", "stdout"), stderr: join(folder, "run", "stderr") },
    };
  }

  async #choosePort({ instanceId, network, port }: PrepareRequest, before: InstanceRecord | undefined) {
    if (port === undefined || network === "host" || this.#networks !== undefined) return port;
    const kept = before?.actualPort;
    if (kept === undefined) return freePort();
    const { shim } = readRunFiles(this.#runFolder(instanceId));
    if (isShimAlive(this.#runFolder(instanceId), shim)) return kept;
    return (await freePort(kept)) ?? freePort();
  }

  async #removeGroup(group: string): Promise<void> {
    for (let attempt = 0; attempt < 40; attempt += 1) {
      if (this.#cgroups?.remove(group) ?? true) return;
      await this.#clock.sleep(25); // A killed process leaves its group only when it has been waited for.
    }
    this.#log.warn({ group }, "cgroup cannot be removed yet; the next sweep tries again");
  }

  #outOfMemoryKills(record: InstanceRecord): number {
    return this.#cgroups?.outOfMemoryKills(String(record.slot)) ?? 0;
  }

  #mustGet(instanceId: string): InstanceRecord {
    const record = this.#records.get(instanceId);
    if (record !== undefined) return record;
    throw new UserError(`There is no instance ${instanceId} on this host`, {
      code: "no_instance",
      status: 404,
    });
  }

  #runFolder(instanceId: string): string {
    return join(this.#records.folder(instanceId), "run");
  }

  #homeOf(instanceId: string): string {
    return join(this.#records.folder(instanceId), "home");
  }
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/** Owned by the instance, so that it may open /dev/stdout anew; its folder is not, so it cannot be replaced. */
function openSpool(path: string, uid: number | undefined): number {
  const file = openSync(path, "a", 0o600);
  if (uid !== undefined) chownSync(path, uid, uid);
  return file;
}

function sendKill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Already gone.
  }
}

/** A port of 127.0.0.1 that nobody uses; undefined when `wanted` is used. */
function freePort(wanted = 0): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", () => resolve(undefined));
    server.listen(wanted, "127.0.0.1", () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
