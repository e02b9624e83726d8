import { readFileSync } from "node:fs";
import { Session } from "node:inspector";
import { parentPort, workerData } from "node:worker_threads";
import { systemClock } from "../../base/clock.ts";
import { CUT, INSIDE, SLOT, type WatchdogData } from "./watchdog-shared.ts";

/**
 * Looks, from a thread of its own, whether a filter has been inside the main thread for too long or makes the process
 * grow, and ends its execution then. It sleeps while no filter runs.
 *
 * The main thread leaves a filter by exchanging INSIDE for IDLE; this thread cuts by exchanging INSIDE for CUT. Only one
 * of the two can win, so execution is ended inside the filter or in the loop in which the main thread waits for the
 * end, never in code of the engine.
 */
const { memory, tickMs, growthBytesMax } = workerData as WatchdogData;
const shared = new Int32Array(memory);
/** A main thread that got no processor has not had its time: only after so much more does it count as blocked. */
const BLOCKED_FACTOR = 20;
/** Ticks without a filter after which it goes to sleep. */
const QUIET_TICKS_MAX = 100;

let run = -1;
let sinceMs = 0;
let usedBeforeMs: number | undefined;
let rssBefore = 0;
let quiet = 0;
let ticking: Disposable | undefined;

parentPort?.on("message", () => {
  quiet = 0;
  ticking ??= systemClock.every(tickMs, look);
});
ticking = systemClock.every(tickMs, look);
parentPort?.postMessage("ready");

function look(): void {
  const current = Atomics.load(shared, SLOT.run);
  if (Atomics.load(shared, SLOT.state) !== INSIDE) {
    quiet = current === run ? quiet + 1 : 0;
    run = current;
    sinceMs = 0;
    if (quiet > QUIET_TICKS_MAX) sleep();
    return;
  }
  quiet = 0;
  const nowMs = systemClock.nowMs();
  if (current !== run || sinceMs === 0) {
    run = current;
    sinceMs = nowMs;
    usedBeforeMs = mainThreadMs();
    rssBefore = process.memoryUsage.rss();
    return;
  }
  if (process.memoryUsage.rss() - rssBefore > growthBytesMax) cut(CUT.memory);
  else if (isOver(nowMs - sinceMs, Atomics.load(shared, SLOT.timeoutMs))) cut(CUT.timeout);
}

function isOver(elapsedMs: number, timeoutMs: number): boolean {
  if (elapsedMs < timeoutMs) return false;
  const usedMs = mainThreadMs();
  if (usedMs === undefined || usedBeforeMs === undefined) return true;
  return usedMs - usedBeforeMs >= timeoutMs || elapsedMs >= BLOCKED_FACTOR * timeoutMs;
}

/** Processor time of the main thread, from procfs; undefined where there is none. */
function mainThreadMs(): number | undefined {
  try {
    const text = readFileSync(`/proc/self/task/${process.pid}/schedstat`, "latin1");
    return Number(text.split(" ")[0]) / 1_000_000;
  } catch {
    return undefined;
  }
}

/** The main thread sends a message when it sees the flag, so a filter that enters now is not overlooked. */
function sleep(): void {
  ticking?.[Symbol.dispose]();
  ticking = undefined;
  Atomics.store(shared, SLOT.asleep, 1);
}

function cut(kind: number): void {
  if (Atomics.compareExchange(shared, SLOT.state, INSIDE, kind) !== INSIDE) return;
  const session = new Session();
  session.connectToMainThread();
  session.post("Runtime.terminateExecution", () => {
    session.disconnect();
    parentPort?.postMessage("cut");
  });
}
