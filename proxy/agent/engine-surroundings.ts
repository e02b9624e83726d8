import { readFileSync } from "node:fs";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { EngineOptions } from "../engine.ts";
import { DEFAULT_LIMITS } from "../limits.ts";
import { PressureMonitor, processMemory } from "./pressure-monitor.ts";
import type { WorkerSettings } from "./worker-settings.ts";

/** Descriptors a worker needs for other things than connections: files, pipes, listeners, and some air. */
const DESCRIPTORS_RESERVED = 64;

/** What an engine is told of the process it runs in: limits, how many sockets it may have, how hard it is to go on. */
export function engineSurroundings(
  { limits, http2Limits }: WorkerSettings,
  clock: Clock,
  log: Log,
): Required<Pick<EngineOptions, "limits" | "http2Limits" | "pressure">> {
  const own = { ...DEFAULT_LIMITS, ...limits };
  const socketsMax = own.socketsMax === 0 ? socketsOf(readLimits()) : own.socketsMax;
  return {
    limits: { ...own, socketsMax },
    http2Limits: http2Limits ?? {},
    pressure: new PressureMonitor(clock, processMemory(), own, log),
  };
}

function readLimits(): string {
  try {
    return readFileSync("/proc/self/limits", "utf8");
  } catch {
    return ""; // Not Linux: no limit is known, and none is kept.
  }
}

/** Sockets that a process with these limits (`/proc/PID/limits`) may open; 0 when that is not known. */
export function socketsOf(limits: string): number {
  const [, soft] = /^Max open files\s+(\d+)/m.exec(limits) ?? [];
  return soft === undefined ? 0 : Math.max(1, Number(soft) - DESCRIPTORS_RESERVED);
}
