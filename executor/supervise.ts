import { equalJitterMs } from "../base/backoff.ts";
import type { Random } from "../base/random.ts";
import type { InstancePhase } from "../model/instance.ts";
import type { HealthCheck } from "../model/run-spec.ts";
import type { Exit } from "./driver.ts";

/**
 * The life of one instance, as a pure state machine: `step(supervision, event)` returns the next one and what is to
 * be done. runner.ts does it and feeds back what came of it. Times are monotonic milliseconds.
 *
 *   pending ──launched──▶ running ──exited──▶ backing-off ──(time)──▶ pending …
 *      └────────────┴─────────┴───stop───▶ stopping ──gone──▶ stopped
 */
export type State =
  /** Being prepared and started: image, network, local ports, process. `reason` says what is missing. */
  | { readonly kind: "pending"; readonly reason: string }
  | {
      readonly kind: "running";
      readonly sinceMs: number;
      readonly ready: boolean;
      /** Why it is not ready; empty when it is. */
      readonly reason: string;
      /** Failed checks in a row since it was ready. */
      readonly failures: number;
      /** Undefined while a check is under way. */
      readonly nextCheckMs: number | undefined;
      /** When this run has lasted so long that earlier crashes no longer count. */
      readonly stableAtMs: number;
    }
  | { readonly kind: "backing-off"; readonly untilMs: number; readonly reason: string }
  /** `killAtMs` is undefined once SIGKILL was sent. */
  | { readonly kind: "stopping"; readonly killAtMs: number | undefined; readonly reason: string }
  | { readonly kind: "stopped"; readonly reason: string };

export interface Supervision {
  readonly state: State;
  /** Crashes in a row, for the back-off; forgotten after a stable run. */
  readonly crashes: number;
  /** Starts beyond the first, for people. */
  readonly restarts: number;
  readonly started: boolean;
  readonly lastExit: Exit | undefined;
}

export type Event =
  /** Preparation waits for something, or failed and is tried again. */
  | { readonly kind: "waiting"; readonly reason: string }
  | { readonly kind: "launched" }
  /** It cannot be started as things are; like a crash. */
  | { readonly kind: "launch-failed"; readonly reason: string }
  /** An earlier executor started it. */
  | { readonly kind: "adopted"; readonly ready: boolean }
  | { readonly kind: "exited"; readonly exit: Exit; readonly explanation: string }
  | { readonly kind: "checked"; readonly ok: boolean; readonly detail: string }
  | { readonly kind: "stop"; readonly reason: string }
  /** No process is left, after `kill` or when there was none. */
  | { readonly kind: "gone" }
  | { readonly kind: "tick" };

export type Action =
  | { readonly kind: "launch" }
  | { readonly kind: "check" }
  | { readonly kind: "signal" }
  | { readonly kind: "kill" }
  /** Close its local ports, remove its network and folders. */
  | { readonly kind: "release" };

export interface SupervisionPolicy {
  readonly health: HealthCheck;
  readonly stopSignal: string;
  readonly graceMs: number;
  /** Between two checks before it is ready, in milliseconds. */
  readonly checkStartingMs: number;
  /** Between two checks while it is ready, in milliseconds. */
  readonly checkReadyMs: number;
  /** Failed checks in a row that make a ready instance not ready; 1 or more. */
  readonly failuresMax: number;
  /** The first restart comes within this, in milliseconds: one crash is an accident. */
  readonly firstRestartMs: number;
  /** Upper bound of the second delay; doubles with each further crash. */
  readonly restartMsBase: number;
  readonly restartMsMax: number;
  /** A run this long makes earlier crashes forgotten, in milliseconds. */
  readonly stableMs: number;
}

/** After this many failed checks in a row it is asked no more often than a ready one. */
const HASTY_CHECKS = 40;
/** An instance without a port is ready when it has run this long. */
const NO_CHECK_MS = 1_000;

export function newSupervision(): Supervision {
  return {
    state: { kind: "pending", reason: "about to be started" },
    crashes: 0,
    restarts: 0,
    started: false,
    lastExit: undefined,
  };
}

export interface Step {
  readonly next: Supervision;
  readonly actions: readonly Action[];
}

export function step(
  now: Supervision,
  event: Event,
  nowMs: number,
  policy: SupervisionPolicy,
  random: Random,
): Step {
  const { state } = now;
  const stay: Step = { next: now, actions: [] };
  const move = (next: State, ...actions: Action[]): Step => ({ next: { ...now, state: next }, actions });

  switch (event.kind) {
    case "waiting":
      return state.kind === "pending" ? move({ kind: "pending", reason: event.reason }) : stay;
    case "launched":
      // Told to stop while it was being started: the kill waits for the start and comes next.
      if (state.kind !== "pending") return stay;
      return {
        next: {
          ...now,
          state: runningState(false, nowMs, policy),
          restarts: now.restarts + (now.started ? 1 : 0),
          started: true,
        },
        actions: [],
      };
    case "adopted":
      return {
        next: { ...now, state: runningState(event.ready, nowMs, policy), started: true },
        actions: [],
      };
    case "launch-failed":
      return state.kind === "pending" ? crash(now, event.reason, nowMs, policy, random) : stay;
    case "exited":
      return stepExited({ ...now, lastExit: event.exit }, event.explanation, nowMs, policy, random);
    case "checked":
      return state.kind === "running" ? stepChecked(now, state, event, nowMs, policy) : stay;
    case "stop":
      return stepStop(now, event.reason, nowMs, policy);
    case "gone":
      return state.kind === "stopping"
        ? move({ kind: "stopped", reason: state.reason }, { kind: "release" })
        : stay;
    case "tick":
      return stepTick(now, nowMs, policy);
  }
}

/** When `tick` has something to do; undefined: only an event changes anything. */
export function nextDueMs({ state, crashes }: Supervision): number | undefined {
  switch (state.kind) {
    case "running":
      return earliest(state.nextCheckMs, crashes > 0 ? state.stableAtMs : undefined);
    case "backing-off":
      return state.untilMs;
    case "stopping":
      return state.killAtMs;
    case "pending":
    case "stopped":
      return undefined;
  }
}

export function phaseOf({ state, started, crashes }: Supervision): InstancePhase {
  const isNew = !started && crashes === 0;
  switch (state.kind) {
    case "pending":
      return isNew ? "pending" : "starting";
    case "running":
      return state.ready ? "ready" : "starting";
    case "backing-off":
      return "failed";
    case "stopping":
      return isNew ? "pending" : "draining";
    case "stopped":
      return "stopped";
  }
}

function runningState(ready: boolean, nowMs: number, policy: SupervisionPolicy): State {
  const unchecked = policy.health.kind === "none";
  return {
    kind: "running",
    sinceMs: nowMs,
    ready,
    reason: ready ? "" : unchecked ? "started just now" : "started; its health check has not answered yet",
    failures: 0,
    nextCheckMs: nowMs + (unchecked ? NO_CHECK_MS : ready ? 0 : policy.checkStartingMs / 4),
    stableAtMs: nowMs + policy.stableMs,
  };
}

function stepExited(
  now: Supervision,
  explanation: string,
  nowMs: number,
  policy: SupervisionPolicy,
  random: Random,
): Step {
  switch (now.state.kind) {
    case "stopping":
      return {
        next: { ...now, state: { kind: "stopped", reason: now.state.reason } },
        actions: [{ kind: "release" }],
      };
    case "pending": // It ended before the start was told.
    case "running":
      return crash({ ...now, started: true }, explanation, nowMs, policy, random);
    case "backing-off":
    case "stopped":
      return { next: now, actions: [] };
  }
}

function crash(
  now: Supervision,
  explanation: string,
  nowMs: number,
  policy: SupervisionPolicy,
  random: Random,
): Step {
  const crashes = now.crashes + 1;
  const backoff = { baseMs: policy.restartMsBase, capMs: policy.restartMsMax };
  const delayMs =
    crashes === 1
      ? equalJitterMs(0, { baseMs: policy.firstRestartMs, capMs: policy.firstRestartMs }, random)
      : equalJitterMs(crashes - 2, backoff, random);
  const loop = crashes >= 3 ? `crash loop, ${crashes} times in a row: ` : "";
  return {
    next: {
      ...now,
      crashes,
      state: { kind: "backing-off", untilMs: nowMs + delayMs, reason: loop + explanation },
    },
    actions: [],
  };
}

function stepChecked(
  now: Supervision,
  state: State & { kind: "running" },
  { ok, detail }: { ok: boolean; detail: string },
  nowMs: number,
  policy: SupervisionPolicy,
): Step {
  const failures = ok ? 0 : state.failures + 1;
  const ready = ok || (state.ready && failures < policy.failuresMax);
  const lost = state.ready && !ready ? `health check failed ${failures} times in a row: ` : "";
  const hasty = failures > 0 && failures <= HASTY_CHECKS;
  const waitMs =
    policy.health.kind === "none" ? undefined : hasty ? policy.checkStartingMs : policy.checkReadyMs;
  return {
    next: {
      ...now,
      state: {
        ...state,
        ready,
        failures,
        reason: ready ? "" : lost + detail,
        nextCheckMs: waitMs === undefined ? undefined : nowMs + waitMs,
      },
    },
    actions: [],
  };
}

function stepStop(now: Supervision, reason: string, nowMs: number, policy: SupervisionPolicy): Step {
  switch (now.state.kind) {
    case "running": {
      const state: State = {
        kind: "stopping",
        killAtMs: nowMs + policy.graceMs,
        reason: `${reason}; ${policy.stopSignal} sent`,
      };
      return { next: { ...now, state }, actions: [{ kind: "signal" }] };
    }
    case "pending": // A start may be under way: kill comes after it.
    case "backing-off":
      return {
        next: { ...now, state: { kind: "stopping", killAtMs: undefined, reason } },
        actions: [{ kind: "kill" }],
      };
    case "stopping":
    case "stopped":
      return { next: now, actions: [] };
  }
}

function stepTick(now: Supervision, nowMs: number, policy: SupervisionPolicy): Step {
  const { state } = now;
  switch (state.kind) {
    case "backing-off":
      if (nowMs < state.untilMs) return { next: now, actions: [] };
      return {
        next: { ...now, state: { kind: "pending", reason: state.reason } },
        actions: [{ kind: "launch" }],
      };
    case "stopping":
      if (state.killAtMs === undefined || nowMs < state.killAtMs) return { next: now, actions: [] };
      return {
        next: {
          ...now,
          state: {
            ...state,
            killAtMs: undefined,
            reason: `${state.reason}, then SIGKILL: it still ran after ${policy.graceMs} ms`,
          },
        },
        actions: [{ kind: "kill" }],
      };
    case "running": {
      const crashes = nowMs >= state.stableAtMs ? 0 : now.crashes;
      if (state.nextCheckMs === undefined || nowMs < state.nextCheckMs) {
        return { next: { ...now, crashes }, actions: [] };
      }
      if (policy.health.kind === "none") {
        return stepChecked({ ...now, crashes }, state, { ok: true, detail: "" }, nowMs, policy);
      }
      return {
        next: { ...now, crashes, state: { ...state, nextCheckMs: undefined } },
        actions: [{ kind: "check" }],
      };
    }
    case "pending":
    case "stopped":
      return { next: now, actions: [] };
  }
}

function earliest(a: number | undefined, b: number | undefined): number | undefined {
  if (a === undefined) return b;
  return b === undefined ? a : Math.min(a, b);
}
