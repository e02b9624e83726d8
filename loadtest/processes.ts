import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import net from "node:net";
import { availableParallelism } from "node:os";
import { createInterface } from "node:readline";

/** Starting pinned programs and reading what they cost from /proc. Linux only. */

/** Clock ticks a second in /proc; fixed on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** Which core does what: the proxy alone on one, everything that is not measured elsewhere. */
export interface Cores {
  readonly proxy: string;
  readonly load: string;
  readonly upstream: string;
}

export function chooseCores(): Cores {
  const count = availableParallelism();
  if (count < 2) throw new Error("two cores are needed: one for the proxy alone");
  return { proxy: "0", load: "1", upstream: count > 2 ? "2" : "1" };
}

let preferring = false;

/**
 * On a machine that others use, too: what is started from now on, and this process, get a larger share of the cores
 * (sched(7), autogroups). Without the right to do so, nothing changes.
 */
export function preferOurs(): void {
  preferring = true;
  prefer(process.pid);
}

function prefer(pid: number | undefined): void {
  if (!preferring || pid === undefined) return;
  try {
    writeFileSync(`/proc/${pid}/autogroup`, "-15");
  } catch {
    // Not root, or a kernel without autogroups.
  }
}

export interface Running {
  readonly pid: number;
  /** Where it listens, when that is not where it was asked to. */
  readonly port?: number;
  /** What it wrote, both streams. */
  output(): string;
  stop(): Promise<void>;
}

/** Starts a program on one core. It is killed, with its children, by `stop` or when this process ends. */
export function start(core: string, command: readonly string[], env: Record<string, string> = {}): Running {
  const child = spawn("taskset", ["-c", core, ...command], {
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  prefer(child.pid);
  let output = "";
  const collect = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-20_000);
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  child.on("error", (error) => {
    output += String(error);
  });
  running.add(child);
  return {
    pid: child.pid ?? 0,
    output: () => output,
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = new Promise<void>((resolve) => {
        child.once("exit", () => resolve());
      });
      killGroup(child, "SIGTERM");
      const late = setTimeout(() => killGroup(child, "SIGKILL"), 2_000);
      await exited;
      clearTimeout(late);
      killGroup(child, "SIGKILL");
      running.delete(child);
    },
  };
}

const running = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of running) killGroup(child, "SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // Gone already.
  }
}

/** Runs a program on one core to its end; its standard output. */
export async function run(core: string, command: readonly string[]): Promise<string> {
  const child = spawn("taskset", ["-c", core, ...command], { stdio: ["ignore", "pipe", "pipe"] });
  prefer(child.pid);
  let out = "";
  let problem = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (problem += chunk.toString()));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${problem.slice(0, 500)}`);
  return out;
}

/** A program that answers each line it is sent with a line. */
export interface Interactive {
  nextLine(): Promise<string>;
  ask(): void;
  end(): void;
}

export function startInteractive(core: string, command: readonly string[]): Interactive {
  const child = spawn("taskset", ["-c", core, ...command], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    nextLine: async () => {
      const line = await lines.next();
      if (line.done === true) throw new Error(`${command.join(" ")} ended early`);
      return line.value;
    },
    ask: () => child.stdin.write("\n"),
    end: () => child.stdin.end(),
  };
}

/** A port nobody listens on at this moment. */
export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Waits until somebody listens on `port`; throws with the program's output after ten seconds. */
export async function waitForPort(port: number, program: Running, what: string): Promise<void> {
  const until = performance.now() + 10_000;
  while (performance.now() < until) {
    const connected = await new Promise<boolean>((resolve) => {
      const socket = net.connect(port, "127.0.0.1");
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
      socket.once("connect", () => socket.destroy());
    });
    if (connected) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what} does not listen on ${port}; it said:\n${program.output()}`);
}

/** The process and all its descendants. */
function tree(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const parent = statFields(Number(name))?.[1];
    if (parent === undefined) continue;
    const siblings = children.get(Number(parent)) ?? [];
    siblings.push(Number(name));
    children.set(Number(parent), siblings);
  }
  const found = [root];
  for (const pid of found) found.push(...(children.get(pid) ?? []));
  return found;
}

/** Fields of /proc/PID/stat from the state on (number 3 in proc(5)); undefined when the process is gone. */
function statFields(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}

/** Microseconds of CPU, user and system, that the process tree has used so far. */
export function cpuMicroseconds(root: number): number {
  let ticks = 0;
  for (const pid of tree(root)) {
    const fields = statFields(pid);
    // utime and stime; also of children that have ended.
    if (fields !== undefined) ticks += [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0);
  }
  return (ticks / TICKS_PER_SECOND) * 1e6;
}

/** Bytes in memory of the process tree; pages shared by several processes count once (PSS). */
export function residentBytes(root: number): number {
  let kilobytes = 0;
  for (const pid of tree(root)) {
    try {
      const text = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
      kilobytes += Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0);
    } catch {
      // Gone.
    }
  }
  return kilobytes * 1024;
}
