import { readFileSync } from "node:fs";
import v8 from "node:v8";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { type Pressure, type PressureLevel, type PressurePolicy, pressureLevel } from "../pressure.ts";

const EVERY_MS = 250;
/** One long pause is capped, so that a process that was suspended does not refuse everybody when it wakes. */
const LAG_MS_MAX = 2_000;
const LAG_WEIGHT = 0.3;

/** Where the numbers come from; replaced in tests. */
export interface MemorySource {
  /** Memory in use, as a share of what there is. */
  share(): number;
}

/** Watches this process's memory and event loop, and says how much it can take on. */
export class PressureMonitor implements Pressure, Disposable {
  level: PressureLevel = 0;
  #lagMs = 0;
  #lastMs: number;
  readonly #timer: Disposable;

  constructor(clock: Clock, memory: MemorySource, policy: PressurePolicy, log: Log) {
    this.#lastMs = clock.nowMs();
    this.#timer = clock.every(EVERY_MS, () => {
      const nowMs = clock.nowMs();
      const lagMs = Math.min(LAG_MS_MAX, Math.max(0, nowMs - this.#lastMs - EVERY_MS));
      this.#lastMs = nowMs;
      this.#lagMs += (lagMs - this.#lagMs) * LAG_WEIGHT;
      const sample = { memoryShare: memory.share(), lagMs: this.#lagMs };
      const level = pressureLevel(sample, this.level, policy);
      if (level === this.level) return;
      log.warn(
        { ...sample, pressure: level, before: this.level },
        "pressure: which requests are taken on has changed",
      );
      this.level = level;
    });
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }
}

/**
 * What this process uses of what it may: the JavaScript heap of its limit, and resident memory of the control group's
 * limit, whichever is closer. Without a control group with a limit, the machine's memory is one.
 */
export function processMemory(): MemorySource {
  const { heap_size_limit: heapMax } = v8.getHeapStatistics();
  const constrained = process.constrainedMemory();
  const total = constrained > 0 && constrained < 2 ** 52 ? constrained : machineBytes();
  return {
    share: () => {
      const { rss, heapUsed } = process.memoryUsage();
      return Math.max(heapUsed / heapMax, rss / total);
    },
  };
}

function machineBytes(): number {
  try {
    return (
      Number(/^MemTotal:\s+(\d+) kB/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1]) * 1024 || Infinity
    );
  } catch {
    return Infinity; // Not Linux: the heap's limit remains.
  }
}
