import { spawn } from "node:child_process";
import { appendFileSync, statSync } from "node:fs";
import type { Clock } from "../../base/clock.ts";
import { dropPrivileges } from "../drivers/process/launch.ts";
import { pidsOfSession } from "../drivers/process/run-files.ts";
import { processesWithVariable } from "../drivers/process/proc.ts";
import type { BuildStep } from "./language.ts";

export interface StepOptions {
  readonly folder: string;
  /** Home of builds: also what tells their processes from all others. */
  readonly home: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Undefined: the executor's own user, which is not root. */
  readonly uid: number | undefined;
  readonly setpriv: boolean;
  readonly logFile: string;
  readonly outputBytesMax: number;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export interface StepResult {
  /** Null when it was ended, by the time limit or because the executor stops. */
  readonly code: number | null;
  readonly timedOut: boolean;
  readonly lastLines: string[];
}

const LAST_LINES = 20;

/** Runs one step of a build as an unprivileged user; nothing it started is left when this resolves. */
export async function runStep(step: BuildStep, options: StepOptions): Promise<StepResult> {
  const { uid, setpriv, home, environment, folder, clock, signal } = options;
  // `env` runs what follows: the word that is first whether or not privileges are dropped.
  const drop = dropPrivileges({ uid, privileges: "none", setpriv });
  const child = spawn("env", [...drop, "/bin/sh", "-c", step.command], {
    cwd: folder,
    env: { ...environment, HOME: home },
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let lines: string[] = [];
  let rest = "";
  const take = (bytes: Buffer) => {
    writeLog(options, bytes);
    const parts = (rest + bytes.toString("utf8")).split(/\r?\n/);
    rest = (parts.pop() ?? "").slice(-2000);
    lines = [...lines, ...parts.map((line) => line.slice(0, 2000))].slice(-LAST_LINES);
  };
  child.stdout.on("data", take);
  child.stderr.on("data", take);
  let timedOut = false;
  const end = () => {
    const session = child.pid === undefined ? [] : pidsOfSession(child.pid);
    const strays = processesWithVariable(`HOME=${home}`).map(({ pid }) => pid);
    for (const pid of [...session, ...strays]) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It ended by itself.
      }
    }
  };
  using _limit = clock.after(options.timeoutMs, () => {
    timedOut = true;
    end();
  });
  signal.addEventListener("abort", end, { once: true });
  const code = await new Promise<number | null>((resolve) => {
    child.on("error", () => resolve(127));
    child.on("exit", end);
    child.on("close", resolve);
  });
  signal.removeEventListener("abort", end);
  const lastLines = (rest === "" ? lines : [...lines, rest]).slice(-LAST_LINES);
  return { code: timedOut || signal.aborted ? null : code, timedOut, lastLines };
}

function writeLog({ logFile, outputBytesMax }: StepOptions, bytes: Buffer): void {
  const size = statSync(logFile, { throwIfNoEntry: false })?.size ?? 0;
  if (size >= outputBytesMax) return;
  appendFileSync(logFile, bytes.subarray(0, outputBytesMax - size));
  if (size + bytes.length >= outputBytesMax) appendFileSync(logFile, "\n[the rest of the output was cut]\n");
}
