import type { Random } from "../../base/random.ts";
import type { Assignment, InstanceStatus } from "../../model/instance.ts";
import type { BuildOrder, BuildStatus } from "../../model/host.ts";
import type { RunSpec } from "../../model/run-spec.ts";

/** How instances of a release behave, by the value of their environment's BEHAVIOUR. */
export type Behaviour = "good" | "never-ready" | "crashing" | "unbuildable";

interface Running {
  readonly spec: RunSpec;
  readonly address: { readonly host: string; readonly port: number };
  phase: InstanceStatus["phase"];
  /** When the phase moves on by itself. */
  nextMs: number;
  restarts: number;
}

/** A host with its executor: slow starts, crashes, restarts, and an executor that can be away while instances run on. */
export class SimHost {
  readonly id: string;
  /** The executor; instances run on without it. */
  awake = true;
  readonly #random: Random;
  readonly #running = new Map<string, Running>();
  readonly #builds = new Map<string, { status: BuildStatus; readyMs: number }>();
  #ports = 1000;

  constructor(id: string, random: Random) {
    this.id = id;
    this.#random = random;
  }

  /** What the executor does with a list from control; never stops what is only absent. */
  assign(assignments: readonly Assignment[], orders: readonly BuildOrder[], nowMs: number): void {
    if (!this.awake) return;
    for (const order of orders) this.#order(order, nowMs);
    for (const { instanceId, spec, want } of assignments) {
      const running = this.#running.get(instanceId);
      if (running === undefined) this.#take(instanceId, spec, want, nowMs);
      else if (want === "stop" && running.phase !== "stopped" && running.phase !== "draining") {
        running.phase = "draining";
        running.nextMs = nowMs + this.#random() * 2_000;
      }
    }
    const listed = new Set(assignments.map((assignment) => assignment.instanceId));
    for (const [id, { phase }] of this.#running) {
      if (phase === "stopped" && !listed.has(id)) this.#running.delete(id);
    }
  }

  step(nowMs: number): void {
    for (const { status, readyMs } of this.#builds.values()) {
      if (status.state === "building" && nowMs >= readyMs) {
        status.state = status.reason === "" ? "ready" : "failed";
      }
    }
    for (const running of this.#running.values()) if (nowMs >= running.nextMs) this.#move(running, nowMs);
  }

  crash(random: Random, nowMs: number): void {
    const alive = [...this.#running.values()].filter(
      ({ phase }) => phase === "ready" || phase === "starting",
    );
    const victim = alive[Math.floor(random() * alive.length)];
    if (victim === undefined) return;
    victim.phase = "failed";
    victim.restarts += 1;
    victim.nextMs = nowMs + 500 + random() * 1_000;
  }

  /** Everything on it dies at once and its executor has forgotten all: a machine that was reset. */
  reset(): void {
    this.#running.clear();
  }

  /** Truth, not what was reported: ids of what could be answering or touching its volume. */
  alive(): { id: string; spec: RunSpec; ready: boolean }[] {
    return [...this.#running]
      .filter(([, { phase }]) => phase !== "stopped" && phase !== "pending")
      .map(([id, { spec, phase }]) => ({ id, spec, ready: phase === "ready" || phase === "draining" }));
  }

  statuses(): InstanceStatus[] {
    return [...this.#running].map(([instanceId, { phase, address, restarts }]) => ({
      instanceId,
      phase,
      reason: "",
      restarts,
      lastLines: [],
      ...(phase === "ready" || phase === "draining" ? { address } : {}),
    }));
  }

  builds(): BuildStatus[] {
    return [...this.#builds.values()].map(({ status }) => ({ ...status }));
  }

  #take(id: string, spec: RunSpec, want: "run" | "stop", nowMs: number): void {
    this.#ports += 1;
    const address = { host: `10.0.${this.id.charCodeAt(0)}.1`, port: this.#ports };
    const phase = want === "stop" ? "stopped" : "pending";
    this.#running.set(id, { spec, address, phase, nextMs: nowMs, restarts: 0 });
  }

  #order({ image, source }: BuildOrder, nowMs: number): void {
    if (this.#builds.has(image)) return;
    const reason = source.startsWith("sha256:bad") ? "npm ci failed" : "";
    const status: BuildStatus = { image, state: "building", explanation: "", reason, lastLines: [] };
    this.#builds.set(image, { status, readyMs: nowMs + this.#random() * 3_000 });
  }

  #move(running: Running, nowMs: number): void {
    const behaviour = running.spec.environment["BEHAVIOUR"] as Behaviour;
    const { image } = running.spec;
    switch (running.phase) {
      case "pending":
        if (image.kind === "source" && this.#builds.get(image.image)?.status.state !== "ready") return;
        running.phase = "starting";
        running.nextMs = nowMs + this.#random() * 3_000;
        return;
      case "starting":
        if (behaviour === "never-ready") return;
        running.phase = behaviour === "crashing" ? "failed" : "ready";
        running.nextMs = running.phase === "ready" ? Infinity : nowMs + 1_000;
        return;
      case "failed":
        running.phase = "starting";
        running.restarts += 1;
        running.nextMs = nowMs + this.#random() * 2_000;
        return;
      case "draining":
        running.phase = "stopped";
        running.nextMs = Infinity;
        return;
      case "ready":
      case "stopped":
    }
  }
}
