import { equalJitterMs } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import { UserError, messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import type { InstanceStatus } from "../model/instance.ts";
import type { LocalPortsAnswer } from "../model/local-ports.ts";
import type { RunSpec } from "../model/run-spec.ts";
import type { ContainerRequest, Driver, PrepareRequest, Running } from "./driver.ts";
import { instanceEnvironment } from "./environment.ts";
import { explainExit } from "./explain.ts";
import { checkHealth } from "./health.ts";
import type { Images, ResolvedImage } from "./images.ts";
import type { LocalPorts } from "./local-ports.ts";
import type { Logs } from "./logs.ts";
import {
  newSupervision,
  nextDueMs,
  phaseOf,
  step,
  type Action,
  type Event,
  type Supervision,
  type SupervisionPolicy,
} from "./supervise.ts";

/** What all runners of a host share. */
export interface RunnerParts {
  readonly driver: Driver;
  readonly images: Images;
  readonly localPorts: Pick<LocalPorts, "open" | "close">;
  readonly logs: Logs;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly hostId: string;
  readonly nodeFolder: string;
  readonly platformFolder: string;
  readonly checkTimeoutMs: number;
  readonly policyFor: (spec: RunSpec, boot: boolean) => SupervisionPolicy;
}

/** What of a runner outlives the executor. */
export interface RunnerMemory {
  readonly ready: boolean;
  readonly restarts: number;
  readonly crashes: number;
  readonly lastExit: Supervision["lastExit"];
  readonly localPorts: LocalPortsAnswer["ports"] | undefined;
}

export interface RunnerIdentity {
  readonly instanceId: string;
  readonly spec: RunSpec;
  /** Set on parts of the platform, from the boot manifest. */
  readonly boot: "none" | "sidecar" | undefined;
}

/** Between two looks at an image that is being built, in milliseconds. */
const IMAGE_POLL_MS = 300;
const SIDECAR_RETRY = { baseMs: 100, capMs: 3_000 };

/** Runs one instance: carries out what supervise.ts decides and feeds back what happened. */
export class Runner {
  readonly instanceId: string;
  readonly spec: RunSpec;
  readonly boot: RunnerIdentity["boot"];
  readonly #parts: RunnerParts;
  readonly #policy: SupervisionPolicy;
  readonly #onChange: () => void;
  #supervision: Supervision = newSupervision();
  #localPorts: LocalPortsAnswer["ports"] | undefined;
  #running: Running | undefined;
  /** What it was started with; undefined when an earlier executor did. */
  #command: string | undefined;
  #timer: Disposable | undefined;
  /** Launch, kill and release, one after the other. */
  #queue: Promise<void> = Promise.resolve();
  readonly #stopLaunching = new AbortController();
  readonly #released = Promise.withResolvers<void>();
  #closed = false;

  constructor(parts: RunnerParts, { instanceId, spec, boot }: RunnerIdentity, onChange: () => void) {
    this.#parts = parts;
    this.instanceId = instanceId;
    this.spec = spec;
    this.boot = boot;
    this.#policy = parts.policyFor(spec, boot !== undefined);
    this.#onChange = onChange;
  }

  /** Takes over what an earlier executor started; otherwise starts it. Resolves when that is decided. */
  async begin(memory: RunnerMemory | undefined): Promise<void> {
    const { driver } = this.#parts;
    if (memory !== undefined) {
      const { restarts, crashes, lastExit } = memory;
      this.#supervision = { ...this.#supervision, restarts, crashes, lastExit };
    }
    const running = await driver.adopt(this.instanceId);
    if (running === undefined) {
      this.#carryOut({ kind: "launch" });
      return;
    }
    this.#localPorts = memory?.localPorts;
    this.#openLog();
    this.#dispatch({ kind: "adopted", ready: memory?.ready ?? false });
    this.#watch(running);
    this.#parts.log.info({ instanceId: this.instanceId, pid: running.pid }, "instance adopted");
  }

  /** Ends it: signal, grace, SIGKILL, then everything it had is removed. Resolves when it is. Idempotent. */
  stop(reason: string): Promise<void> {
    this.#dispatch({ kind: "stop", reason });
    return this.#released.promise;
  }

  get isStopped(): boolean {
    return this.#supervision.state.kind === "stopped";
  }

  /** Lets go without touching the instance: the executor ends, the instance runs on. */
  close(): void {
    this.#closed = true;
    this.#timer?.[Symbol.dispose]();
    this.#stopLaunching.abort(new Error("the executor ends"));
  }

  memory(): RunnerMemory {
    const { restarts, crashes, lastExit } = this.#supervision;
    return {
      ready: phaseOf(this.#supervision) === "ready",
      restarts,
      crashes,
      lastExit,
      localPorts: this.#localPorts,
    };
  }

  status(): InstanceStatus {
    const { state, restarts, lastExit } = this.#supervision;
    const { clock, driver, logs } = this.#parts;
    const address = this.isStopped ? undefined : driver.prepared(this.instanceId)?.address;
    const running = state.kind === "running" || state.kind === "stopping" ? this.#running : undefined;
    const troubled = state.kind === "backing-off" || (state.kind === "running" && !state.ready);
    return {
      instanceId: this.instanceId,
      phase: phaseOf(this.#supervision),
      ...(address === undefined ? {} : { address: { ...address } }),
      reason: state.reason,
      restarts,
      ...(this.#running === undefined ? {} : { startedAtMs: this.#running.startedAtMs }),
      ...(lastExit === undefined ? {} : { lastExit: { ...lastExit } }),
      lastLines: troubled || lastExit !== undefined ? [...logs.lastLines(this.instanceId)] : [],
      ...(state.kind === "backing-off"
        ? { nextStartAtMs: clock.wallMs() + Math.max(0, state.untilMs - clock.nowMs()) }
        : {}),
      ...(running === undefined || running.pid === 0 ? {} : { pid: running.pid }),
      ...(this.boot === undefined ? {} : { boot: this.spec }),
    };
  }

  /** How a command is run beside it. Throws while it has no network yet. */
  execContext(): { folder: string; image: string | undefined; environment: Record<string, string> } {
    const image = this.#parts.images.resolve(this.spec.image);
    const prepared = this.#parts.driver.prepared(this.instanceId);
    if (image.kind !== "ready" || prepared === undefined) {
      throw new UserError(`${this.instanceId} is not prepared yet: ${this.#supervision.state.reason}`, {
        code: "not_prepared",
        status: 409,
      });
    }
    return { folder: image.folder, image: image.reference, environment: this.#environment(image.folder) };
  }

  /** Asks the sidecar again for ports it should have open, after it has lost them. */
  async reopenLocalPorts(): Promise<void> {
    const prepared = this.#parts.driver.prepared(this.instanceId);
    if (this.#localPorts === undefined || prepared === undefined || this.isStopped) return;
    await this.#askSidecar(prepared.namespace);
  }

  #dispatch(event: Event): void {
    if (this.#closed) return;
    const { clock, random } = this.#parts;
    const before = this.#supervision;
    const { next, actions } = step(before, event, clock.nowMs(), this.#policy, random);
    this.#supervision = next;
    for (const action of actions) this.#carryOut(action);
    this.#schedule();
    const moved = phaseOf(before) !== phaseOf(next);
    if (moved) this.#tellMove();
    if (moved || before.state.reason !== next.state.reason) this.#onChange();
  }

  #tellMove(): void {
    const { state, restarts } = this.#supervision;
    const phase = phaseOf(this.#supervision);
    const { instanceId } = this;
    this.#parts.log.info({ instanceId, phase, reason: state.reason, restarts }, "instance");
    this.#parts.logs.note(instanceId, state.reason === "" ? phase : `${phase}: ${state.reason}`);
  }

  #schedule(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    const dueMs = nextDueMs(this.#supervision);
    if (dueMs === undefined) return;
    const { clock } = this.#parts;
    this.#timer = clock.after(Math.max(0, dueMs - clock.nowMs()), () => this.#dispatch({ kind: "tick" }));
  }

  #carryOut(action: Action): void {
    switch (action.kind) {
      case "launch":
        this.#enqueue(() => this.#launch());
        return;
      case "check":
        void this.#check();
        return;
      case "signal":
        void this.#parts.driver.signal(this.instanceId, this.spec.stop.signal);
        return;
      case "kill":
        this.#stopLaunching.abort(new Error("the instance is to stop"));
        this.#enqueue(async () => {
          await this.#parts.driver.kill(this.instanceId);
          this.#dispatch({ kind: "gone" });
        });
        return;
      case "release":
        this.#enqueue(() => this.#release());
    }
  }

  #enqueue(work: () => Promise<void>): void {
    this.#queue = this.#queue.then(work).catch((error: unknown) => {
      if (this.#closed) return;
      this.#parts.log.error({ instanceId: this.instanceId, err: error }, "instance could not be handled");
    });
  }

  async #launch(): Promise<void> {
    const { driver, logs } = this.#parts;
    try {
      const image = await this.#awaitImage();
      const prepared = await driver.prepare(this.#prepareRequest());
      this.#openLog();
      // A container's network may be a new one; ports that are open there already stay as they are.
      if (
        this.spec.dependencies.length > 0 &&
        (this.#localPorts === undefined || image.reference !== undefined)
      ) {
        await this.#awaitLocalPorts(prepared.namespace);
      }
      const command = this.spec.command ?? image.defaultCommand;
      if (command === undefined && image.reference === undefined) {
        throw new UserError(
          `there is no command to start it with: the image has no Procfile and its language none either; ` +
            `add "command:" to ${this.spec.service} in gilliam.yaml`,
          { code: "no_command" },
        );
      }
      if (this.#stopLaunching.signal.aborted) return;
      this.#command = command;
      const running = await driver.start({
        instanceId: this.instanceId,
        folder: image.folder,
        image: image.reference,
        command,
        environment: this.#environment(image.folder),
      });
      logs.note(this.instanceId, `started: ${command ?? "what its image starts"}`);
      this.#dispatch({ kind: "launched" });
      this.#watch(running);
    } catch (error) {
      if (this.#stopLaunching.signal.aborted) return;
      this.#parts.log.warn({ instanceId: this.instanceId, err: error }, "instance cannot be started");
      this.#dispatch({ kind: "launch-failed", reason: messageOf(error) });
    }
  }

  async #awaitImage(): Promise<ResolvedImage & { kind: "ready" }> {
    for (;;) {
      const image = this.#parts.images.resolve(this.spec.image);
      if (image.kind === "ready") return image;
      this.#dispatch({ kind: "waiting", reason: image.reason });
      await this.#parts.clock.sleep(IMAGE_POLL_MS, this.#stopLaunching.signal);
    }
  }

  async #awaitLocalPorts(namespace: string | null): Promise<void> {
    const { clock, random } = this.#parts;
    for (let attempt = 0; ; attempt += 1) {
      try {
        await this.#askSidecar(namespace);
        return;
      } catch (error) {
        this.#dispatch({ kind: "waiting", reason: `waits for its local ports: ${messageOf(error)}` });
        await clock.sleep(equalJitterMs(attempt, SIDECAR_RETRY, random), this.#stopLaunching.signal);
      }
    }
  }

  async #askSidecar(namespace: string | null): Promise<void> {
    const { formation, service, release, dependencies } = this.spec;
    const answer = await this.#parts.localPorts.open({
      instanceId: this.instanceId,
      formation,
      service,
      release,
      namespace,
      ports: dependencies.map(({ name, port, protocol }) => ({ dependency: name, port, protocol })),
    });
    this.#localPorts = answer.ports;
    this.#onChange(); // To be remembered: a later executor computes the environment for exec from it.
  }

  #watch(running: Running): void {
    this.#running = running;
    running.exited.then(
      (exit) => {
        if (this.#running !== running || this.#closed) return;
        this.#parts.logs.flush(this.instanceId);
        const explanation = explainExit({
          exit,
          command: this.spec.command ?? this.#command ?? "its default command",
          lastLines: this.#parts.logs.lastLines(this.instanceId),
          ranMs: running.startedAtMs === 0 ? undefined : exit.atMs - running.startedAtMs,
          hostId: this.#parts.hostId,
          memoryBytes: this.spec.resources.memoryBytes,
        });
        this.#dispatch({ kind: "exited", exit, explanation });
      },
      (error: unknown) => {
        if (!this.#closed)
          this.#parts.log.error({ instanceId: this.instanceId, err: error }, "exit not seen");
      },
    );
  }

  async #check(): Promise<void> {
    const running = this.#running;
    const { driver, checkTimeoutMs } = this.#parts;
    const image = this.#parts.images.resolve(this.spec.image);
    const folder = image.kind === "ready" ? image.folder : "/";
    const result = await checkHealth({
      instanceId: this.instanceId,
      health: this.spec.health,
      proxyProtocol: this.spec.proxyProtocol,
      driver,
      folder,
      environment: this.spec.health.kind === "command" ? this.#environment(folder) : {},
      timeoutMs: checkTimeoutMs,
    });
    if (this.#running === running) this.#dispatch({ kind: "checked", ...result });
  }

  async #release(): Promise<void> {
    const { driver, localPorts, logs, log } = this.#parts;
    logs.close(this.instanceId);
    if (this.#localPorts !== undefined) {
      this.#localPorts = undefined;
      try {
        await localPorts.close(this.instanceId);
      } catch (error) {
        // The agent compares with the sidecar's list again and again; here nothing needs to wait for it.
        log.warn({ instanceId: this.instanceId, err: error }, "local ports not closed yet");
      }
    }
    try {
      await driver.remove(this.instanceId);
    } catch (error) {
      // What cannot be removed is said and left to the next sweep; whoever waits for the stop must not wait for ever.
      log.error({ instanceId: this.instanceId, err: error }, "instance cannot be removed completely");
    }
    this.#released.resolve();
    this.#onChange();
  }

  #openLog(): void {
    const prepared = this.#parts.driver.prepared(this.instanceId);
    if (prepared === undefined) return;
    const { formation, service, release } = this.spec;
    this.#parts.logs.open(this.instanceId, { formation, service, release }, prepared.spools);
  }

  #environment(folder: string): Record<string, string> {
    const prepared = this.#parts.driver.prepared(this.instanceId);
    if (prepared === undefined) return {};
    const { nodeFolder, platformFolder } = this.#parts;
    const { instanceId, spec } = this;
    const localPorts = this.#localPorts ?? [];
    return instanceEnvironment({
      instanceId,
      spec,
      prepared,
      localPorts,
      folder,
      nodeFolder,
      platformFolder,
    });
  }

  #prepareRequest(): PrepareRequest {
    const { port, volume, resources } = this.spec;
    return {
      instanceId: this.instanceId,
      network: this.boot === undefined ? "own" : "host",
      port,
      volume,
      privileges: this.boot === undefined ? "none" : this.boot === "sidecar" ? "sidecar" : "platform",
      resources,
      container: containerRequest(this.spec),
    };
  }
}

/** What a driver of containers needs to know; undefined for Gilliam's own parts and gears, which are processes. */
export function containerRequest(spec: RunSpec): ContainerRequest | undefined {
  if (spec.image.kind !== "source" && spec.image.kind !== "docker") return undefined;
  return {
    needs: spec.container ?? {},
    hosts: spec.dependencies.map(({ name }) => name),
    imageHealthCheck: spec.health.kind === "tcp" || spec.health.kind === "none",
  };
}
