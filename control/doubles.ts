import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { z } from "zod";
import { silentLog } from "../base/log.ts";
import { ManualClock } from "../base/manual-clock.ts";
import { seededRandom } from "../base/random.ts";
import { readSettings } from "../base/settings.ts";
import type { AssignmentsMessage, HostReport } from "../model/host.ts";
import type { Assignment, InstanceStatus } from "../model/instance.ts";
import { applyDelta } from "../model/mesh-delta.ts";
import type { FeedMessage, MeshConfig, ProxyReport } from "../model/mesh.ts";
import { createControl, type Control } from "./control.ts";
import { EmbeddedRegistry } from "./registry/embedded.ts";
import { controlSettings } from "./settings.ts";

/** For tests of control: a whole control on a clock wound by hand, and stand-ins for executors and proxies. */

export const ADMIN = "admin-token-for-tests";
export const HOST = "host-token-for-tests";

export const SHOP = `formation: shop
processes:
  web:
    source: ./web
    port: 8080
    instances: 2
    edge: [shop.localhost]
    environment: { LOG_LEVEL: info }
    dependencies: { api: 7001, db: 5432 }
  api:
    source: ./api
    port: 8081
auxiliary:
  db: { gear: postgres, volume: shop-db }
exports: [api]
`;

export class TestBed {
  readonly state = mkdtempSync(join(tmpdir(), "control-"));
  readonly clock = new ManualClock();
  control!: Control;

  /** Opens a control on this bed's state; the one before must be closed or killed. */
  async start(failpoint?: (step: string) => void): Promise<Control> {
    const settings = readSettings("control", controlSettings, {
      GILLIAM_STATE: this.state,
      GILLIAM_CONTROL_PORT: "0",
      GILLIAM_LOG_LEVEL: "silent",
      GILLIAM_CONTROL_BODY_MAX: "64KiB",
      GILLIAM_CONTROL_BLOB_MAX: "64KiB",
      GILLIAM_CONTROL_STREAMS_MAX: "6",
    });
    const registry = new EmbeddedRegistry({ path: join(this.state, "registry.db"), clock: this.clock });
    this.control = await createControl({
      settings,
      registry,
      tokens: { admin: ADMIN, host: HOST },
      clock: this.clock,
      random: seededRandom(7),
      log: silentLog,
      version: "0.0.0-test",
      checkAnswers: true,
      ...(failpoint === undefined ? {} : { failpoint }),
    });
    return this.control;
  }

  /** As after kill -9: nothing is finished, only what the registry holds stays. */
  async kill(): Promise<void> {
    await this.control.parts.store.registry.close();
    await this.control.api.close();
  }

  async cleanUp(): Promise<void> {
    await this.control.close().catch(() => undefined);
    rmSync(this.state, { recursive: true, force: true });
  }

  /** A request as the admin, unless said otherwise. The answer's body is parsed when it is JSON. */
  async ask(
    method: "GET" | "POST" | "PUT" | "DELETE" | "HEAD",
    url: string,
    body?: unknown,
    token: string | null = ADMIN,
  ): Promise<{ status: number; body: unknown; type: string }> {
    const response = await this.control.api.inject({
      method,
      url,
      headers: token === null ? {} : { authorization: `Bearer ${token}` },
      ...(body === undefined ? {} : { payload: body as object }),
    });
    const type = response.headers["content-type"] ?? "";
    return {
      status: response.statusCode,
      body: type.includes("json") ? response.json<unknown>() : response.body,
      type,
    };
  }

  /** What a GET answers, which must be of this type. */
  async read<T>(answer: z.ZodType<T>, url: string): Promise<T> {
    return answer.parse((await this.ask("GET", url)).body);
  }

  async post<T>(answer: z.ZodType<T>, url: string, body?: unknown): Promise<T> {
    return answer.parse((await this.ask("POST", url, body)).body);
  }

  async putBlob(content: string): Promise<string> {
    const digest = digestOf(content);
    await this.control.api.inject({
      method: "PUT",
      url: `/v1/blobs/${digest}`,
      headers: { authorization: `Bearer ${ADMIN}`, "content-type": "application/octet-stream" },
      payload: Buffer.from(content),
    });
    return digest;
  }

  /** Deploys `manifest` with one archive for each process that has a source. */
  async deploy(manifest = SHOP, { mode = "deploy", version = "1" } = {}) {
    const formation = /^formation: (.*)$/m.exec(manifest)?.[1] ?? "";
    const names = [...manifest.matchAll(/source: \.\/(\w+)/g)].map(([, name = ""]) => name);
    const sources: Record<string, string> = {};
    for (const name of names) sources[name] = await this.putBlob(`${name} ${version}`);
    return this.ask("POST", `/v1/formations/${formation}/releases`, {
      manifest,
      file: "gilliam.yaml",
      sources,
      mode,
    });
  }
}

export function digestOf(content: string): string {
  return `sha256:${createHash("sha256").update(content).digest("hex")}`;
}

/** Does at once what it is told, and reports it when asked to. */
export class FakeExecutor {
  readonly hostId: string;
  readonly #bed: TestBed;
  readonly statuses = new Map<string, InstanceStatus>();
  readonly stopped: string[] = [];
  list: readonly Assignment[] = [];
  builds: HostReport["builds"] = [];
  #ports = 20_000;
  /** Instances that never become ready. */
  broken = (_assignment: Assignment) => false;
  url = "http://127.0.0.1:1";
  connection: Disposable | undefined;

  constructor(bed: TestBed, hostId = "h1") {
    this.#bed = bed;
    this.hostId = hostId;
  }

  connect(): void {
    const { assignments } = this.#bed.control.parts;
    this.connection = assignments.connect(this.hostId, (message) => this.#take(message));
  }

  #take(message: AssignmentsMessage): void {
    if (message.kind === "alive") return;
    this.list = message.instances;
    this.builds = message.builds.map(({ image }) => ({
      image,
      state: "ready",
      explanation: "a test",
      reason: "",
      lastLines: [],
    }));
    const named = new Set(message.instances.map(({ instanceId }) => instanceId));
    for (const assignment of message.instances) this.#converge(assignment);
    for (const [id, { phase, boot }] of this.statuses) {
      if (!named.has(id) && phase === "stopped" && boot === undefined) this.statuses.delete(id);
    }
  }

  #converge(assignment: Assignment): void {
    const { instanceId, want } = assignment;
    const known = this.statuses.get(instanceId);
    if (want === "stop") {
      if (known !== undefined && known.phase !== "stopped") this.stopped.push(instanceId);
      this.statuses.set(instanceId, statusOf(instanceId, "stopped", known?.address));
    } else if (known === undefined) {
      const address = { host: "10.64.0.2", port: this.#ports++ };
      this.statuses.set(
        instanceId,
        statusOf(instanceId, this.broken(assignment) ? "starting" : "ready", address),
      );
    }
  }

  async report(): Promise<void> {
    const report: HostReport = {
      hostId: this.hostId,
      executorUrl: this.url,
      metricsUrl: "http://127.0.0.1:1/metrics",
      driver: "process",
      network: "namespace",
      capacity: { cpu: 8, memoryBytes: 8e9 },
      labels: {},
      instances: [...this.statuses.values()],
      builds: this.builds,
    };
    const answer = await this.#bed.ask("POST", `/v1/hosts/${this.hostId}/status`, report, HOST);
    if (answer.status !== 204) throw new Error(`the report was refused: ${JSON.stringify(answer.body)}`);
  }
}

export function statusOf(
  instanceId: string,
  phase: InstanceStatus["phase"],
  address?: InstanceStatus["address"],
): InstanceStatus {
  return { instanceId, phase, reason: "", restarts: 0, lastLines: [], ...(address ? { address } : {}) };
}

/** Applies what it is fed and says so when asked to. */
export class FakeProxy {
  readonly id: string;
  readonly kind: "edge" | "sidecar";
  readonly #bed: TestBed;
  config: MeshConfig | undefined;
  busy: Record<string, number> = {};
  messages: FeedMessage[] = [];
  connection: Disposable | undefined;
  refuses: string | undefined;
  readonly epochs: number[] = [];
  #refused: ProxyReport["refused"];

  constructor(bed: TestBed, id: string, kind: "edge" | "sidecar") {
    this.#bed = bed;
    this.id = id;
    this.kind = kind;
  }

  connect(): void {
    const { hub } = this.#bed.control.parts;
    const proxy = { id: this.id, kind: this.kind, hostId: "h1", epoch: this.config?.epoch ?? 0 };
    this.connection = hub.connect(proxy, (message) => this.#take(message));
  }

  #take(message: FeedMessage): void {
    this.messages.push(message);
    if (message.kind === "alive") return;
    const epoch = message.kind === "config" ? message.config.epoch : message.delta.epoch;
    if (this.refuses !== undefined) {
      this.#refused = { epoch, reason: this.refuses };
      return;
    }
    if (message.kind === "config") this.config = message.config;
    else this.config = this.config && (applyDelta(this.config, message.delta) ?? this.config);
    this.epochs.push(this.config?.epoch ?? 0);
  }

  async report(): Promise<void> {
    const report: ProxyReport = {
      kind: this.kind,
      hostId: "h1",
      bootId: "b1",
      epoch: this.config?.epoch ?? 0,
      busy: this.busy,
      ejected: {},
      traffic: [],
      metricsUrl: "http://127.0.0.1:2/metrics",
      ...(this.#refused === undefined ? {} : { refused: this.#refused }),
    };
    const answer = await this.#bed.ask("POST", `/v1/feed/${this.id}/report`, report, HOST);
    if (answer.status !== 204) throw new Error(`the report was refused: ${JSON.stringify(answer.body)}`);
  }

  /** Ids of the endpoints of a cluster, sorted. */
  endpoints(cluster: string): string[] {
    const found = this.config?.clusters.find(({ name }) => name === cluster);
    return (found?.endpoints ?? []).map(({ id }) => id).sort();
  }
}

/** One host with an edge and a sidecar, all connected; `settle` lets everything happen that is due. */
export class FakeHost {
  readonly bed: TestBed;
  readonly executor: FakeExecutor;
  readonly edge: FakeProxy;
  readonly sidecar: FakeProxy;

  constructor(bed: TestBed) {
    this.bed = bed;
    this.executor = new FakeExecutor(bed);
    this.edge = new FakeProxy(bed, "edge-1", "edge");
    this.sidecar = new FakeProxy(bed, "sidecar-1", "sidecar");
  }

  async connect(): Promise<void> {
    await this.executor.report();
    this.executor.connect();
    await this.edge.report();
    await this.sidecar.report();
    this.edge.connect();
    this.sidecar.connect();
  }

  /** Winds the clock second by second; in each, everybody reports and control looks. */
  async settle(seconds = 12): Promise<void> {
    for (let second = 0; second < seconds; second++) {
      await this.executor.report();
      await this.edge.report();
      await this.sidecar.report();
      await this.bed.control.parts.controller.poke();
      await this.bed.clock.advance(1_000);
    }
  }
}
