import type { DeadlineWheel, Timed } from "./deadlines.ts";
import type { EngineLimits } from "./limits.ts";
import type { WireUser } from "./wire.ts";

interface TunnelContext {
  readonly wheel: DeadlineWheel;
  readonly limits: EngineLimits;
}

/** One end of a tunnel: a wire, or a stream of HTTP/2. See `Wire` for what each call promises. */
export interface TunnelEnd {
  user: WireUser;
  writeBytes(bytes: Buffer, from: number, to: number): boolean;
  mayReceiveOwn(): void;
  pause(): void;
  resume(): void;
  end(): void;
  destroy(): void;
  reset(): void;
}

/**
 * Carries bytes both ways between two ends until both are closed: TCP and upgraded connections. Either side may end
 * its direction first (half-close); a side that does not read stops the other (backpressure).
 */
export class Tunnel implements Timed {
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  /** Bytes from `left` to `right`, and back. */
  bytesIn = 0;
  bytesOut = 0;
  readonly #left: TunnelSide;
  readonly #right: TunnelSide;
  readonly #wheel: DeadlineWheel;
  #idleMs: number;
  readonly #halfCloseMs: number;
  readonly #quietMs: number;
  readonly #onDone: () => void;
  #activeMs: number;
  #open = 2;
  /** Nothing is owed: the right side spoke last, or nobody spoke yet. */
  #settled = true;
  #retiring = false;

  /**
   * `idleMs` without a byte either way closes both, 0 is no limit; `onDone` when both are closed.
   */
  constructor(left: TunnelEnd, right: TunnelEnd, context: TunnelContext, idleMs: number, onDone: () => void) {
    const { wheel, limits } = context;
    this.#wheel = wheel;
    this.#halfCloseMs = limits.halfCloseTimeoutMs;
    this.#quietMs = limits.tunnelQuietMs;
    this.#idleMs = idleMs === 0 ? Infinity : idleMs;
    this.#onDone = onDone;
    this.#activeMs = wheel.coarseNowMs();
    this.#left = new TunnelSide(this, left, right);
    this.#right = new TunnelSide(this, right, left);
    left.user = this.#left;
    right.user = this.#right;
    left.mayReceiveOwn();
    right.mayReceiveOwn();
    left.resume();
    right.resume();
    wheel.watch(this, this.#activeMs + this.#idleMs);
  }

  /** For bytes that were read before the tunnel stood. */
  sendRight(bytes: Buffer, from: number, to: number): void {
    if (to > from) this.#left.carry(bytes, from, to);
  }

  sendLeft(bytes: Buffer, from: number, to: number): void {
    if (to > from) this.#right.carry(bytes, from, to);
  }

  /**
   * Ends the tunnel at the first quiet moment in which nothing is owed: the right side (the server) spoke last and
   * `quietMs` passed since. A client with a pool of connections opens another; one that waits for an answer gets it.
   */
  retire(): void {
    this.#retiring = true;
    this.#wheel.watch(this, this.#wheel.coarseNowMs());
  }

  /** Closes both at once. */
  cut(): void {
    this.#left.wire.destroy();
    this.#right.wire.destroy();
  }

  noteBytes(side: TunnelSide, count: number): void {
    if (side === this.#left) this.bytesIn += count;
    else this.bytesOut += count;
    this.#settled = side === this.#right;
    this.#activeMs = this.#wheel.coarseNowMs();
  }

  noteEnded(): void {
    this.#idleMs = Math.min(this.#idleMs, this.#halfCloseMs);
    this.#activeMs = this.#wheel.coarseNowMs();
    this.#wheel.watch(this, this.#activeMs + this.#idleMs);
  }

  noteClosed(): void {
    this.#open -= 1;
    if (this.#open > 0) return;
    this.#wheel.forget(this);
    this.#onDone();
  }

  onTick(nowMs: number): number {
    const dueMs = this.#activeMs + this.#idleMs;
    const quietMs = this.#activeMs + this.#quietMs;
    if (nowMs >= dueMs || (this.#retiring && this.#settled && nowMs >= quietMs)) {
      this.cut();
      return Infinity;
    }
    // An answer may come at any moment, so a retiring tunnel looks again soon.
    return this.#retiring ? Math.min(dueMs, Math.max(quietMs, nowMs + this.#quietMs)) : dueMs;
  }
}

/** One direction: what `wire` receives goes to `other`. */
class TunnelSide implements WireUser {
  readonly wire: TunnelEnd;
  readonly #other: TunnelEnd;
  readonly #tunnel: Tunnel;

  constructor(tunnel: Tunnel, wire: TunnelEnd, other: TunnelEnd) {
    this.#tunnel = tunnel;
    this.wire = wire;
    this.#other = other;
  }

  carry(bytes: Buffer, from: number, to: number): void {
    this.#tunnel.noteBytes(this, to - from);
    if (!this.#other.writeBytes(bytes, from, to)) this.wire.pause();
  }

  onConnected(): void {}

  onBytes(bytes: Buffer, size: number): void {
    this.carry(bytes, 0, size);
  }

  onEnd(): void {
    this.#other.end();
    this.#tunnel.noteEnded();
  }

  onDrain(): void {
    this.#other.resume();
  }

  onClosed(error: string): void {
    if (error === "") this.#other.end();
    else this.#other.reset();
    this.#tunnel.noteClosed();
  }
}
