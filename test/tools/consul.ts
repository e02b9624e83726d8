import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** A real Consul for tests: one server or three, on free ports of 127.0.0.1, removed with all its data by `stop`. */

/** Where `test/run` and the tests keep the binary. */
export function consulFolder(): string {
  return join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "gilliam/consul");
}

/** Fetches it when it is not there yet. */
export function consulBinary(): string {
  const script = join(import.meta.dirname, "consul.sh");
  return execFileSync("sh", [script, consulFolder()], { encoding: "utf8" }).trim();
}

export const ROOT_TOKEN = "b1a7e5f0-0000-4000-8000-00000000aaaa";

interface Ports {
  readonly http: number;
  readonly dns: number;
  readonly server: number;
  readonly serf: number;
}

/** One agent in server mode. */
export class ConsulServer {
  readonly name: string;
  readonly url: string;
  readonly ports: Ports;
  readonly #folder: string;
  readonly #config: string;
  #child: ChildProcess | undefined;

  constructor(folder: string, name: string, ports: Ports, config: object) {
    this.name = name;
    this.ports = ports;
    this.url = `http://127.0.0.1:${ports.http}`;
    this.#folder = join(folder, name);
    this.#config = join(folder, `${name}.json`);
    mkdirSync(this.#folder);
    writeFileSync(this.#config, JSON.stringify({ ...config, node_name: name, data_dir: this.#folder }));
  }

  start(binary: string): void {
    const child = spawn(binary, ["agent", "-config-file", this.#config], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const lines: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => lines.push(text));
    }
    child.on("exit", () => {
      this.#child = undefined;
    });
    this.#child = child;
    this.log = () => lines.join("");
  }

  /** What it has said since its last start. */
  log: () => string = () => "";

  get runs(): boolean {
    return this.#child !== undefined;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** kill -9; resolves when it is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  /** Its data, as if its disk had been replaced; only while it does not run. */
  wipe(): void {
    rmSync(this.#folder, { recursive: true, force: true });
    mkdirSync(this.#folder);
  }

  /** A call with all rights. */
  async ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await fetch(`${this.url}/v1${path}`, {
      method,
      headers: { "x-consul-token": ROOT_TOKEN },
      ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
      signal: AbortSignal.timeout(15_000),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path} got ${answer.status}: ${text}`);
    return (text === "" ? undefined : JSON.parse(text)) as T;
  }
}

export interface ConsulOptions {
  readonly servers?: 1 | 3;
  /** Access control with nothing allowed by default. */
  readonly acl?: boolean;
}

export class ConsulCluster {
  readonly servers: readonly ConsulServer[];
  readonly #folder: string;
  readonly #binary: string;

  private constructor(folder: string, binary: string, servers: readonly ConsulServer[]) {
    this.#folder = folder;
    this.#binary = binary;
    this.servers = servers;
  }

  /** Resolves when it has a leader and takes writes. */
  static async start({ servers: count = 1, acl = false }: ConsulOptions = {}): Promise<ConsulCluster> {
    const binary = consulBinary();
    const folder = mkdtempSync(join(tmpdir(), "gilliam-consul-"));
    const ports = await freePorts(count);
    const servers = ports.map((own, at) => {
      const config = { ...CONFIG, ...(acl ? ACL : {}), ...listening(own), bootstrap_expect: count };
      const others = ports.filter((other) => other !== own).map(({ serf }) => `127.0.0.1:${serf}`);
      return new ConsulServer(folder, `server-${at + 1}`, own, { ...config, retry_join: others });
    });
    const cluster = new ConsulCluster(folder, binary, servers);
    try {
      for (const server of servers) server.start(binary);
      await cluster.ready();
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  get first(): ConsulServer {
    return this.servers[0]!;
  }

  get url(): string {
    return this.first.url;
  }

  get running(): ConsulServer[] {
    return this.servers.filter(({ runs }) => runs);
  }

  /** Waits until every server that runs answers writes through a leader. */
  async ready(timeoutMs = 30_000): Promise<void> {
    const key = `/kv/test-ready/${randomUUID()}`;
    const deadlineMs = performance.now() + timeoutMs;
    for (const server of this.running) {
      for (;;) {
        try {
          await server.ask("PUT", key, "1");
          await server.ask("DELETE", key);
          break;
        } catch (error) {
          if (performance.now() > deadlineMs)
            throw new Error(`Consul is not ready:\n${server.log()}`, { cause: error });
          await sleep(50);
        }
      }
    }
  }

  async leader(): Promise<ConsulServer> {
    for (const server of this.running) {
      const address = await server.ask<string>("GET", "/status/leader").catch(() => "");
      const leader = this.servers.find(({ ports }) => address.endsWith(`:${ports.server}`));
      if (leader !== undefined) return leader;
    }
    throw new Error("Consul has no leader");
  }

  start(server: ConsulServer): void {
    server.start(this.#binary);
  }

  /** A token with exactly these rules. */
  async token(
    rules: string,
  ): Promise<{ secret: string; revoke: () => Promise<void>; setRules: (rules: string) => Promise<void> }> {
    const name = `policy-${randomUUID()}`;
    const policy = await this.first.ask<{ ID: string }>("PUT", "/acl/policy", { Name: name, Rules: rules });
    const made = await this.first.ask<{ SecretID: string; AccessorID: string }>("PUT", "/acl/token", {
      Policies: [{ ID: policy.ID }],
    });
    return {
      secret: made.SecretID,
      revoke: () => this.first.ask("DELETE", `/acl/token/${made.AccessorID}`),
      setRules: (changed) =>
        this.first.ask("PUT", `/acl/policy/${policy.ID}`, { ID: policy.ID, Name: name, Rules: changed }),
    };
  }

  /** What may be done without a token: DNS has none. */
  async allowAnonymous(rules: string): Promise<void> {
    const policy = await this.first.ask<{ ID: string }>("PUT", "/acl/policy", {
      Name: `anonymous-${randomUUID()}`,
      Rules: rules,
    });
    await this.first.ask("PUT", "/acl/token/00000000-0000-0000-0000-000000000002", {
      Policies: [{ ID: policy.ID }],
    });
  }

  async stop(): Promise<void> {
    for (const server of this.servers) {
      server.signal("SIGCONT");
      await server.kill();
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

const CONFIG = {
  server: true,
  datacenter: "dc1",
  log_level: "WARN",
  disable_update_check: true,
  connect: { enabled: false },
  session_ttl_min: "500ms", // 10 s where nobody says otherwise; tests need not wait that long.
  performance: { raft_multiplier: 1 },
  limits: { http_max_conns_per_client: 1000 },
  // Finding a dead server takes seconds with the standard values.
  gossip_lan: { probe_interval: "200ms", probe_timeout: "100ms", suspicion_mult: 2 },
};

const ACL = {
  acl: {
    enabled: true,
    default_policy: "deny",
    token_ttl: "0s", // A revoked token counts at once.
    policy_ttl: "0s",
    role_ttl: "0s",
    tokens: { master: ROOT_TOKEN, agent: ROOT_TOKEN },
  },
};

function listening({ http, dns, server, serf }: Ports): object {
  return {
    bind_addr: "127.0.0.1",
    client_addr: "127.0.0.1",
    ports: { http, dns, server, serf_lan: serf, serf_wan: -1, grpc: -1 },
  };
}

/** Held together while they are chosen, so that no two are the same. */
async function freePorts(count: number): Promise<Ports[]> {
  const held = await Promise.all(
    Array.from({ length: count * 4 }, () => {
      const socket = createServer();
      return new Promise<typeof socket>((resolve, reject) => {
        socket.once("error", reject);
        socket.listen(0, "127.0.0.1", () => resolve(socket));
      });
    }),
  );
  const ports = held.map((socket) => (socket.address() as { port: number }).port);
  await Promise.all(held.map((socket) => new Promise((resolve) => socket.close(resolve))));
  return Array.from({ length: count }, (_, at) => {
    const [http = 0, dns = 0, server = 0, serf = 0] = ports.slice(at * 4, at * 4 + 4);
    return { http, dns, server, serf };
  });
}
