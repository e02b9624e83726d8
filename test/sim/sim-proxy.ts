import type { Random } from "../../base/random.ts";
import { applyDelta } from "../../model/mesh-delta.ts";
import type { FeedMessage, MeshConfig, ProxyReport } from "../../model/mesh.ts";

/** A proxy: applies what it is told after a while, keeps requests in flight, and may be cut off, slow, or refuse. */
export class SimProxy {
  readonly id: string;
  readonly kind: "edge" | "sidecar";
  readonly hostId: string;
  /** What is in force; survives a restart, as on disk. */
  config: MeshConfig = { epoch: 0, clusters: [], edges: [], routes: [] };
  /** The process; while it is down nothing is served. */
  alive = true;
  /** False: it serves, but neither hears control nor reports. */
  linked = true;
  stream: Disposable | undefined;
  refuseShare = 0;
  readonly #random: Random;
  #boots = 0;
  #inbox: { atMs: number; message: FeedMessage }[] = [];
  /** Requests in flight by endpoint: when each ends. */
  readonly #requests = new Map<string, number[]>();
  #refused: { epoch: number; reason: string } | undefined;

  constructor(id: string, kind: "edge" | "sidecar", hostId: string, random: Random) {
    this.id = id;
    this.kind = kind;
    this.hostId = hostId;
    this.#random = random;
  }

  hear(message: FeedMessage, nowMs: number): void {
    const last = this.#inbox.at(-1)?.atMs ?? nowMs;
    this.#inbox.push({ atMs: Math.max(last, nowMs + this.#random() * 1_000), message });
  }

  /** The stream ended: what had not arrived never will. */
  cut(): void {
    this.stream?.[Symbol.dispose]();
    this.stream = undefined;
    this.#inbox = [];
  }

  /** The process ended, and its requests with it. */
  kill(): void {
    this.cut();
    this.alive = false;
    this.#requests.clear();
  }

  start(): void {
    this.alive = true;
    this.#boots += 1;
    this.#refused = undefined;
  }

  step(nowMs: number): void {
    if (!this.alive) return;
    while (this.#inbox[0] !== undefined && this.#inbox[0].atMs <= nowMs) {
      const { message } = this.#inbox.shift()!;
      this.#apply(message);
    }
    for (const [id, ends] of this.#requests) {
      const left = ends.filter((endMs) => endMs > nowMs);
      if (left.length > 0) this.#requests.set(id, left);
      else this.#requests.delete(id);
    }
    for (const id of this.endpoints()) {
      if (this.#random() > 0.3) continue;
      // Most are quick; a few, like a WebSocket, outlive the drain timeout.
      const durationMs = this.#random() < 0.01 ? 60_000 : this.#random() * 1_500;
      this.#requests.set(id, [...(this.#requests.get(id) ?? []), nowMs + durationMs]);
    }
  }

  endpoints(): Set<string> {
    return new Set(this.config.clusters.flatMap((cluster) => cluster.endpoints.map(({ id }) => id)));
  }

  inFlight(id: string): number {
    return this.#requests.get(id)?.length ?? 0;
  }

  report(): ProxyReport {
    const inForce = this.endpoints();
    const busy = [...this.#requests].filter(([id]) => !inForce.has(id));
    return {
      kind: this.kind,
      hostId: this.hostId,
      bootId: `${this.id}-${this.#boots}`,
      epoch: this.config.epoch,
      ...(this.#refused === undefined ? {} : { refused: this.#refused }),
      busy: Object.fromEntries(busy.map(([id, ends]) => [id, ends.length])),
      ejected: {},
      traffic: [],
      metricsUrl: "",
    };
  }

  #apply(message: FeedMessage): void {
    if (message.kind === "alive") return;
    const epoch = message.kind === "config" ? message.config.epoch : message.delta.epoch;
    if (epoch <= this.config.epoch)
      throw new Error(`${this.id} at ${this.config.epoch} was sent epoch ${epoch}`);
    if (this.#random() < this.refuseShare) {
      this.#refused = { epoch, reason: "out of memory" };
      return;
    }
    const next = message.kind === "config" ? message.config : applyDelta(this.config, message.delta);
    if (next === undefined) throw new Error(`${this.id} was sent a delta for another base than its own`);
    this.config = next;
    this.#refused = undefined;
  }
}
