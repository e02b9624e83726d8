import { type ChildProcess, spawn } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  openSync,
  closeSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { systemClock as clock } from "../../base/clock.ts";
import { Engine } from "../../executor/drivers/docker/engine.ts";
import {
  baseArchive,
  ensureBaseImage,
  findNpm,
  makeBaseArchive,
} from "../../executor/drivers/docker/base-image.ts";
import { mustRun, runTool } from "../../executor/drivers/process/command.ts";

/**
 * A real Docker Engine for one test file: a dockerd of its own with its own data, socket and cgroups, that touches
 * neither the machine's network nor its packet filter. `remove` leaves nothing, whatever state the engine is in.
 */
export interface TestEngine {
  readonly socketPath: string;
  readonly engine: Engine;
  /** Name of the base image; empty when it was not asked for. */
  readonly base: string;
  /** Sends dockerd a signal; SIGSTOP makes it hang. */
  signal(signal: NodeJS.Signals): void;
  /** Ends dockerd and waits until it has; containers run on with live restore. */
  stop(signal?: NodeJS.Signals): Promise<void>;
  /** Starts dockerd again on the same data. */
  start(): Promise<void>;
  /** Removes everything. */
  remove(): Promise<void>;
}

/** The executor's own default, so that a platform under test finds the archive there too. */
const CACHE_FOLDER = "/var/cache/gilliam";
/** Short: the engine puts sockets below it, and their paths may have 107 characters. */
const PREFIX = "/tmp/gtd-";
const START_MS_MAX = 60_000;

/** Ingredients of the base image as tests use it, and where its archive is kept between runs. */
export function baseIngredients(onProgress: (text: string) => void) {
  return {
    cacheFolder: CACHE_FOLDER,
    nodeProgram: process.execPath,
    npmFolder: findNpm(process.env["PATH"] ?? ""),
    onProgress,
  };
}

/** Makes the archive of the base image, once a machine. Called before the suites run. */
export async function prepareBase(onProgress: (text: string) => void): Promise<void> {
  const ingredients = baseIngredients(onProgress);
  await makeBaseArchive(ingredients, baseArchive(ingredients));
}

export async function startTestEngine({ liveRestore = true, base = true } = {}): Promise<TestEngine> {
  await removeStale();
  const folder = mkdtempSync(`${PREFIX}${process.pid}-`);
  const socketPath = join(folder, "docker.sock");
  const name = folder.slice("/tmp/".length);
  // In memory: everything here is thrown away, and the engine waits for the disk a lot.
  await mustRun(["mount", "-t", "tmpfs", "-o", "size=4g,mode=0711", "gilliam-test-engine", folder]);
  writeFileSync(join(folder, "daemon.json"), "{}");
  let child: ChildProcess | undefined;
  const engine = new Engine({ socketPath });
  const start = async () => {
    child = launch(folder, name, liveRestore);
    const deadlineMs = clock.nowMs() + START_MS_MAX;
    for (;;) {
      try {
        await engine.version();
        return;
      } catch (error) {
        if (child.exitCode !== null || clock.nowMs() > deadlineMs) {
          throw new Error(
            `dockerd does not start: ${readFileSync(join(folder, "log"), "utf8").slice(-2000)}`,
            {
              cause: error,
            },
          );
        }
        await clock.sleep(50);
      }
    }
  };
  await start();
  return {
    socketPath,
    engine,
    base: base ? await ensureBaseImage({ ...baseIngredients(() => undefined), engine }) : "",
    signal: (signal) => void child?.kill(signal),
    stop: async (signal = "SIGTERM") => {
      const ended = new Promise((resolve) => child?.once("exit", resolve));
      child?.kill(signal);
      await ended;
    },
    start,
    remove: () => removeEngine(folder, name),
  };
}

function launch(folder: string, name: string, liveRestore: boolean): ChildProcess {
  // A containerd that died with dockerd and was not waited for yet looks alive to the next one.
  const containerd = join(folder, "exec", "containerd", "containerd.pid");
  if (existsSync(containerd) && / Z /.test(readProc(readFileSync(containerd, "utf8").trim(), "stat")))
    rmSync(containerd);
  const log = openSync(join(folder, "log"), "a");
  const args = [
    `--data-root=${join(folder, "data")}`,
    `--exec-root=${join(folder, "exec")}`,
    `--pidfile=${join(folder, "pid")}`,
    `--config-file=${join(folder, "daemon.json")}`,
    `--host=unix://${join(folder, "docker.sock")}`,
    `--cgroup-parent=/${name}`,
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    ...(liveRestore ? ["--live-restore"] : []),
  ];
  // A session of its own: Ctrl-C in a terminal would end it before the tests have cleaned up.
  const child = spawn("dockerd", args, { stdio: ["ignore", log, log], detached: true });
  closeSync(log);
  return child;
}

/** By force and without asking the engine, which may hang or be gone. */
async function removeEngine(folder: string, name: string): Promise<void> {
  for (let round = 0; round < 100; round += 1) {
    const left = processesOf(folder, name);
    if (left.length === 0) break;
    for (const pid of left) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // Gone in the meantime.
      }
    }
    await clock.sleep(50);
  }
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "")
    .filter((path) => path === folder || path.startsWith(`${folder}/`));
  for (const path of mounts.toReversed()) await runTool(["umount", "--lazy", path]);
  rmSync(folder, { recursive: true, force: true });
  await runTool([
    "sh",
    "-c",
    'find /sys/fs/cgroup -depth -type d -path "*/$0/*" -exec rmdir {} + ; find /sys/fs/cgroup -depth -type d -name "$0" -exec rmdir {} +',
    name,
  ]);
}

/** dockerd, containerd and its shims name the folder on their command line; containers are in its cgroup. */
function processesOf(folder: string, name: string): number[] {
  return readdirSync("/proc")
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => {
      const command = readProc(pid, "cmdline");
      const isEngine =
        command.includes(`${folder}/`) && /^(?:\S*\/)?(?:dockerd|containerd\S*)\0/.test(command);
      return isEngine || readProc(pid, "cgroup").includes(`/${name}/`);
    })
    .map(Number);
}

/** What test runs that were killed have left. */
async function removeStale(): Promise<void> {
  for (const name of readdirSync("/tmp")) {
    const owner = /^gtd-(\d+)-/.exec(name)?.[1];
    if (owner !== undefined && readProc(owner, "stat") === "") await removeEngine(join("/tmp", name), name);
  }
}

function readProc(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return "";
  }
}
