import { Attempt } from "./attempt.ts";
import type { Exchange } from "./exchange.ts";

/** The attempts of one exchange that are under way: one, or two of a hedged request until somebody has answered. */
export class Race {
  /** Whose endpoint and answer are the exchange's. */
  leader: Attempt;
  #rival: Attempt | undefined;
  readonly #exchange: Exchange;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
    this.leader = new Attempt(exchange);
  }

  /** Two are under way. */
  get on(): boolean {
    return this.#rival !== undefined;
  }

  join(): Attempt {
    this.#rival = new Attempt(this.#exchange);
    return this.#rival;
  }

  /** `winner` has an answer: the other one is given up, and that is not its endpoint's fault. True: the second won. */
  win(winner: Attempt): boolean {
    const rival = this.#rival;
    if (rival === undefined) return false;
    const loser = winner === rival ? this.leader : rival;
    this.leader = winner;
    this.#rival = undefined;
    loser.noteOutrun();
    loser.abandon();
    loser.release();
    return winner === rival;
  }

  /** `loser` failed: the other one goes on alone. False when there is no other. */
  lose(loser: Attempt): boolean {
    const rival = this.#rival;
    if (rival === undefined) return false;
    if (loser === this.leader) this.leader = rival;
    this.#rival = undefined;
    loser.release();
    return true;
  }

  /** Gives up whatever is under way. */
  abandon(): void {
    this.leader.abandon();
    this.win(this.leader);
  }
}
