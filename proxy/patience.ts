import type { ClusterPolicy, Protocol } from "../model/mesh.ts";
import type { DeadlineWheel, Timed } from "./deadlines.ts";
import type { EngineLimits } from "./limits.ts";

/** What ran out: the time for the whole, for the response to begin, or of the present phase. */
export type Lapse = "whole" | "answer" | "phase";

/**
 * The deadlines of one exchange, in milliseconds of the clock; Infinity is none. Three can run at once, and the wheel
 * is asked for the earliest.
 */
export class Patience implements Timed {
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  /** To the response's last byte: what the caller said or the policy names. Travels on to the next hop. */
  wholeMs = Infinity;
  /** `wholeMs` is the caller's, not the policy's. */
  callers = false;
  /** The client does not take what there is for it. */
  clientStalled = false;
  /** The client has ended its direction: it waits for the rest, or has left altogether; a silent response is not kept for it. */
  clientEnded = false;
  /** To the response's head, every attempt and every wait included; counts from the request's last byte. */
  #answerMs = Infinity;
  /** Of the present phase: waiting, one attempt's response, the next byte of a body. */
  #phaseMs = Infinity;
  #running = false;
  readonly #wheel: DeadlineWheel;
  readonly #limits: EngineLimits;
  readonly #onLapse: (lapse: Lapse) => void;

  constructor(wheel: DeadlineWheel, limits: EngineLimits, onLapse: (lapse: Lapse) => void) {
    this.#wheel = wheel;
    this.#limits = limits;
    this.#onLapse = onLapse;
  }

  /** The caller's deadline, if it said one: the answer is of no use `deadlineMs` after `startedMs`. */
  begin(startedMs: number, deadlineMs: number): void {
    this.wholeMs = startedMs + deadlineMs;
    this.callers = deadlineMs !== Infinity;
    this.clientStalled = false;
    this.clientEnded = false;
    this.#answerMs = Infinity;
    this.#phaseMs = Infinity;
    this.#running = true;
  }

  /** The policy's total, 0 for none: the earlier one counts. */
  clamp(startedMs: number, totalMs: number): void {
    if (totalMs === 0 || startedMs + totalMs >= this.wholeMs) return;
    this.wholeMs = startedMs + totalMs;
    this.callers = false;
  }

  /** A new phase, or progress in it: it may last until `phaseMs`. */
  await(phaseMs: number): void {
    this.#phaseMs = phaseMs;
    this.#wheel.watch(this, this.#nextMs());
  }

  /** The whole request is sent: one attempt, and all of them together, have so long to answer. */
  awaitResponse(nowMs: number, { responseTimeoutMs, answerTimeoutMs }: ClusterPolicy): void {
    if (this.#answerMs === Infinity && answerTimeoutMs !== 0) this.#answerMs = nowMs + answerTimeoutMs;
    this.await(responseTimeoutMs === 0 ? Infinity : nowMs + responseTimeoutMs);
  }

  /** The response has begun. */
  answered(): void {
    this.#answerMs = Infinity;
  }

  /** Milliseconds that a request's body may pause: a gRPC client may have nothing to say for a while. */
  bodyMs(protocol: Protocol, { streamIdleTimeoutMs }: ClusterPolicy): number {
    return protocol === "grpc" ? orInfinity(streamIdleTimeoutMs) : this.#limits.bodyStallTimeoutMs;
  }

  /** Milliseconds that a response's body may pause: a server may have nothing to say, a client has to take it. */
  streamMs({ streamIdleTimeoutMs }: ClusterPolicy): number {
    const idleMs = orInfinity(streamIdleTimeoutMs);
    const { bodyStallTimeoutMs } = this.#limits;
    return this.clientStalled || this.clientEnded ? Math.min(bodyStallTimeoutMs, idleMs) : idleMs;
  }

  /** Over, or a tunnel: nothing counts any more. Its place in the wheel stays, for the next request. */
  end(): void {
    this.#running = false;
  }

  /** Leaves the wheel. */
  forget(): void {
    this.#wheel.forget(this);
  }

  onTick(nowMs: number): number {
    if (!this.#running) return Infinity;
    const lapse = this.#lapsed(nowMs);
    if (lapse !== undefined) this.#onLapse(lapse);
    return this.#running ? this.#nextMs() : Infinity;
  }

  /** The most final of those that have run out. */
  #lapsed(nowMs: number): Lapse | undefined {
    if (nowMs >= this.wholeMs) return "whole";
    if (nowMs >= this.#answerMs) return "answer";
    return nowMs >= this.#phaseMs ? "phase" : undefined;
  }

  #nextMs(): number {
    return Math.min(this.wholeMs, this.#answerMs, this.#phaseMs);
  }
}

function orInfinity(timeoutMs: number): number {
  return timeoutMs === 0 ? Infinity : timeoutMs;
}
