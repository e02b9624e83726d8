import { MessageChannel, type MessagePort } from "node:worker_threads";
import { readEnd } from "../turn.ts";

/** Something that goes on as soon as it may be ended at any point. */
export interface Turned {
  takeTurn(): void;
  /** It was ended in the middle of `takeTurn`. */
  onCut(): void;
}

/**
 * Runs whatever waits here at the end of the read at hand, or else in an event of its own, one after the other. Who is
 * cut off in the middle loses its turn, the others go on.
 */
export class TurnQueue {
  readonly #port: MessagePort;
  readonly #own: MessagePort;
  readonly #onFault: (error: unknown) => void;
  #waiting: Turned[] = [];
  #at = 0;
  #current: Turned | undefined;
  #scheduled = false;

  constructor(onFault: (error: unknown) => void) {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.#own = port2;
    this.#onFault = onFault;
    port2.on("message", this.run);
    port2.unref();
  }

  add(turned: Turned): void {
    this.#waiting.push(turned);
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (readEnd.reading) readEnd.work = this.run;
    else this.#port.postMessage(0);
  }

  /** Everything that waits. Also to be called after a cut. */
  readonly run = (): void => {
    const cut = this.#current;
    this.#current = undefined;
    this.#scheduled = true; // Whoever is added meanwhile has its turn in the loop below.
    if (cut !== undefined) this.#guard(cut, true);
    while (this.#at < this.#waiting.length) {
      const turned = this.#waiting[this.#at]!;
      this.#at += 1;
      this.#current = turned;
      this.#guard(turned, false);
      this.#current = undefined;
    }
    this.#waiting = [];
    this.#at = 0;
    this.#scheduled = false;
  };

  close(): void {
    this.#own.close();
  }

  #guard(turned: Turned, cut: boolean): void {
    try {
      if (cut) turned.onCut();
      else turned.takeTurn();
    } catch (error) {
      this.#onFault(error);
    }
  }
}
