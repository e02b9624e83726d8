import { execFile } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findLeftovers, isEmpty } from "../../bootstrap/leftovers.ts";
import { inspectState } from "../../bootstrap/state-folder.ts";
import { FormationView, InstanceView, PlatformView } from "../../model/api.ts";

/** A whole platform of its own for a test file: brought up through bootstrap/up, taken away even after a failure. */

export const ROOT = join(import.meta.dirname, "../..");
export const FREE_PORTS = ["edge", "control", "executor", "sidecar", "edge-admin"].map(
  (name) => `--${name}-port=0`,
);

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end; a failure is a result, not an error. Nothing of the test's own platform settings leaks in. */
export function run(
  program: string,
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; cwd?: string; timeoutMs?: number } = {},
): Promise<Ran> {
  const { GILLIAM_STATE: _state, GILLIAM_URL: _url, GILLIAM_TOKEN: _token, ...inherited } = process.env;
  const env = { ...inherited, NO_COLOR: "1", ...options.env };
  return new Promise((resolve) => {
    const child = execFile(
      program,
      [...args],
      { env, cwd: options.cwd ?? ROOT, timeout: options.timeoutMs ?? 240_000, maxBuffer: 64 * 1024 * 1024 },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
        resolve({ code, stdout, stderr });
      },
    );
    child.stdin?.end(); // Verbs that pass their standard input on would wait for its end.
  });
}

/** A new state folder that unprivileged users can get through to. */
export function newStateFolder(): string {
  const parent = mkdtempSync(join(tmpdir(), "gilliam-e2e-"));
  chmodSync(parent, 0o755);
  return join(parent, "state");
}

export function removeStateFolder(state: string): void {
  rmSync(dirname(state), { recursive: true, force: true });
}

export class Platform {
  readonly state: string;

  private constructor(state: string) {
    this.state = state;
  }

  /** @throws with everything that was said when it does not come up; nothing is left running then. */
  static async start(options: { formation?: string; flags?: readonly string[] } = {}): Promise<Platform> {
    const platform = new Platform(newStateFolder());
    const ran = await platform.up([
      "--formation",
      options.formation ?? "none",
      ...FREE_PORTS,
      ...(options.flags ?? []),
    ]);
    if (ran.code === 0) return platform;
    const log = platform.executorLog();
    await platform.remove();
    throw new Error(`bootstrap/up failed:\n${ran.stderr}\n${log}`);
  }

  up(flags: readonly string[] = ["--formation", "none"]): Promise<Ran> {
    return run(join(ROOT, "bootstrap/up"), ["--state", this.state, ...flags]);
  }

  down(flags: readonly string[] = []): Promise<Ran> {
    return run(join(ROOT, "bootstrap/down"), ["--state", this.state, ...flags]);
  }

  /** Down, checked for leftovers, and the folder deleted. */
  async remove(): Promise<void> {
    const ran = await this.down();
    const left = findLeftovers(this.state);
    removeStateFolder(this.state);
    if (ran.code !== 0 || !isEmpty(left)) {
      throw new Error(`bootstrap/down left something:\n${JSON.stringify(left, null, 2)}\n${ran.stderr}`);
    }
  }

  cli(...args: readonly string[]): Promise<Ran> {
    return run(join(ROOT, "cli/gilliam"), args, { env: { GILLIAM_STATE: this.state } });
  }

  /** Runs a verb that must succeed. */
  async mustCli(...args: readonly string[]): Promise<string> {
    const ran = await this.cli(...args);
    if (ran.code !== 0)
      throw new Error(`gilliam ${args.join(" ")} ended with ${ran.code}:\n${ran.stderr}${ran.stdout}`);
    return ran.stdout;
  }

  deploy(folder: string, ...flags: readonly string[]): Promise<string> {
    return this.mustCli("deploy", "--file", join(folder, "gilliam.yaml"), ...flags);
  }

  get addresses() {
    const { platform } = inspectState(this.state);
    if (platform === undefined) throw new Error(`there is no platform.json in ${this.state}`);
    return platform;
  }

  /** GET on control; undefined while it does not answer with 200. */
  async ask<T>(schema: { parse: (value: unknown) => T }, path: string): Promise<T | undefined> {
    const token = readFileSync(join(this.state, "token"), "utf8").trim();
    try {
      const answer = await fetch(`${this.addresses.controlUrl}${path}`, {
        headers: { authorization: `Bearer ${token}` },
        signal: AbortSignal.timeout(5_000),
      });
      return answer.status === 200 ? schema.parse(await answer.json()) : undefined;
    } catch (error) {
      if (error instanceof Error && error.name === "ZodError") throw error;
      return undefined;
    }
  }

  formation(name = "shop"): Promise<FormationView | undefined> {
    return this.ask(FormationView, `/v1/formations/${name}`);
  }

  async instances(service?: string, name = "shop"): Promise<InstanceView[]> {
    const all = await this.ask(
      { parse: (value) => InstanceView.array().parse(value) },
      `/v1/formations/${name}/instances`,
    );
    return (all ?? []).filter((instance) => service === undefined || instance.service === service);
  }

  status(): Promise<PlatformView | undefined> {
    return this.ask(PlatformView, "/v1/status");
  }

  /** Waits until every service is as wanted and every proxy has acknowledged it. */
  async settled(name = "shop", timeoutMs = 60_000): Promise<FormationView> {
    let view: FormationView | undefined;
    await until(`${name} to settle`, timeoutMs, async () => {
      view = await this.formation(name);
      return view?.settled === true;
    });
    return view as FormationView;
  }

  /** Process ids of programs started like `proxy/main.ts` or `server.py`, lowest first; their shells do not count. */
  pidsOf(script: string): number[] {
    return findLeftovers(this.state)
      .processes.filter(({ command }) => {
        const [program = "", ...rest] = command.split(" ");
        return !program.endsWith("sh") && rest.some((argument) => argument.endsWith(script));
      })
      .map(({ pid }) => pid)
      .toSorted((a, b) => a - b);
  }

  executorLog(): string {
    const path = join(this.state, "supervise/executor.log");
    return existsSync(path) ? readFileSync(path, "utf8").split("\n").slice(-40).join("\n") : "";
  }

  /** Places an order through the edge; says which instance and release of api took it. */
  async order(): Promise<{ key: string; servedBy: string }> {
    const order = JSON.stringify({ product: 2, quantity: 1 });
    const { status, body } = await this.#request(
      "POST",
      "/orders",
      { "content-type": "application/json" },
      order,
    );
    if (status !== 201) throw new Error(`an order got ${status}: ${body}`);
    return JSON.parse(body) as { key: string; servedBy: string };
  }

  /** One request to the shop, through the edge. */
  get(path: string, headers: Record<string, string> = {}): Promise<EdgeAnswer> {
    return this.#request("GET", path, headers);
  }

  #request(
    method: string,
    path: string,
    headers: Record<string, string>,
    body?: string,
  ): Promise<EdgeAnswer> {
    return requestEdge(this.addresses.edgeUrl, { method, path, headers, body });
  }
}

interface EdgeAnswer {
  readonly status: number;
  readonly body: string;
}

/** One request over a connection of its own, for shop.localhost. */
export function requestEdge(
  edgeUrl: string,
  options: {
    method?: string;
    path?: string;
    headers?: Record<string, string>;
    body?: string | undefined;
  } = {},
): Promise<EdgeAnswer> {
  const { method = "GET", path = "/", headers, body } = options;
  return new Promise((resolve, reject) => {
    const request = http.request(
      new URL(path, edgeUrl),
      { method, headers: { host: "shop.localhost", ...headers }, agent: false, timeout: 30_000 },
      (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (part: string) => (text += part));
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body: text }));
        response.on("error", reject);
      },
    );
    request.on("timeout", () => request.destroy(new Error("no answer within 30 s")));
    request.on("error", reject);
    request.end(body);
  });
}

/** Waits for a condition, and says what it waited for when it does not come. */
export async function until(
  what: string,
  timeoutMs: number,
  condition: () => Promise<boolean> | boolean,
): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    if (await condition()) return;
    if (performance.now() > deadlineMs) throw new Error(`waited ${timeoutMs / 1000} s in vain for ${what}`);
    await sleep(100);
  }
}

/**
 * How many times slower this machine is now than an idle one: promises in seconds are made for an idle one, and tests
 * run beside others. Measured by what it takes to start Node.js four times at once, some 110 ms on two idle cores.
 */
export async function slowness(): Promise<number> {
  const startMs = performance.now();
  await Promise.all(Array.from({ length: 4 }, () => run(process.execPath, ["--eval", "0"])));
  return Math.max(1, (performance.now() - startMs) / 110);
}

export function kill(pids: readonly number[], signal: NodeJS.Signals = "SIGKILL"): void {
  if (pids.length === 0) throw new Error("there is no such process to kill");
  for (const pid of pids) process.kill(pid, signal);
}
