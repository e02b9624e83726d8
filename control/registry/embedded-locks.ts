import { fenced } from "./limits.ts";
import type { Fence, Lock, LockHolder } from "./registry.ts";

interface Held {
  readonly fence: Fence;
  readonly value: unknown;
  readonly lost: AbortController;
}

/**
 * Locks where one process holds the whole registry: whoever is in it takes turns. They end with the process, so there
 * is nothing to renew; their tokens are kept in the file, so that a fence from before a restart is refused.
 */
export class EmbeddedLocks {
  readonly #nextToken: (name: string, above: number) => number;
  readonly #held = new Map<string, Held>();
  readonly #waiting = new Map<string, (() => void)[]>();

  constructor(nextToken: (name: string, above: number) => number) {
    this.#nextToken = nextToken;
  }

  async acquire(name: string, value: unknown, above: number, signal: AbortSignal): Promise<Lock> {
    signal.throwIfAborted();
    while (this.#held.has(name)) await this.#turn(name, signal);
    const token = this.#nextToken(name, above);
    const held = {
      fence: { lock: name, token, session: String(token) },
      value,
      lost: new AbortController(),
    };
    this.#held.set(name, held);
    return { fence: held.fence, lost: held.lost.signal, release: async () => this.#end(held, "released") };
  }

  holder(name: string): LockHolder | undefined {
    const held = this.#held.get(name);
    return held && { token: held.fence.token, value: held.value };
  }

  /** @throws UserError "fenced" */
  check({ lock, token }: Fence): void {
    if (this.#held.get(lock)?.fence.token !== token) throw fenced(lock);
  }

  close(): void {
    for (const held of this.#held.values()) this.#end(held, "the registry is closed");
  }

  #end(held: Held, why: string): void {
    const { lock } = held.fence;
    if (this.#held.get(lock) !== held) return;
    this.#held.delete(lock);
    held.lost.abort(new Error(why));
    this.#waiting.get(lock)?.shift()?.();
  }

  #turn(name: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const queue = this.#waiting.get(name) ?? [];
      this.#waiting.set(name, queue);
      const wake = () => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const onAbort = () => {
        const at = queue.indexOf(wake);
        if (at >= 0) queue.splice(at, 1);
        reject(signal.reason as Error);
      };
      queue.push(wake);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }
}
