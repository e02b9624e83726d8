import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isOnPath } from "../../../bootstrap/packages.ts";

/** Other people's proxies as second and third opinion on what a client's bytes mean. */

/** What an application behind a proxy was told. */
export interface Told {
  readonly method: string;
  /** Path and query; an absolute target without its scheme and authority. */
  readonly target: string;
  /** Latin-1. */
  readonly body: string;
}

/** What one proxy made of one connection's bytes. */
export interface Reading {
  /** Whole requests, in the order in which they arrived. */
  readonly told: readonly Told[];
  /** What a strict server did not take, by its codes: what came there was no sound request. */
  readonly unsound: readonly string[];
  /** What the client got, as Latin-1. */
  readonly answers: string;
}

/** Node's parser knows a list of methods, and notes that a connection ended in a message. */
const KNOWS_LESS = new Set(["HPE_INVALID_METHOD", "HPE_INVALID_EOF_STATE"]);

/** A server that speaks strict HTTP and remembers what it was told since it was last asked. */
export class Recorder implements AsyncDisposable {
  readonly #server: http.Server;
  #told: Told[] = [];
  #unsound: string[] = [];

  static async listen(where: string | number): Promise<Recorder> {
    const recorder = new Recorder();
    const server = recorder.#server;
    await new Promise<void>((resolve) => {
      if (typeof where === "string") server.listen(where, resolve);
      else server.listen(where, "127.0.0.1", resolve);
    });
    return recorder;
  }

  private constructor() {
    this.#server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
      let body = "";
      request.setEncoding("latin1").on("data", (text: string) => (body += text));
      request.on("end", () => {
        this.#told.push({ method: request.method ?? "", target: pathOf(request.url ?? ""), body });
        response.setHeader("content-length", 2);
        response.end("ok");
      });
      request.on("error", () => undefined); // Broke off: the proxy found something wrong in the rest.
    });
    this.#server.on("connect", (request: http.IncomingMessage, socket: net.Socket) => {
      this.#told.push({ method: "CONNECT", target: request.url ?? "", body: "" });
      socket.end("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    });
    this.#server.on("clientError", (error: NodeJS.ErrnoException, socket: net.Socket) => {
      if (error.code?.startsWith("HPE_") && !KNOWS_LESS.has(error.code)) this.#unsound.push(error.code);
      socket.destroy();
    });
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  take(): Omit<Reading, "answers"> {
    const taken = { told: this.#told, unsound: this.#unsound };
    this.#told = [];
    this.#unsound = [];
    return taken;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function pathOf(target: string): string {
  const path = target.replace(/^https?:\/\/[^/?]*/i, "");
  return path.startsWith("/") || path === "*" ? path : `/${path}`;
}

/** Sends `bytes`, ends its direction, and returns what came back until the other side closed. */
export function converse(to: net.NetConnectOpts, bytes: Buffer): Promise<string> {
  return new Promise((resolve) => {
    let answers = "";
    const socket = net.connect({ ...to, allowHalfOpen: true });
    socket.setEncoding("latin1").on("data", (text: string) => (answers += text));
    socket.on("end", () => socket.end());
    socket.on("error", () => undefined); // A refusal may come as a reset; the answers so far count.
    socket.on("close", () => resolve(answers));
    socket.end(bytes);
  });
}

/** One proxy with a recorder behind it, used by one conversation at a time. */
export class Lane {
  readonly #to: net.NetConnectOpts;
  readonly #recorder: Recorder;
  constructor(to: net.NetConnectOpts, recorder: Recorder) {
    this.#to = to;
    this.#recorder = recorder;
  }
  async read(bytes: Buffer): Promise<Reading> {
    const answers = await converse(this.#to, bytes);
    return { ...this.#recorder.take(), answers };
  }
}

/** `lanes` independent ways through each of the foreign proxies, on Unix sockets, so that no port is taken. */
export class Oracles implements AsyncDisposable {
  readonly nginx: readonly net.NetConnectOpts[];
  readonly haproxy: readonly net.NetConnectOpts[];
  readonly #folder: string;
  readonly #children: ChildProcess[] = [];

  /** Listens for the proxies with `upstream` first: they are told where it will be. */
  static async start(
    lanes: number,
    upstream: (where: string, proxy: "nginx" | "haproxy", lane: number) => Promise<void>,
  ): Promise<Oracles> {
    const folder = mkdtempSync(join(tmpdir(), "gilliam-oracles-"));
    for (let lane = 0; lane < lanes; lane += 1) {
      await upstream(join(folder, `n${lane}.up`), "nginx", lane);
      await upstream(join(folder, `h${lane}.up`), "haproxy", lane);
    }
    const oracles = new Oracles(folder, lanes);
    const nginx = oracles.#write("nginx.conf", nginxConfig(folder, lanes));
    await oracles.#run("nginx", ["-p", folder, "-c", nginx], oracles.nginx[0]!);
    const haproxy = oracles.#write("haproxy.cfg", haproxyConfig(folder, lanes));
    await oracles.#run("haproxy", ["-db", "-f", haproxy], oracles.haproxy[0]!);
    return oracles;
  }

  private constructor(folder: string, lanes: number) {
    this.#folder = folder;
    const paths = (name: string) =>
      Array.from({ length: lanes }, (_, lane) => ({ path: join(folder, `${name}${lane}.sock`) }));
    this.nginx = paths("n");
    this.haproxy = paths("h");
  }

  #write(name: string, text: string): string {
    const path = join(this.#folder, name);
    writeFileSync(path, text);
    return path;
  }

  /** Starts a proxy and waits until it accepts on its first lane. */
  async #run(program: string, args: readonly string[], first: net.NetConnectOpts): Promise<void> {
    const child = spawn(program, args, { env: { PATH: SYSTEM_PATH }, stdio: ["ignore", "pipe", "pipe"] });
    this.#children.push(child);
    let said = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (said += String(text)));
    const deadline = AbortSignal.timeout(20_000);
    while ((await converse(first, Buffer.from("?\r\n\r\n"))) === "") {
      if (deadline.aborted || child.exitCode !== null) throw new Error(`${program} did not start: ${said}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      const gone = new Promise((resolve) => child.once("close", resolve));
      if (child.exitCode === null) child.kill("SIGKILL");
      await gone;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Debian has both in folders for root. */
export const SYSTEM_PATH = `${process.env["PATH"]}:/usr/sbin:/usr/local/sbin`;
export const PRESENT = ["nginx", "haproxy"].every((program) => isOnPath(program, SYSTEM_PATH));

/** Bodies are buffered, which is the default: an application behind it sees whole requests. */
function nginxConfig(folder: string, lanes: number): string {
  const servers = Array.from(
    { length: lanes },
    (_, lane) => `
    server {
      listen unix:${folder}/n${lane}.sock;
      location / { proxy_pass http://unix:${folder}/n${lane}.up:; }
    }`,
  );
  return `
    daemon off; master_process off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr emerg;
    events { worker_connections 512; }
    http {
      access_log off;
      client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy;
      client_header_timeout 5s; client_body_timeout 5s; keepalive_timeout 5s; lingering_close off;
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_ignore_client_abort on; proxy_read_timeout 2s;${servers.join("")}
    }`;
}

function haproxyConfig(folder: string, lanes: number): string {
  const pairs = Array.from(
    { length: lanes },
    (_, lane) => `
listen lane${lane}
  bind unix@${folder}/h${lane}.sock
  server up unix@${folder}/h${lane}.up`,
  );
  return `
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
  timeout http-request 5s
${pairs.join("\n")}
`;
}
