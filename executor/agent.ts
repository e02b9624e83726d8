import os from "node:os";
import type { Clock } from "../base/clock.ts";
import { UserError, messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { BootInstance, BootManifest } from "../model/boot.ts";
import type { AssignmentsMessage, BuildStatus, HostReport } from "../model/host.ts";
import type { InstanceStatus } from "../model/instance.ts";
import type { ImageRef } from "../model/run-spec.ts";
import { planBoot } from "./boot.ts";
import type { ControlClient } from "./control-client.ts";
import type { LocalPorts } from "./local-ports.ts";
import type { Memory, Remembered } from "./memory.ts";
import { Runner, type RunnerParts } from "./runner.ts";
import { stopOrder } from "./stop-order.ts";

export interface AgentOptions {
  readonly parts: RunnerParts;
  readonly memory: Memory;
  readonly control: ControlClient;
  readonly localPorts: Pick<LocalPorts, "list" | "close">;
  readonly boot: BootManifest | undefined;
  readonly labels: Readonly<Record<string, string>>;
  /** Where control reaches the executor's API. */
  readonly url: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** How long a proxy may take to leave its workers to its next start, in milliseconds. */
const LEAVE_MS_MAX = 5_000;
const REPORT_MS = 2_000;
/** Changes that come together are reported together, in milliseconds. */
const REPORT_DELAY_MS = 15;
/** How often the sidecar's list is compared with ours, in milliseconds. */
const LOCAL_PORTS_MS = 5_000;

/**
 * Keeps what runs on this host as control wants it. Nothing is ever stopped because something is missing: only a
 * written `stop` stops an instance, only a changed boot manifest restarts a part of the platform.
 */
export class Agent {
  readonly #options: AgentOptions;
  readonly #runners = new Map<string, Runner>();
  /** Ordered to stop; those not in `#runners` were never here. Reported as stopped until control drops them. */
  readonly #stopping = new Set<string>();
  readonly #abort = new AbortController();
  readonly #timers: Disposable[] = [];
  #reportSoon: Disposable | undefined;
  #reporting = false;
  #reportAgain = false;
  #reportFailing = false;

  constructor(options: AgentOptions) {
    this.#options = options;
  }

  /** Adopts what runs, starts what should run, then listens to control. Resolves when the first part is done. */
  async start(): Promise<void> {
    const { memory, boot, parts, clock, log } = this.#options;
    const { remembered, damaged } = memory.load();
    for (const instanceId of damaged) {
      log.error(
        { instanceId },
        "what was known of this instance is damaged; left alone until control names it",
      );
    }
    const plan = planBoot(boot, remembered);
    const replaced = new Set(plan.stop.map(({ instanceId }) => instanceId));
    await Promise.all(plan.stop.map((old) => this.#replaceBootPart(old)));
    const known = new Map(remembered.map((one) => [one.instanceId, one]));
    await Promise.all([
      ...plan.run.map((part) =>
        this.#beginBoot(part, replaced.has(part.instanceId) ? undefined : known.get(part.instanceId)),
      ),
      ...remembered.filter(({ boot }) => boot === undefined).map((one) => this.#resume(one)),
    ]);
    await this.#removeOneOffs();
    await parts.driver.sweep();
    const orders = memory.loadOrders();
    if (orders !== undefined) parts.images.order(orders.builds, orders.keepImages, () => this.imagesInUse());
    parts.images.onChange(() => this.#changed());
    this.#timers.push(
      clock.every(REPORT_MS, () => void this.#report()),
      clock.every(LOCAL_PORTS_MS, () => void this.#compareLocalPorts()),
    );
    void this.#options.control.watchAssignments((message) => this.#apply(message), this.#abort.signal);
    void this.#report();
    void this.#compareLocalPorts();
  }

  get(instanceId: string): Runner {
    const runner = this.#runners.get(instanceId);
    if (runner !== undefined) return runner;
    throw new UserError(`There is no instance ${instanceId} on host ${this.#options.parts.hostId}`, {
      code: "no_instance",
      status: 404,
    });
  }

  statuses(): InstanceStatus[] {
    const known = [...this.#runners.values()].map((runner) => runner.status());
    const unknown = [...this.#stopping].filter((id) => !this.#runners.has(id));
    return [
      ...known,
      ...unknown.map((instanceId): InstanceStatus => ({
        instanceId,
        phase: "stopped",
        reason: "it is not on this host",
        restarts: 0,
        lastLines: [],
      })),
    ];
  }

  builds(): BuildStatus[] {
    return this.#options.parts.images.statuses();
  }

  imagesInUse(): Set<string> {
    return new Set([...this.#runners.values()].map(({ spec }) => imageKey(spec.image)));
  }

  /** Lets go of everything; all instances run on. */
  close(): void {
    this.#abort.abort(new Error("the executor ends"));
    this.#reportSoon?.[Symbol.dispose]();
    for (const timer of this.#timers) timer[Symbol.dispose]();
    for (const runner of this.#runners.values()) runner.close();
  }

  /** Stops every instance, dependents first, the platform's parts last; what should run is remembered. */
  async shutdown(tell: (text: string) => void): Promise<void> {
    this.#abort.abort(new Error("the platform goes down"));
    for (const timer of this.#timers) timer[Symbol.dispose]();
    const { driver } = this.#options.parts;
    const all = [...this.#runners.values()];
    for (const wave of stopOrder(all)) {
      tell(`stopping ${wave.join(", ")}`);
      await Promise.all(wave.map((id) => this.get(id).stop("the platform goes down")));
    }
    await this.#removeOneOffs();
    await driver.sweep();
    await driver.dismantle();
  }

  #apply(message: AssignmentsMessage & { kind: "assignments" }): void {
    const { memory, parts, log } = this.#options;
    const listed = new Set(message.instances.map(({ instanceId }) => instanceId));
    for (const { instanceId, spec, want } of message.instances) {
      const runner = this.#runners.get(instanceId);
      if (runner?.boot !== undefined) continue; // Ours by the boot manifest; control only watches.
      if (want === "stop") this.#stopAssigned(instanceId);
      else if (runner === undefined) {
        log.info({ instanceId }, "instance assigned");
        void this.#begin({ instanceId, spec, boot: undefined }, undefined);
      }
    }
    for (const instanceId of this.#stopping) {
      const runner = this.#runners.get(instanceId);
      if (listed.has(instanceId) || (runner !== undefined && !runner.isStopped)) continue;
      this.#stopping.delete(instanceId);
      this.#runners.delete(instanceId);
      memory.forget(instanceId);
    }
    const orders = { builds: message.builds, keepImages: message.keepImages };
    this.#save(() => memory.saveOrders(orders));
    parts.images.order(orders.builds, orders.keepImages, () => this.imagesInUse());
    this.#changed();
  }

  #stopAssigned(instanceId: string): void {
    if (this.#stopping.has(instanceId)) return;
    this.#stopping.add(instanceId);
    const runner = this.#runners.get(instanceId);
    if (runner === undefined) return;
    this.#remember(runner);
    void runner.stop("stopped by control");
  }

  #begin(
    identity: Pick<Runner, "instanceId" | "spec" | "boot">,
    memory: Remembered | undefined,
  ): Promise<void> {
    const runner = new Runner(this.#options.parts, identity, () => {
      if (!this.#abort.signal.aborted) this.#remember(runner);
      this.#changed();
    });
    this.#runners.set(identity.instanceId, runner);
    this.#remember(runner);
    const known =
      memory === undefined
        ? undefined
        : { ...memory, lastExit: memory.lastExit, localPorts: memory.localPorts };
    return runner.begin(known);
  }

  #beginBoot(part: BootInstance, memory: Remembered | undefined): Promise<void> {
    return this.#begin({ instanceId: part.instanceId, spec: part.spec, boot: part.privileges }, memory);
  }

  async #resume(one: Remembered): Promise<void> {
    if (one.want === "stop") this.#stopping.add(one.instanceId);
    // Already stopped, its folders gone: it is reported until control drops it.
    if (one.want === "stop" && this.#options.parts.driver.prepared(one.instanceId) === undefined) return;
    await this.#begin({ instanceId: one.instanceId, spec: one.spec, boot: undefined }, one);
    if (one.want === "stop") void this.#runners.get(one.instanceId)?.stop("stopped by control");
  }

  /**
   * The old part is stopped as its own spec says, before the new one takes its place and its port. Proxies are only left:
   * their workers serve on until the new one takes them over, so nobody is refused.
   */
  async #replaceBootPart(old: Remembered): Promise<void> {
    const isProxy = old.spec.service === "edge" || old.spec.service === "sidecar";
    if (!isProxy || !(await this.#leave(old.instanceId))) {
      await this.#begin({ instanceId: old.instanceId, spec: old.spec, boot: old.boot }, old);
      await this.get(old.instanceId).stop("its boot manifest changed");
      this.#runners.delete(old.instanceId);
    }
    this.#options.memory.forget(old.instanceId);
  }

  /** Has a proxy leave its work to its next start. False when it does not within a few seconds. */
  async #leave(instanceId: string): Promise<boolean> {
    const { clock, parts } = this.#options;
    const running = parts.driver.kind === "process" ? await parts.driver.adopt(instanceId) : undefined;
    if (running === undefined || !(await parts.driver.signal(instanceId, "SIGQUIT"))) return false;
    const ended = running.exited.then(
      () => true,
      () => false,
    );
    return Promise.race([ended, clock.sleep(LEAVE_MS_MAX).then(() => false)]);
  }

  /** `gilliam run` of an executor that was killed meanwhile: nobody waits for the answer. */
  async #removeOneOffs(): Promise<void> {
    const { parts, localPorts, log } = this.#options;
    for (const id of await parts.driver.list()) {
      if (this.#runners.has(id)) continue;
      if (!isOneOff(id)) {
        log.warn({ instanceId: id }, "an instance nobody knows is left alone");
        continue;
      }
      await localPorts.close(id).catch(() => undefined);
      await parts.driver.remove(id);
    }
  }

  #remember(runner: Runner): void {
    const { instanceId, spec, boot } = runner;
    const { lastExit, localPorts, ...memory } = runner.memory();
    this.#save(() =>
      this.#options.memory.save({
        instanceId,
        spec,
        want: this.#stopping.has(instanceId) ? "stop" : "run",
        ...memory,
        ...(boot === undefined ? {} : { boot }),
        ...(lastExit === undefined ? {} : { lastExit }),
        ...(localPorts === undefined ? {} : { localPorts }),
      }),
    );
  }

  /** A full disk stops nothing: what cannot be remembered now is remembered with the next change. */
  #save(write: () => void): void {
    try {
      write();
    } catch (error) {
      this.#options.log.error({ err: error }, "the executor's state cannot be written; everything runs on");
    }
  }

  #changed(): void {
    if (this.#abort.signal.aborted) return;
    this.#reportSoon ??= this.#options.clock.after(REPORT_DELAY_MS, () => {
      this.#reportSoon = undefined;
      void this.#report();
    });
  }

  async #report(): Promise<void> {
    if (this.#abort.signal.aborted) return;
    if (this.#reporting) {
      this.#reportAgain = true;
      return;
    }
    this.#reporting = true;
    try {
      do {
        this.#reportAgain = false;
        await this.#options.control.report(this.#makeReport());
      } while (this.#reportAgain && !this.#abort.signal.aborted);
      if (this.#reportFailing) this.#options.log.info("control takes reports again");
      this.#reportFailing = false;
    } catch (error) {
      if (!this.#reportFailing)
        this.#options.log.warn({ reason: messageOf(error) }, "control takes no report");
      this.#reportFailing = true;
    } finally {
      this.#reporting = false;
    }
  }

  #makeReport(): HostReport {
    const { parts, labels, url } = this.#options;
    return {
      hostId: parts.hostId,
      executorUrl: url,
      metricsUrl: `${url}/metrics`,
      driver: parts.driver.kind,
      network: parts.driver.network,
      capacity: { cpu: os.availableParallelism(), memoryBytes: os.totalmem() },
      labels: { ...labels },
      instances: this.statuses(),
      builds: parts.images.statuses(),
    };
  }

  /** Both lists may have been lost on either side; whoever lacks a port gets it, whoever has one too many drops it. */
  async #compareLocalPorts(): Promise<void> {
    const { localPorts, log, parts } = this.#options;
    const { driver } = parts;
    const needing = [...this.#runners.values()].filter((runner) => runner.memory().localPorts !== undefined);
    try {
      const open = new Set(await localPorts.list());
      for (const runner of needing) if (!open.has(runner.instanceId)) await runner.reopenLocalPorts();
      for (const id of open) {
        // Whoever has a network here may be using its ports, even if all else about it is forgotten.
        if (driver.prepared(id) === undefined) await localPorts.close(id);
      }
    } catch (error) {
      if (needing.length > 0) log.debug({ reason: messageOf(error) }, "local ports cannot be compared");
    }
  }
}

/** Instances of `gilliam run` are named so; nobody assigns them. */
export const ONE_OFF_MARK = "-run-";

function isOneOff(instanceId: string): boolean {
  return instanceId.includes(ONE_OFF_MARK);
}

function imageKey(image: ImageRef): string {
  return image.kind === "source" ? image.image : image.kind;
}
