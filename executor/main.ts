import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, copyFileSync, chownSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import { dirname, join, resolve } from "node:path";
import { systemClock } from "../base/clock.ts";
import { UserError, messageOf } from "../base/errors.ts";
import { createLog, type Log } from "../base/log.ts";
import { createMetrics } from "../base/metrics.ts";
import { systemRandom } from "../base/random.ts";
import { readSettings, type Settings } from "../base/settings.ts";
import { hostIdFrom } from "../model/names.ts";
import { Agent } from "./agent.ts";
import { createApi } from "./api.ts";
import { givePlatformItsFolders, readBootManifest } from "./boot.ts";
import { Builder } from "./builder/builder.ts";
import { buildEnvironment } from "../base/build-environment.ts";
import { ControlClient } from "./control-client.ts";
import type { Driver } from "./driver.ts";
import { DriverByImage } from "./drivers/by-image.ts";
import type { DockerOptions } from "./drivers/docker/open.ts";
import { ProcessDriver } from "./drivers/process/process-driver.ts";
import { BUILD_UID, PLATFORM_UID, checkReachable } from "./drivers/process/records.ts";
import { LocalPorts } from "./local-ports.ts";
import { Logs } from "./logs.ts";
import { Memory } from "./memory.ts";
import { registerMetrics } from "./metrics.ts";
import { policyFor } from "./policy.ts";
import type { RunnerParts } from "./runner.ts";
import { executorSettings } from "./settings.ts";

/** sysexits(3): wrong settings; starting again does not help. */
const EXIT_CONFIG = 78;
/** sysexits(3): another executor runs. */
const EXIT_TAKEN = 75;
/** Anything but 0, so that whoever supervises the executor starts it again. */
const EXIT_TERMINATED = 143;

type ExecutorSettings = Settings<typeof executorSettings>;

async function main(): Promise<void> {
  const settings = readSettings("executor", executorSettings, process.env);
  const log = createLog({ part: "executor", level: settings.logLevel });
  const state = resolve(settings.state);
  const socketPath = join(state, "run", "executor.sock");
  if (await answers(socketPath)) {
    throw new UserError(`Another executor runs on ${state} already`, {
      code: "executor_runs",
      next: "One state folder has one executor; nothing needs to be done.",
    });
  }
  const token = readToken(settings.hostTokenFile || join(state, "host-token"));
  const platformFolder = resolve(settings.platform || join(import.meta.dirname, ".."));
  const hostId = settings.hostId || hostIdFrom(os.hostname());
  const root = process.getuid?.() === 0;
  const boot = readBootManifest(settings.bootFile || join(state, "boot.json"));
  mkdirSync(join(state, "run"), { recursive: true, mode: 0o700 });
  if (root) {
    givePlatformItsFolders(state, PLATFORM_UID);
    for (const folder of [platformFolder, dirname(process.execPath)]) checkReachable(folder);
  }

  const clock = systemClock;
  const random = systemRandom;
  const processes = await ProcessDriver.open({ stateFolder: state, network: settings.network, clock, log });
  const docker =
    settings.driver === "docker"
      ? await loadDocker({
          stateFolder: state,
          socketPath: settings.dockerSocket,
          imageCache: settings.imageCache,
          path: process.env["PATH"] ?? "",
          clock,
          random,
          log,
        })
      : undefined;
  const driver: Driver =
    docker === undefined ? processes : new DriverByImage({ containers: docker.driver, processes });
  const control = new ControlClient({ url: settings.controlUrl, hostId, token, clock, random, log });
  const localPorts = new LocalPorts(join(state, "run", "sidecar.sock"));
  const logs = openLogs(settings, state, log);
  const images = openBuilder(settings, {
    state,
    platformFolder,
    hostId,
    control,
    setpriv: processes.hasSetpriv,
    docker,
    log,
  });
  const parts: RunnerParts = {
    driver,
    images,
    localPorts,
    logs,
    clock,
    random,
    log,
    hostId,
    nodeFolder: dirname(process.execPath),
    platformFolder,
    checkTimeoutMs: settings.checkTimeoutMs,
    policyFor: (spec, isBoot) => policyFor(spec, isBoot, settings),
  };
  const metrics = createMetrics("executor");
  const server = net.createServer();
  const port = await listen(server, settings.port);
  const agent = new Agent({
    parts,
    memory: new Memory(join(state, "executor")),
    control,
    localPorts,
    boot,
    labels: parseLabels(settings.labels),
    url: `http://127.0.0.1:${port}`,
    clock,
    log,
  });
  registerMetrics(metrics, { agent, driver, control });

  const end = (code: number) => {
    agent.close();
    images.close();
    logs.closeAll();
    driver.close();
    rmSync(socketPath, { force: true });
    // Lets the last answer leave and the log be written.
    setTimeout(() => process.exit(code), 100);
  };
  const api = createApi({ agent, parts, token, metrics, clock, log, onShutdown: () => end(0) });
  await api.ready();
  server.on("connection", (socket) => api.server.emit("connection", socket));
  rmSync(socketPath, { force: true });
  const local = net.createServer((socket) => api.server.emit("connection", socket));
  local.listen(socketPath);
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => end(EXIT_TERMINATED));
  log.info({ hostId, port, network: driver.network, state }, "executor runs");
  await agent.start();
}

/** The client of the Docker Engine is big: hosts without one do not load it. */
async function loadDocker(options: DockerOptions) {
  const { openDocker } = await import("./drivers/docker/open.ts");
  return openDocker(options);
}

function openLogs(settings: ExecutorSettings, state: string, log: Log): Logs {
  return new Logs({
    folder: join(state, "executor", "logs"),
    clock: systemClock,
    limits: { fileBytes: settings.logFileBytes, filesKept: settings.logFilesKept },
    goneKept: settings.logGoneKept,
    punch: punchHole,
    onError: (instanceId, error) =>
      log.error({ instanceId, reason: messageOf(error) }, "log cannot be written"),
  });
}

function openBuilder(
  settings: ExecutorSettings,
  found: {
    state: string;
    platformFolder: string;
    hostId: string;
    control: ControlClient;
    setpriv: boolean;
    docker: Awaited<ReturnType<typeof loadDocker>> | undefined;
    log: Log;
  },
): Builder {
  const root = process.getuid?.() === 0;
  const executorFolder = join(found.state, "executor");
  const builder = new Builder({
    executorFolder,
    platformFolder: found.platformFolder,
    nodeFolder: dirname(process.execPath),
    hostId: found.hostId,
    uid: root ? BUILD_UID : undefined,
    setpriv: found.setpriv,
    packer: found.docker?.packer,
    packed: found.docker?.packed,
    environment: buildEnvironment(process.env),
    limits: {
      bytesMax: settings.imageBytesMax,
      filesMax: settings.imageFilesMax,
      timeoutMs: settings.buildTimeoutMs,
      outputBytesMax: settings.buildOutputBytes,
    },
    fetchBlob: (digest, signal) => found.control.fetchBlob(digest, signal),
    clock: systemClock,
    random: systemRandom,
    log: found.log,
  });
  // Registries and their certificate authorities are often named only here.
  const npmrc = join(os.homedir(), ".npmrc");
  const copy = join(executorFolder, "build-home", ".npmrc");
  if (existsSync(npmrc)) {
    copyFileSync(npmrc, copy);
    if (root) chownSync(copy, BUILD_UID, BUILD_UID);
  }
  return builder;
}

function readToken(path: string): string {
  try {
    const token = readFileSync(path, "utf8").trim();
    if (token !== "") return token;
  } catch (error) {
    throw new UserError(`The host token cannot be read from ${path}`, {
      code: "no_token",
      next: "Run ./bootstrap/up: it makes one.",
      cause: error,
    });
  }
  throw new UserError(`The host token file ${path} is empty`, {
    code: "no_token",
    next: "Run ./bootstrap/up.",
  });
}

function parseLabels(text: string): Record<string, string> {
  const pairs = text.split(",").filter((pair) => pair.includes("="));
  return Object.fromEntries(
    pairs.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]),
  );
}

function listen(server: net.Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) =>
      reject(
        new UserError(`Port ${port} of 127.0.0.1 cannot be listened on`, {
          code: "port_taken",
          next: "End what uses it, or set GILLIAM_EXECUTOR_PORT.",
          cause: error,
        }),
      ),
    );
    server.listen(port, "127.0.0.1", () => resolve((server.address() as net.AddressInfo).port));
  });
}

/** Somebody accepts connections on this socket: a file alone may be left from a crash. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(path);
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}

/** fallocate(2) with FALLOC_FL_PUNCH_HOLE, which Node.js has no call for. */
function punchHole(path: string, bytes: number): Promise<boolean> {
  const args = ["--punch-hole", "--offset", "0", "--length", String(bytes), path];
  return new Promise((resolve) => {
    execFile("fallocate", args, { timeout: 10_000, env: { PATH: "/usr/bin:/bin" } }, (error) =>
      resolve(error === null),
    );
  });
}

try {
  await main();
} catch (error) {
  const known = error instanceof UserError ? error : undefined;
  const lines = [
    messageOf(error),
    ...(known?.problems ?? []).map((problem) => `- ${problem}`),
    known?.next ?? "",
  ];
  process.stderr.write(`${lines.filter((line) => line !== "").join("\n")}\n`);
  if (known === undefined) process.stderr.write(`${(error as Error).stack}\n`);
  process.exit(known?.code === "executor_runs" ? EXIT_TAKEN : known === undefined ? 1 : EXIT_CONFIG);
}
