import { createHmac, hkdfSync } from "node:crypto";

/** A name, a key to sign with and a key to encrypt with, 16 bytes each. */
export const TICKET_KEYS_BYTES = 48;

/** What the keys of session tickets are derived from in one period of time. */
export interface TicketSecret {
  readonly period: number;
  /** 32 bytes, in hexadecimal: it travels between processes. */
  readonly secret: string;
}

/**
 * Secrets that change with time and cannot be wound back: each is derived from the one before, which is forgotten. So
 * whoever reads the memory of a process learns nothing of the sessions of earlier periods, and several processes that
 * start from one secret have the same keys at the same time without talking to each other.
 */
export class TicketRatchet {
  readonly #periodMs: number;
  #period: number;
  #secret: Buffer;

  constructor(start: TicketSecret, periodMs: number) {
    this.#periodMs = periodMs;
    this.#period = start.period;
    this.#secret = Buffer.from(start.secret, "hex");
  }

  /** Moves on to the period of `wallMs`. True when that is a later one. A clock that was set back changes nothing. */
  advance(wallMs: number): boolean {
    const period = periodOf(wallMs, this.#periodMs);
    if (period <= this.#period) return false;
    while (this.#period < period) {
      this.#secret = createHmac("sha256", this.#secret).update("next period").digest();
      this.#period += 1;
    }
    return true;
  }

  get current(): TicketSecret {
    return { period: this.#period, secret: this.#secret.toString("hex") };
  }

  /** For `TlsTerminator.setTicketKeys`. */
  get keys(): Buffer {
    return Buffer.from(hkdfSync("sha256", this.#secret, "", "session tickets", TICKET_KEYS_BYTES));
  }
}

export function periodOf(wallMs: number, periodMs: number): number {
  return Math.floor(wallMs / periodMs);
}
