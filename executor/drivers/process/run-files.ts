import { rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { decodeExit } from "./launch.ts";
import {
  isAlive,
  listPids,
  parseStat,
  processesWithArgument,
  readStat,
  readText,
  type ProcessStat,
} from "./proc.ts";

/** The three files the shim writes (see launch.ts): all an executor needs to find an instance again. */

export interface RunFiles {
  readonly shim: ProcessStat | undefined;
  readonly child: ProcessStat | undefined;
  readonly startedAtMs: number;
}

export function readRunFiles(runFolder: string): RunFiles {
  const child = readStatFile(join(runFolder, "child"));
  return {
    shim: readStatFile(join(runFolder, "shim")) ?? findShim(runFolder),
    child,
    startedAtMs: fileMs(join(runFolder, "child")) ?? fileMs(join(runFolder, "shim")) ?? 0,
  };
}

/** What the shim wrote at the end; undefined while it has not, and for good when it was killed itself. */
export function readExitFile(
  runFolder: string,
): { code: number | null; signal: string | null; atMs: number } | undefined {
  const path = join(runFolder, "exit");
  const text = readText(path);
  if (!/^\d{1,3}\n$/.test(text)) return undefined;
  return { ...decodeExit(Number(text)), atMs: fileMs(path) ?? 0 };
}

export function clearRunFiles(runFolder: string): void {
  // The order matters when we die half-way: as long as `shim` is there, adoption finds `exit` beside it.
  for (const name of ["child", "shim", "exit"]) rmSync(join(runFolder, name), { force: true });
}

/** Alive, and really the shim of this folder: after a reboot the same number may be anybody's. */
export function isShimAlive(runFolder: string, shim: ProcessStat | undefined): boolean {
  return (
    shim !== undefined &&
    isAlive(shim) &&
    readText(`/proc/${shim.pid}/cmdline`).split("\0").includes(runFolder)
  );
}

/** Running processes among `pids` that still are who they were when the numbers were read. */
export function livePids(pids: Iterable<number>): number[] {
  return [...pids].filter((pid) => {
    const stat = readStat(pid);
    return stat !== undefined && stat.state !== "Z";
  });
}

/** Pids of the process group or session led by `leader`. */
export function pidsOfSession(leader: number): number[] {
  return listPids().filter((pid) => {
    const stat = readStat(pid);
    return stat !== undefined && stat.session === leader && stat.state !== "Z";
  });
}

/** An executor killed in the moment after the fork leaves a shim that has not written its file yet. */
function findShim(runFolder: string): ProcessStat | undefined {
  return processesWithArgument(runFolder).find(({ pid, session }) => pid === session);
}

function readStatFile(path: string): ProcessStat | undefined {
  const text = readText(path);
  return text.endsWith("\n") ? parseStat(text) : undefined;
}

function fileMs(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs;
}
