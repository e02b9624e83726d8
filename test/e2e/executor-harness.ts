import { spawn, type ChildProcess } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import type { BootManifest } from "../../model/boot.ts";
import { HostReport, type AssignmentsMessage, type BuildOrder } from "../../model/host.ts";
import type { Assignment, InstanceStatus } from "../../model/instance.ts";
import { LocalPortsRequest } from "../../model/local-ports.ts";
import { RunSpec } from "../../model/run-spec.ts";

const TOKEN = "host-token-of-the-test";

/** A real executor in a process of its own, with a control and a sidecar played by this process. */
export class ExecutorHarness implements AsyncDisposable {
  readonly folder: string;
  readonly #network: "namespace" | "shared";
  readonly #control: http.Server;
  readonly #sidecar: http.Server;
  readonly #streams = new Set<http.ServerResponse>();
  readonly #openPorts = new Map<string, LocalPortsRequest>();
  readonly #blobs = new Map<string, Buffer>();
  #controlUrl = "";
  #child: ChildProcess | undefined;
  #ended: Promise<number | null> = Promise.resolve(null);
  #revision = 0;
  #message: AssignmentsMessage & { kind: "assignments" } = {
    kind: "assignments",
    revision: 0,
    instances: [],
    builds: [],
    keepImages: [],
  };
  /** The last report; empty before the first. */
  reports: HostReport[] = [];
  output = "";

  private constructor(network: "namespace" | "shared") {
    this.#network = network;
    this.folder = mkdtempSync(join(tmpdir(), "executor-"));
    chmodSync(this.folder, 0o711);
    writeFileSync(join(this.folder, "host-token"), TOKEN, { mode: 0o600 });
    this.#control = http.createServer((request, response) => void this.#answerControl(request, response));
    this.#sidecar = http.createServer((request, response) => void this.#answerSidecar(request, response));
  }

  static async open(network: "namespace" | "shared", boot?: BootManifest): Promise<ExecutorHarness> {
    const harness = new ExecutorHarness(network);
    await harness.startControl();
    if (boot !== undefined) harness.writeBoot(boot);
    return harness;
  }

  writeBoot(boot: BootManifest): void {
    writeFileSync(join(this.folder, "boot.json"), JSON.stringify(boot));
  }

  async startControl(): Promise<void> {
    const port = this.#controlUrl === "" ? 0 : Number(new URL(this.#controlUrl).port);
    await new Promise<void>((resolve) => this.#control.listen(port, "127.0.0.1", resolve));
    this.#controlUrl = `http://127.0.0.1:${(this.#control.address() as AddressInfo).port}`;
  }

  async stopControl(): Promise<void> {
    this.#control.closeAllConnections();
    await new Promise((resolve) => this.#control.close(resolve));
    this.reports = [];
  }

  async startSidecar(): Promise<void> {
    const folder = join(this.folder, "run");
    mkdirSync(folder, { recursive: true });
    await new Promise<void>((resolve) => this.#sidecar.listen(join(folder, "sidecar.sock"), resolve));
  }

  get openPorts(): ReadonlyMap<string, LocalPortsRequest> {
    return this.#openPorts;
  }

  forgetOpenPorts(): void {
    this.#openPorts.clear();
  }

  addBlob(digest: string, bytes: Buffer): void {
    this.#blobs.set(digest, bytes);
  }

  startExecutor(environment: Record<string, string> = {}): void {
    const main = join(import.meta.dirname, "../../executor/main.ts");
    const child = spawn(process.execPath, [main], {
      env: {
        PATH: process.env["PATH"],
        GILLIAM_STATE: this.folder,
        GILLIAM_HOST_ID: "host-1",
        GILLIAM_CONTROL_URL: this.#controlUrl,
        GILLIAM_EXECUTOR_PORT: "0",
        GILLIAM_NETWORK: this.#network,
        GILLIAM_CHECK_STARTING: "100ms",
        GILLIAM_CHECK_READY: "200ms",
        ...environment,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.stdout.on("data", (bytes: Buffer) => (this.output += bytes.toString()));
    child.stderr.on("data", (bytes: Buffer) => (this.output += bytes.toString()));
    this.#ended = new Promise((resolve) => {
      child.on("exit", (code) => resolve(code));
    });
    this.#child = child;
  }

  get executorPid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Resolves with the executor's exit code; null after a signal. */
  get executorEnded(): Promise<number | null> {
    return this.#ended;
  }

  async killExecutor(signal: NodeJS.Signals = "SIGKILL"): Promise<number | null> {
    this.#child?.kill(signal);
    const code = await this.#ended;
    this.reports = [];
    return code;
  }

  assign(
    instances: readonly Assignment[],
    orders: { builds?: BuildOrder[]; keepImages?: string[] } = {},
  ): void {
    this.#revision += 1;
    this.#message = {
      kind: "assignments",
      revision: this.#revision,
      instances: [...instances],
      builds: orders.builds ?? [],
      keepImages: orders.keepImages ?? [],
    };
    for (const stream of this.#streams) stream.write(`${JSON.stringify(this.#message)}\n`);
  }

  status(instanceId: string): InstanceStatus | undefined {
    return this.reports.at(-1)?.instances.find((status) => status.instanceId === instanceId);
  }

  /** Waits until the last report says so of the instance; returns that status. */
  async until(
    instanceId: string,
    condition: (status: InstanceStatus) => boolean,
    timeoutMs = 15_000,
  ): Promise<InstanceStatus> {
    let last: InstanceStatus | undefined;
    await expect
      .poll(
        () => {
          last = this.status(instanceId);
          return last !== undefined && condition(last);
        },
        {
          timeout: timeoutMs,
          interval: 20,
          message: () => `${JSON.stringify(last)}\n${this.output}`,
        } as never,
      )
      .toBe(true);
    return last as InstanceStatus;
  }

  async request(method: string, path: string, body?: unknown): Promise<{ status: number; text: string }> {
    await expect.poll(() => this.reports.length, { timeout: 15_000 }).toBeGreaterThan(0);
    const response = await fetch(`${this.reports.at(-1)?.executorUrl}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${TOKEN}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, text: await response.text() };
  }

  async lines<T>(method: string, path: string, body?: unknown): Promise<T[]> {
    const { text } = await this.request(method, path, body);
    return text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as T);
  }

  /** Stops everything the executor runs, then the rest, whatever state the test left it in. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child?.exitCode !== null || this.#child.signalCode !== null) this.startExecutor();
    if (!this.#control.listening) await this.startControl();
    this.reports = [];
    await this.request("POST", "/v1/shutdown");
    await this.#ended;
    this.#control.closeAllConnections();
    this.#control.close();
    this.#sidecar.closeAllConnections();
    this.#sidecar.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #answerControl(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    if (request.headers.authorization !== `Bearer ${TOKEN}`) {
      response.writeHead(401).end();
    } else if (request.url === "/v1/hosts/host-1/assignments") {
      response.writeHead(200, { "content-type": "application/x-ndjson" });
      response.write(`${JSON.stringify(this.#message)}\n`);
      this.#streams.add(response);
      response.on("close", () => this.#streams.delete(response));
    } else if (request.url === "/v1/hosts/host-1/status") {
      this.reports.push(HostReport.parse(JSON.parse(await readAll(request))));
      response.writeHead(204).end();
    } else {
      const blob = this.#blobs.get(decodeURIComponent(request.url?.replace("/v1/blobs/", "") ?? ""));
      response.writeHead(blob === undefined ? 404 : 200).end(blob);
    }
  }

  async #answerSidecar(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const id = request.url?.replace("/v1/instances/", "") ?? "";
    if (request.method === "PUT") {
      const wanted = LocalPortsRequest.parse(JSON.parse(await readAll(request)));
      this.#openPorts.set(id, wanted);
      const ports = wanted.ports.map(({ dependency, port }) => ({ dependency, port, host: "127.0.0.1" }));
      response.end(JSON.stringify({ instanceId: id, ports }));
    } else if (request.method === "DELETE") {
      response.writeHead(this.#openPorts.delete(id) ? 204 : 404).end();
    } else {
      response.end(JSON.stringify([...this.#openPorts.keys()].map((instanceId) => ({ instanceId }))));
    }
  }
}

/** A spec with everything optional left out; `platform` is the image because it is always there. */
export function makeSpec(overrides: Partial<RunSpec> & { command: string }): RunSpec {
  return RunSpec.parse({
    formation: "shop",
    service: "web",
    release: 1,
    image: { kind: "platform" },
    protocol: "http",
    health: { kind: "none" },
    resources: {},
    environment: {},
    secrets: {},
    dependencies: [],
    stop: { signal: "SIGTERM", graceMs: 2_000 },
    ...overrides,
  });
}

/** A web server in one line of shell: answers every request with 200 and its environment as JSON. */
export const WEB_COMMAND = `exec node -e '
  const http = require("http");
  console.log("listening on " + process.env.HOST + ":" + process.env.PORT);
  http.createServer((q, r) => r.end(JSON.stringify(process.env))).listen(process.env.PORT, process.env.HOST);'`;

export function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function readAll(request: http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}
