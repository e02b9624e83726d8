import { RateLimiter, type RateLimitSpec } from "./rate-limit.ts";

type Limiters = Map<string, RateLimiter>;

/**
 * What the actions of one configuration remember: who asked how often. The next one takes over what it asks for; a limit
 * that changes begins anew.
 */
export class ActionStates {
  readonly #keysMax: number;
  readonly #limiters: Limiters = new Map();
  /** Of the configuration in force while this one is prepared. */
  #before: Limiters | undefined;

  constructor(keysMax: number, before?: Limiters) {
    this.#keysMax = keysMax;
    this.#before = before;
  }

  /** For the configuration that may follow. */
  next(): ActionStates {
    return new ActionStates(this.#keysMax, this.#limiters);
  }

  /** The limiter of the route or edge `owner`, the same as before when its numbers are. */
  limiter(owner: string, spec: RateLimitSpec): RateLimiter {
    const key = `${owner} ${spec.requests} ${spec.windowMs} ${spec.burst} ${JSON.stringify(spec.key)}`;
    const known = this.#limiters.get(key) ?? this.#before?.get(key);
    const limiter = known ?? new RateLimiter(spec, this.#keysMax);
    this.#limiters.set(key, limiter);
    return limiter;
  }

  /** It is in force: what nobody asked for is forgotten. */
  settle(): void {
    this.#before = undefined;
  }
}
