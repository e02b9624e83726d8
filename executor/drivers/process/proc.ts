import { readFileSync, readdirSync } from "node:fs";

/** What /proc says about processes. A process is told from a later one with the same number by its start time. */

export interface ProcessStat {
  readonly pid: number;
  readonly parent: number;
  readonly session: number;
  /** `Z` is a zombie: ended, not yet waited for. */
  readonly state: string;
  /** Clock ticks after boot; with the pid it names a process for good. */
  readonly startTicks: string;
}

/** One line of /proc/PID/stat. The name, field 2, may itself hold spaces and parentheses: proc(5). */
export function parseStat(line: string): ProcessStat | undefined {
  const end = line.lastIndexOf(")");
  const fields = line
    .slice(end + 2)
    .trim()
    .split(" ");
  const startTicks = fields[19];
  const pid = Number.parseInt(line, 10);
  if (end < 0 || startTicks === undefined || !Number.isSafeInteger(pid)) return undefined;
  return {
    pid,
    state: fields[0] ?? "",
    parent: Number(fields[1]),
    session: Number(fields[3]),
    startTicks,
  };
}

export function readStat(pid: number): ProcessStat | undefined {
  return parseStat(readText(`/proc/${pid}/stat`));
}

/** Runs still: same number, same start time, and not a zombie. */
export function isAlive(stat: Pick<ProcessStat, "pid" | "startTicks">): boolean {
  const now = readStat(stat.pid);
  return now !== undefined && now.startTicks === stat.startTicks && now.state !== "Z";
}

export function listPids(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Live processes whose environment holds `variable` (`HOME=/…`), whatever session they moved to. */
export function processesWithVariable(variable: string): ProcessStat[] {
  return listPids()
    .filter((pid) => `\0${readText(`/proc/${pid}/environ`)}`.includes(`\0${variable}\0`))
    .map(readStat)
    .filter((stat) => stat !== undefined)
    .filter((stat) => stat.state !== "Z");
}

/** Live processes with exactly this argument on their command line. */
export function processesWithArgument(argument: string): ProcessStat[] {
  return listPids()
    .filter((pid) => readText(`/proc/${pid}/cmdline`).split("\0").includes(argument))
    .map(readStat)
    .filter((stat) => stat !== undefined)
    .filter((stat) => stat.state !== "Z");
}

/** The file's text; empty when it is gone or not ours to read, as files under /proc may be at any moment. */
export function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
