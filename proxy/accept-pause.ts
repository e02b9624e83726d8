import type { EngineContext } from "./context.ts";
import type { Timed } from "./deadlines.ts";

/** Of `socketsMax`, from where on whoever comes is turned away: those that are in need sockets upstream. */
export const SOCKETS_DOWNSTREAM_SHARE = 0.8;

/** And from where on nobody is let in even to hear that. */
const SOCKETS_ACCEPTED_SHARE = 0.9;

/** How often a pause looks whether it is over, and how long it waits for a handle before it asks once more. */
const LOOK_MS = 50;
const ASK_MS = 1_000;

/**
 * Stops a listener from accepting when sockets run out, and goes on when there is room for clients. Without
 * it the process would run into its limit of descriptors, where libuv accepts and at once closes whoever comes. A
 * handle that listens cannot be told to stop, so it is closed, and another one of the same socket is asked for.
 * Meanwhile clients wait in the kernel's queue.
 */
export class AcceptPause implements Timed {
  active = false;
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  readonly #context: EngineContext;
  readonly #stop: () => void;
  readonly #again: () => void;

  constructor(context: EngineContext, stop: () => void, again: () => void) {
    this.#context = context;
    this.#stop = stop;
    this.#again = again;
  }

  /** A connection was accepted. */
  look(): void {
    const { limits, stats, log, wheel, clock } = this.#context;
    const { socketsMax } = limits;
    if (socketsMax === 0 || this.active || stats.sockets < socketsMax * SOCKETS_ACCEPTED_SHARE) return;
    this.active = true;
    stats.acceptPauses += 1;
    this.#stop();
    log.warn({ sockets: stats.sockets, socketsMax }, "too many sockets are open: accepting pauses");
    wheel.watch(this, clock.nowMs() + LOOK_MS);
  }

  end(): void {
    this.active = false;
    this.#context.wheel.forget(this);
  }

  onTick(nowMs: number): number {
    const { limits, mesh, stats } = this.#context;
    // Requests wait for sockets too, and the one that was closed may have been anybody's.
    if (mesh.socketsLeft) mesh.wakeAll();
    if (!this.active) return Infinity;
    if (stats.sockets > limits.socketsMax * SOCKETS_DOWNSTREAM_SHARE) return nowMs + LOOK_MS;
    this.#again();
    return nowMs + ASK_MS;
  }
}
