import * as fc from "fast-check";
import { expect, test } from "vitest";
import { seededRandom } from "../base/random.ts";
import { mayMove } from "../model/instance.ts";
import {
  newSupervision,
  nextDueMs,
  phaseOf,
  step,
  type Action,
  type Event,
  type Supervision,
  type SupervisionPolicy,
} from "./supervise.ts";

const policy: SupervisionPolicy = {
  health: { kind: "http", path: "/" },
  stopSignal: "SIGTERM",
  graceMs: 10_000,
  checkStartingMs: 200,
  checkReadyMs: 2_000,
  failuresMax: 3,
  firstRestartMs: 400,
  restartMsBase: 2_000,
  restartMsMax: 60_000,
  stableMs: 60_000,
};
const exit = { code: 1, signal: null, atMs: 0, outOfMemory: false } as const;
const exited: Event = { kind: "exited", exit, explanation: "exited with code 1" };
const ok: Event = { kind: "checked", ok: true, detail: "" };
const bad: Event = { kind: "checked", ok: false, detail: "GET / answered 500" };

/** Applies events one after the other at a clock wound by hand. */
class Machine {
  nowMs = 0;
  supervision: Supervision = newSupervision();
  actions: Action[] = [];
  readonly #policy: SupervisionPolicy;
  readonly #random = seededRandom(1);

  constructor(overrides: Partial<SupervisionPolicy> = {}) {
    this.#policy = { ...policy, ...overrides };
  }

  send(...events: Event[]): this {
    for (const event of events) {
      const { next, actions } = step(this.supervision, event, this.nowMs, this.#policy, this.#random);
      this.supervision = next;
      this.actions = [...actions];
    }
    return this;
  }

  /** Lets time pass to the next moment something is due; undefined when nothing is. */
  tickAtDue(): number | undefined {
    const dueMs = nextDueMs(this.supervision);
    if (dueMs === undefined) return undefined;
    this.nowMs = Math.max(this.nowMs, dueMs);
    this.send({ kind: "tick" });
    return dueMs;
  }

  get phase() {
    return phaseOf(this.supervision);
  }

  get reason() {
    return this.supervision.state.reason;
  }
}

test("pending, starting, ready: checked until it answers", () => {
  const machine = new Machine();
  expect(machine.phase).toBe("pending");
  machine.send({ kind: "waiting", reason: "its image is being built" });
  expect(machine.reason).toBe("its image is being built");
  machine.send({ kind: "launched" });
  expect(machine.phase).toBe("starting");
  expect(machine.tickAtDue()).toBe(50);
  expect(machine.actions).toEqual([{ kind: "check" }]);
  machine.send(bad);
  expect([machine.phase, machine.reason]).toEqual(["starting", "GET / answered 500"]);
  expect(machine.tickAtDue()).toBe(250);
  machine.send(ok);
  expect([machine.phase, machine.reason]).toEqual(["ready", ""]);
  expect(machine.tickAtDue()).toBe(2_250);
});

test("a ready instance is not ready after the third failed check in a row, and ready after one good one", () => {
  const machine = new Machine().send({ kind: "launched" }, ok, bad, bad);
  expect(machine.phase).toBe("ready");
  machine.send(ok, bad, bad);
  expect(machine.phase).toBe("ready");
  machine.send(bad);
  expect(machine.phase).toBe("starting");
  expect(machine.reason).toBe("health check failed 3 times in a row: GET / answered 500");
  expect(machine.send(ok).phase).toBe("ready");
});

test("without a health check it is ready after a second, and not before", () => {
  const machine = new Machine({ health: { kind: "none" } }).send({ kind: "launched" });
  machine.nowMs = 999;
  expect(machine.send({ kind: "tick" }).phase).toBe("starting");
  machine.nowMs = 1_000;
  expect(machine.send({ kind: "tick" }).phase).toBe("ready");
  expect(nextDueMs(machine.supervision)).toBeUndefined();
});

test("the first restart is quick, later ones double up to a minute, and a loop is called one", () => {
  const machine = new Machine();
  const delays: number[] = [];
  for (let crash = 0; crash < 9; crash += 1) {
    machine.send({ kind: "launched" }, exited);
    const dueMs = nextDueMs(machine.supervision) ?? 0;
    delays.push(dueMs - machine.nowMs);
    expect(machine.phase).toBe("failed");
    machine.nowMs = dueMs - 1;
    expect(machine.send({ kind: "tick" }).actions).toEqual([]);
    machine.nowMs = dueMs;
    expect(machine.send({ kind: "tick" }).actions).toEqual([{ kind: "launch" }]);
  }
  const bounds = [400, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000];
  for (const [at, boundMs] of bounds.entries()) {
    expect(delays[at]).toBeGreaterThanOrEqual(boundMs / 2);
    expect(delays[at]).toBeLessThanOrEqual(boundMs);
  }
  expect(machine.supervision.restarts).toBe(8);
  machine.send({ kind: "launched" }, exited);
  expect(machine.reason).toBe("crash loop, 10 times in a row: exited with code 1");
});

test("a stable run makes earlier crashes forgotten", () => {
  const machine = new Machine().send({ kind: "launched" }, exited);
  machine.tickAtDue();
  machine.send({ kind: "launched" }, ok);
  machine.nowMs += policy.stableMs - 1;
  machine.send({ kind: "tick" });
  expect(machine.supervision.crashes).toBe(1);
  machine.nowMs += 1;
  machine.send({ kind: "tick" });
  expect(machine.supervision.crashes).toBe(0);
});

test("stop: the signal, the grace, SIGKILL; not a millisecond early", () => {
  const machine = new Machine().send({ kind: "launched" }, ok, {
    kind: "stop",
    reason: "stopped by control",
  });
  expect([machine.phase, machine.actions]).toEqual(["draining", [{ kind: "signal" }]]);
  machine.nowMs = 9_999;
  expect(machine.send({ kind: "tick" }).actions).toEqual([]);
  machine.nowMs = 10_000;
  expect(machine.send({ kind: "tick" }).actions).toEqual([{ kind: "kill" }]);
  expect(machine.reason).toBe("stopped by control; SIGTERM sent, then SIGKILL: it still ran after 10000 ms");
  expect(machine.send(exited).actions).toEqual([{ kind: "release" }]);
  expect(machine.phase).toBe("stopped");
  expect(machine.send({ kind: "gone" }).actions).toEqual([]);
});

test.for<{ before: Event[]; phase: string }>([
  { before: [], phase: "pending" },
  { before: [{ kind: "launched" }, exited], phase: "draining" },
])("stop while nothing runs kills what may be starting, then releases ($phase)", ({ before, phase }) => {
  const machine = new Machine().send(...before, { kind: "stop", reason: "stopped by control" });
  expect([machine.phase, machine.actions]).toEqual([phase, [{ kind: "kill" }]]);
  expect(machine.send({ kind: "launched" }, { kind: "gone" }).actions).toEqual([{ kind: "release" }]);
  expect(machine.phase).toBe("stopped");
});

test("an adopted instance that was ready stays ready", () => {
  const machine = new Machine().send({ kind: "adopted", ready: true });
  expect(machine.phase).toBe("ready");
  expect(machine.tickAtDue()).toBe(0);
  expect(machine.actions).toEqual([{ kind: "check" }]);
});

const anyEvent: fc.Arbitrary<Event> = fc.oneof(
  fc.constantFrom<Event>(
    { kind: "waiting", reason: "w" },
    { kind: "launched" },
    { kind: "launch-failed", reason: "f" },
    exited,
    ok,
    bad,
    { kind: "gone" },
    { kind: "tick" },
  ),
  fc.constant<Event>({ kind: "stop", reason: "s" }),
);

test("whatever happens: phases only move as the model allows, release comes once, and it ends after a stop", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(anyEvent, fc.nat(5_000)), { maxLength: 60 }), (story) => {
      const machine = new Machine();
      let releases = 0;
      const send = (event: Event) => {
        const before = machine.phase;
        machine.send(event);
        releases += machine.actions.filter(({ kind }) => kind === "release").length;
        expect(mayMove(before, machine.phase), `${before} → ${machine.phase} by ${event.kind}`).toBe(true);
      };
      for (const [event, passMs] of story) {
        machine.nowMs += passMs;
        send(event);
      }
      send({ kind: "stop", reason: "the end" });
      machine.nowMs += policy.graceMs;
      send({ kind: "tick" });
      send({ kind: "gone" });
      expect(machine.phase).toBe("stopped");
      expect(releases).toBe(1);
    }),
  );
});
