import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../base/clock.ts";
import type { ApiRouteName } from "../../model/api-routes.ts";
import { runCommandLine } from "../program.ts";
import type { Sink } from "../shell.ts";
import { FakeControl, type FakeCall } from "./fake-control.ts";
import { formation, GRAPH, HOSTS, instance, plan, platform, RELEASES, ROUTES } from "./samples.ts";

export const GILLIAM = fileURLToPath(new URL("../gilliam", import.meta.url));

export const MANIFEST = `formation: shop
processes:
  web: { source: ./web, port: 8080, edge: [shop.localhost] }
`;

export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Record<string, string | undefined>;
  readonly cwd?: string;
  readonly stdin?: string;
}

/** A folder with a formation, a stand-in for control that is content with everything, and the command line. */
export class Bench implements AsyncDisposable {
  readonly control: FakeControl;
  /** Holds nothing but `folder`; a home that is not a formation. */
  readonly home: string;
  /** Holds gilliam.yaml and web/. */
  readonly folder: string;
  readonly #searchPath: string;

  private constructor(control: FakeControl, searchPath: string) {
    this.control = control;
    this.#searchPath = searchPath;
    this.home = mkdtempSync(join(tmpdir(), "gilliam-cli-test-"));
    this.folder = join(this.home, "shop");
    mkdirSync(join(this.folder, "web"), { recursive: true });
    writeFileSync(join(this.folder, "gilliam.yaml"), MANIFEST);
    writeFileSync(join(this.folder, "web/server.js"), "console.log('hello')\n");
  }

  static async start(searchPath = ""): Promise<Bench> {
    return new Bench(await FakeControl.start({ ...CONTENT }), searchPath);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    rmSync(this.home, { recursive: true, force: true });
    await this.control[Symbol.asyncDispose]();
  }

  called(route: ApiRouteName): FakeCall[] {
    return this.control.calls.filter((call) => call.route === route);
  }

  /** The command line within this process: everything but main.ts and the launcher. */
  async gilliam(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    const { env, cwd = this.folder, stdin = "" } = options;
    const written = { stdout: "", stderr: "" };
    const sink = (name: keyof typeof written): Sink => ({
      write: (text) => void (written[name] += text),
      isTerminal: false,
      columns: () => Infinity,
      color: false,
    });
    const code = await runCommandLine(args, {
      env: this.#environment(env),
      cwd,
      uid: 1000,
      clock: systemClock,
      stdout: sink("stdout"),
      stderr: sink("stderr"),
      readStdin: () => Promise.resolve(Buffer.from(stdin)),
      confirm: () => Promise.resolve(undefined),
      signal: new AbortController().signal,
    });
    return { code, ...written };
  }

  /** The real command, as a process of its own. */
  command(args: readonly string[], options: RunOptions & { binary?: string } = {}): Promise<Result> {
    const { env, cwd = this.folder, stdin = "", binary = GILLIAM } = options;
    return new Promise((resolve) => {
      const settings = { env: this.#environment(env), cwd, timeout: 50_000 };
      const child = execFile(binary, [...args], settings, (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
        resolve({ code, stdout, stderr });
      });
      child.stdin?.end(stdin);
    });
  }

  #environment(change: RunOptions["env"]): Record<string, string | undefined> {
    const { url, token } = this.control;
    return { PATH: this.#searchPath, HOME: this.home, GILLIAM_URL: url, GILLIAM_TOKEN: token, ...change };
  }
}

const CONTENT: FakeControl["handlers"] = {
  status: () => ({ value: platform() }),
  formations: () => ({ value: [formation()] }),
  formation: () => ({ value: formation() }),
  instances: () => ({ value: [instance()] }),
  releases: () => ({ value: RELEASES }),
  routes: () => ({ value: ROUTES }),
  hosts: () => ({ value: HOSTS }),
  graph: () => ({ value: GRAPH }),
  plan: () => ({ value: plan() }),
  deploy: () => ({ value: { formation: "shop", release: 5, created: true, plan: plan() } }),
  up: () => ({ value: formation() }),
  down: () => ({ value: formation() }),
  scale: () => ({ value: formation() }),
  pause: () => ({ value: formation() }),
  canary: () => ({ value: formation() }),
  promote: () => ({ value: formation() }),
  rollback: () => ({ value: formation({ current: 3 }) }),
  drain: () => ({ value: HOSTS[0] }),
  env: ({ query }) => ({
    value: {
      service: "web",
      release: 4,
      variables: [
        {
          name: "DB_URL",
          value: query["reveal"] === "true" ? "postgres://u:hunter2@h" : "(hidden)",
          secret: true,
          from: "dependency db",
        },
        { name: "PORT", value: "8080", secret: false, from: "port" },
      ],
    },
  }),
};
