import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../../../base/clock.ts";
import { UserError, messageOf } from "../../../base/errors.ts";
import type { Log } from "../../../base/log.ts";
import type { Random } from "../../../base/random.ts";
import type {
  ContainerRequest,
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
import { decodeExit } from "../process/launch.ts";
import { findListeners } from "../process/listeners.ts";
import { NamespaceNetwork } from "../process/network.ts";
import { CONTAINER_UID_BASE, Records, makePassable, type InstanceRecord } from "../process/records.ts";
import { containerPids, containerUsage } from "./container-cgroup.ts";
import {
  HOME,
  LABELS,
  RESOLVER_FILE_TEXT,
  TEMPORARY,
  VOLUME,
  containerOptions,
  hostsFileText,
} from "./container-options.ts";
import type { ContainerFacts, Engine } from "./engine.ts";
import { runBeside, runInside } from "./exec.ts";
import { LogPump } from "./log-pump.ts";
import { NetworkOwners } from "./network-owners.ts";
import { ensurePauseImage } from "./pause.ts";
import { ContainerWatch, type Ending } from "./watch.ts";

export interface DockerDriverOptions {
  readonly stateFolder: string;
  readonly engine: Engine;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Network namespaces kept ready for instances to come. @default 2 */
  readonly spareNetworks?: number;
}

/** How long a killed container may take to be gone, in milliseconds. */
const KILL_MS_MAX = 15_000;
const NO_NEEDS: ContainerRequest = { needs: {}, hosts: [], imageHealthCheck: false };

interface Live {
  readonly containerId: string;
  readonly pid: number;
  /** It was started with a shell command, whose children must hear signals too. */
  readonly hasShell: boolean;
  readonly stopSignal: string;
  readonly exited: Promise<Exit>;
}

/**
 * Runs instances as containers: see driver.ts for the promises. An instance is two containers: a tiny one that owns
 * the network namespace for as long as the instance is prepared, and the app's, anew with each start, which joins
 * it. Their names are made of the instance's id, so the engine itself refuses a twin; their labels tell whose they are.
 */
export class DockerDriver implements Driver {
  readonly kind = "docker";
  readonly network = "namespace";
  readonly #engine: Engine;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Log;
  readonly #owner: string;
  readonly #records: Records;
  readonly #links: NamespaceNetwork;
  readonly #owners: NetworkOwners;
  readonly #watch: ContainerWatch;
  readonly #live = new Map<string, Live>();
  readonly #pumps = new Map<string, readonly LogPump[]>();
  #closed = false;

  private constructor(
    options: DockerDriverOptions,
    owner: string,
    links: NamespaceNetwork,
    pauseImage: string,
  ) {
    const { stateFolder, engine, clock, random, log, spareNetworks: spares } = options;
    this.#engine = engine;
    this.#clock = clock;
    this.#random = random;
    this.#log = log;
    this.#owner = owner;
    this.#links = links;
    this.#records = new Records({
      instancesFolder: join(stateFolder, "executor", "containers"),
      volumesFolder: join(stateFolder, "volumes"),
      root: true,
      uidBase: CONTAINER_UID_BASE,
      onDamaged: (instanceId) => log.error({ instanceId }, "driver record is damaged; instance left alone"),
    });
    const randomName = () => Math.floor(random() * 2 ** 40).toString(36);
    this.#owners = new NetworkOwners({ engine, owner, image: pauseImage, log, randomName, spares });
    this.#watch = new ContainerWatch({ engine, labels: { [LABELS.owner]: owner }, clock, random, log });
  }

  /** @throws UserError when this machine or its engine cannot isolate instances. */
  static async open(options: DockerDriverOptions): Promise<DockerDriver> {
    if (process.platform !== "linux" || process.getuid?.() !== 0) {
      throw new UserError("The docker driver needs root on the engine's own Linux machine", {
        code: "not_root",
        status: 500,
        next: "It opens local ports inside the containers' networks. Run the executor as root, or use --driver process.",
      });
    }
    const digest = createHash("sha256").update(options.stateFolder).digest();
    const owner = `gld${digest.toString("hex").slice(0, 6)}`;
    for (const folder of [options.stateFolder, join(options.stateFolder, "executor")]) makePassable(folder);
    const pauseImage = await ensurePauseImage(options.engine, process.arch);
    const links = await NamespaceNetwork.open(owner, digest.readUInt16BE(6) % 4096, options.log);
    return new DockerDriver(options, owner, links, pauseImage);
  }

  /** False while the engine does not answer. */
  get isEngineReachable(): boolean {
    return this.#watch.isEngineReachable;
  }

  /** What the names of its containers and links begin with. */
  get owner(): string {
    return this.#owner;
  }

  async prepare(request: PrepareRequest): Promise<Prepared> {
    const { instanceId, network, privileges, port, volume, container } = request;
    if (network === "host")
      throw new Error(`${instanceId} is a part of the platform: those run as processes`);
    const before = this.#records.get(instanceId);
    const slot = before?.slot ?? this.#records.nextSlot();
    const uid = this.#records.chooseUid(slot, privileges, volume);
    const record: InstanceRecord = {
      slot,
      uid,
      network,
      privileges,
      port,
      actualPort: port,
      volume,
      ...(container === undefined ? {} : { container: { ...container, hosts: [...container.hosts] } }),
      resources: request.resources,
    };
    // Written before anything is made, so that nothing made is ever without an owner.
    if (JSON.stringify(record) !== JSON.stringify(before)) this.#records.save(instanceId, record);
    this.#records.makeFolders(instanceId, uid);
    this.#writeNames(instanceId, container ?? NO_NEEDS);
    if (volume !== undefined) this.#records.openVolume(volume, uid);
    const owner = await this.#owners.ensure(instanceId);
    await this.#links.create(slot, port, owner.pid);
    return this.#describe(instanceId, record);
  }

  prepared(instanceId: string): Prepared | undefined {
    const record = this.#records.get(instanceId);
    return record === undefined ? undefined : this.#describe(instanceId, record);
  }

  async start(request: StartRequest): Promise<Running> {
    const { instanceId } = request;
    const record = this.#mustGet(instanceId);
    await this.#removeApp(instanceId);
    const containerId = await this.#create(this.#appName(instanceId), "app", request, record, {
      command: request.command === undefined ? undefined : ["/bin/sh", "-c", request.command],
      terminal: false,
      stdin: false,
    });
    try {
      await this.#engine.start(containerId);
    } catch (error) {
      await this.#engine.remove(containerId).catch(() => undefined);
      throw error;
    }
    const facts = await this.#engine.inspect(containerId);
    if (facts === undefined) throw new Error(`the container of ${instanceId} vanished while it was started`);
    return this.#follow(instanceId, facts, request.command !== undefined);
  }

  async adopt(instanceId: string): Promise<Running | undefined> {
    if (this.#records.get(instanceId) === undefined) return undefined;
    const facts = await this.#patiently(() => this.#engine.inspect(this.#appName(instanceId)));
    if (facts === undefined || facts.state === "created") return undefined;
    return this.#follow(instanceId, facts, facts.labels[SHELL_LABEL] === "yes");
  }

  async signal(instanceId: string, signal: StopSignal): Promise<boolean> {
    const live = this.#live.get(instanceId);
    if (live === undefined) return false;
    if (!live.hasShell) {
      const wanted = signal === "SIGTERM" && live.stopSignal !== "" ? live.stopSignal : signal;
      return this.#engine.kill(live.containerId, wanted);
    }
    const pids = containerPids(live.pid).filter((pid) => pid !== live.pid);
    return pids.map((pid) => trySignal(pid, signal)).some(Boolean);
  }

  async kill(instanceId: string): Promise<void> {
    const live = this.#live.get(instanceId);
    const known = live?.containerId ?? this.#appName(instanceId);
    // With its first process the kernel kills every other one of the container, whatever the engine is doing.
    if (live !== undefined && containerPids(live.pid).includes(live.pid)) trySignal(live.pid, "SIGKILL");
    const deadlineMs = this.#clock.nowMs() + KILL_MS_MAX;
    for (let round = 0; ; round += 1) {
      const facts = await this.#engine.inspect(known);
      if (facts?.state !== "running") return;
      if (this.#clock.nowMs() > deadlineMs) {
        throw new UserError(`The container of ${instanceId} survives SIGKILL`, {
          code: "unkillable",
          status: 500,
          next: "A process of it hangs in the kernel, usually on a disk or network file system; see dmesg.",
        });
      }
      if (round % 10 === 0) await this.#engine.kill(facts.id, "SIGKILL");
      await this.#clock.sleep(Math.min(5 + round * 5, 100));
    }
  }

  async exec(request: ExecRequest): Promise<number> {
    const { instanceId } = request;
    const record = this.#mustGet(instanceId);
    const facts = await this.#engine.inspect(this.#appName(instanceId));
    if (facts?.state === "running") {
      return runInside(this.#engine, facts, request, { clock: this.#clock, random: this.#random });
    }
    const name = `${this.#owner}-exec-${instanceId}-${Math.floor(this.#random() * 2 ** 40).toString(36)}`;
    const containerId = await this.#create(name, "exec", request, record, {
      command: request.command,
      terminal: request.terminal !== undefined,
      stdin: true,
    });
    return runBeside(this.#engine, containerId, request);
  }

  list(): Promise<readonly string[]> {
    return Promise.resolve(this.#records.ids());
  }

  listeners(instanceId: string): Promise<readonly Listener[]> {
    const live = this.#live.get(instanceId);
    return Promise.resolve(live === undefined ? [] : findListeners(containerPids(live.pid)));
  }

  usage(instanceId: string): Usage | undefined {
    const live = this.#live.get(instanceId);
    return live === undefined ? undefined : containerUsage(live.pid);
  }

  /** What the image's own health check says; undefined when it has none, or another one counts. */
  async imageHealth(instanceId: string): Promise<ContainerFacts["health"]> {
    const live = this.#live.get(instanceId);
    if (live === undefined || this.#records.get(instanceId)?.container?.imageHealthCheck !== true)
      return undefined;
    return (await this.#engine.inspect(live.containerId))?.health;
  }

  async remove(instanceId: string): Promise<void> {
    const record = this.#records.get(instanceId);
    if (record === undefined) return;
    await this.kill(instanceId);
    await this.#live.get(instanceId)?.exited;
    await this.#removeApp(instanceId);
    for (const { id } of await this.#engine.list({
      [LABELS.owner]: this.#owner,
      [LABELS.instance]: instanceId,
    })) {
      await this.#engine.remove(id); // Commands that run beside it.
    }
    await this.#links.delete(record.slot);
    await this.#owners.remove(instanceId);
    this.#records.delete(instanceId);
  }

  async sweep(): Promise<void> {
    const slots = this.#records.slots();
    for (const slot of await this.#links.slots()) if (!slots.has(slot)) await this.#links.delete(slot);
    const known = new Set(this.#records.ids());
    for (const { id, name, labels } of await this.#engine.list({ [LABELS.owner]: this.#owner })) {
      const instanceId = labels[LABELS.instance];
      if (instanceId === undefined || (known.has(instanceId) && labels[LABELS.part] === "app")) continue;
      this.#log.warn({ container: name }, "removing a container that belongs to no instance");
      await this.#engine.remove(id);
    }
    await this.#owners.sweep(known);
    this.#owners.refill();
  }

  async dismantle(): Promise<void> {
    await this.#owners.dismantle();
    await this.#links.dismantle();
  }

  close(): void {
    this.#closed = true;
    this.#watch.close();
    this.#owners.close();
    for (const pumps of this.#pumps.values()) for (const pump of pumps) pump.close();
  }

  async #create(
    name: string,
    part: "app" | "exec",
    { instanceId, image, folder, environment }: StartRequest | ExecRequest,
    record: InstanceRecord,
    how: { command: readonly string[] | undefined; terminal: boolean; stdin: boolean },
  ): Promise<string> {
    const facts = image === undefined ? undefined : await this.#engine.image(image);
    if (image === undefined || facts === undefined) {
      throw new UserError(`there is no image ${image ?? "(none named)"} on this host`, {
        code: "image_missing",
      });
    }
    const { needs, imageHealthCheck } = record.container ?? NO_NEEDS;
    const options = containerOptions({
      owner: this.#owner,
      instanceId,
      part,
      image,
      uid: record.uid ?? CONTAINER_UID_BASE,
      folder: folder === "" ? undefined : folder,
      environment,
      resources: record.resources ?? {},
      networkContainer: this.#owners.nameOf(instanceId),
      hostsFile: this.#fileOf(instanceId, "hosts"),
      resolverFile: this.#fileOf(instanceId, "resolv.conf"),
      volumeFolder:
        record.volume === undefined ? undefined : this.#records.openVolume(record.volume, record.uid),
      imageUser: facts.user,
      needs,
      imageHealthCheck: imageHealthCheck && part === "app",
      ...how,
    });
    const labels = { ...options.Labels, [SHELL_LABEL]: how.command === undefined ? "no" : "yes" };
    return this.#engine.create(name, { ...options, Labels: labels });
  }

  /** From here on its output is taken over and its end is waited for. */
  #follow(instanceId: string, facts: ContainerFacts, hasShell: boolean): Running {
    for (const pump of this.#pumps.get(instanceId) ?? []) pump.close();
    const pumps = (["stdout", "stderr"] as const).map(
      (stream) =>
        new LogPump({
          engine: this.#engine,
          containerId: facts.id,
          stream,
          spool: this.#fileOf(instanceId, stream),
          markFile: this.#fileOf(instanceId, `${stream}.mark`),
          clock: this.#clock,
          random: this.#random,
          log: this.#log,
        }),
    );
    this.#pumps.set(instanceId, pumps);
    const exited = this.#watch
      .ended(facts.id)
      .then((ending) => this.#afterExit(instanceId, facts.id, ending, pumps));
    exited.catch(() => undefined);
    const { stopSignal, pid, startedAtMs } = facts;
    this.#live.set(instanceId, { containerId: facts.id, pid, hasShell, stopSignal, exited });
    return { pid, startedAtMs, exited };
  }

  /** Everything of the container died with its first process; its last words are taken over, then it is removed. */
  async #afterExit(
    instanceId: string,
    containerId: string,
    ending: Ending,
    pumps: readonly LogPump[],
  ): Promise<Exit> {
    if (this.#live.get(instanceId)?.containerId === containerId) this.#live.delete(instanceId);
    await Promise.all(pumps.map((pump) => pump.drain()));
    if (this.#pumps.get(instanceId) === pumps) this.#pumps.delete(instanceId);
    if (ending === undefined)
      return { code: null, signal: null, atMs: this.#clock.wallMs(), outOfMemory: false };
    // An exit is told once: what is left of the container would tell it to the next executor again.
    await this.#engine.remove(containerId).catch((error: unknown) => {
      this.#log.warn({ instanceId, reason: messageOf(error) }, "an ended container cannot be removed yet");
    });
    const { exitCode, finishedAtMs, outOfMemory } = ending;
    return { ...decodeExit(exitCode), atMs: finishedAtMs, outOfMemory };
  }

  async #removeApp(instanceId: string): Promise<void> {
    const name = this.#appName(instanceId);
    const facts = await this.#engine.inspect(name);
    if (facts !== undefined) {
      if (facts.labels[LABELS.owner] !== this.#owner) {
        throw new UserError(
          `the Docker Engine already has a container named ${name}, which is not Gilliam's`,
          {
            code: "name_taken",
            status: 409,
            next: `Run "docker rename ${name} …" or remove it.`,
          },
        );
      }
      const live = this.#live.get(instanceId);
      await this.kill(instanceId);
      if (live?.containerId === facts.id) await live.exited;
      await this.#engine.remove(facts.id);
    }
  }

  /** Whoever asks must not take an engine that is being restarted for an instance that is gone. */
  async #patiently<T>(call: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await call();
      } catch (error) {
        if (!(error instanceof UserError) || !ENGINE_AWAY.has(error.code) || this.#closed) throw error;
        await this.#clock.sleep(500);
      }
    }
  }

  #describe(instanceId: string, record: InstanceRecord): Prepared {
    const { actualPort, volume, slot, container } = record;
    const host = this.#links.addressOf(slot);
    return {
      address: actualPort === undefined ? undefined : { host, port: actualPort },
      bindHost: "0.0.0.0",
      namespace: this.#links.pathOf(slot),
      home: HOME,
      temporary: TEMPORARY,
      volume: volume === undefined ? undefined : (container?.needs.volumePath ?? VOLUME),
      spools: { stdout: this.#fileOf(instanceId, "stdout"), stderr: this.#fileOf(instanceId, "stderr") },
    };
  }

  #writeNames(instanceId: string, { hosts }: ContainerRequest): void {
    // Read by the instance, which is another user; written in place, since a running container holds the file itself.
    writeFileSync(this.#fileOf(instanceId, "hosts"), hostsFileText(hosts), { mode: 0o644 });
    writeFileSync(this.#fileOf(instanceId, "resolv.conf"), RESOLVER_FILE_TEXT, { mode: 0o644 });
  }

  #mustGet(instanceId: string): InstanceRecord {
    const record = this.#records.get(instanceId);
    if (record !== undefined) return record;
    throw new UserError(`There is no instance ${instanceId} on this host`, {
      code: "no_instance",
      status: 404,
    });
  }

  #appName(instanceId: string): string {
    return `${this.#owner}-${instanceId}`;
  }

  #fileOf(instanceId: string, name: string): string {
    return join(this.#records.folder(instanceId), "run", name);
  }
}

/** Whether its processes were started by a shell of ours; an adopting executor cannot know otherwise. */
const SHELL_LABEL = "gilliam.shell";
const ENGINE_AWAY = new Set(["engine_gone", "engine_silent"]);

function trySignal(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch {
    return false; // Already gone.
  }
}
