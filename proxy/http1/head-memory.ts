import type { EngineLimits } from "../limits.ts";

/** Heads longer than this are read each time. */
const HEAD_BYTES_MAX = 1_024;
const SLOTS = 64;
/** What a head that was found is worth in heads that were not. */
const HIT_CREDIT = 8;
const CREDIT_MAX = 64;
const ASLEEP_COUNT = 1_024;

interface Slot<Head> {
  readonly bytes: Buffer;
  length: number;
  signature: number;
  /** What else reading it depends on. */
  limits: EngineLimits | undefined;
  variant: string;
  readonly head: Head;
}

/**
 * Heads as they were last read, by their bytes: clients and servers that repeat themselves are read and checked once.
 * A head ends where its own bytes say so, so the same bytes at the beginning of what was received are the same head.
 * Only heads that were found to be right are kept, when they come a second time. Of a fixed size, shared by all
 * connections.
 */
export class HeadMemory<Head> {
  readonly #slots: (Slot<Head> | undefined)[] = Array.from({ length: SLOTS }, () => undefined);
  /** Of the last that did not fit each slot: it is kept if it comes again. */
  readonly #seen = new Int32Array(SLOTS);
  /** Of what was looked for last. */
  #signature = 0;
  /** Where nearly nothing comes a second time, looking is a waste: it pauses for some heads then. */
  #credit = CREDIT_MAX;
  #asleep = 0;
  readonly #create: () => Head;

  constructor(create: () => Head) {
    this.#create = create;
  }

  /** The head that `bytes[from, to)` begin with, if it is remembered. */
  find(
    bytes: Buffer,
    from: number,
    to: number,
    limits: EngineLimits,
    variant: string,
  ): Slot<Head> | undefined {
    if (this.#asleep > 0) {
      this.#asleep -= 1;
      this.#signature = 0;
      return undefined;
    }
    const signature = signatureOf(bytes, from, to);
    this.#signature = signature;
    const slot = this.#slots[signature & (SLOTS - 1)];
    const fits =
      slot !== undefined &&
      slot.signature === signature &&
      slot.length <= to - from &&
      slot.limits === limits &&
      slot.variant === variant &&
      slot.bytes.compare(bytes, from, from + slot.length, 0, slot.length) === 0;
    if (fits) {
      this.#credit = Math.min(this.#credit + HIT_CREDIT, CREDIT_MAX);
      return slot;
    }
    this.#credit -= 1;
    if (this.#credit <= 0) {
      this.#credit = CREDIT_MAX;
      this.#asleep = ASLEEP_COUNT;
    }
    return undefined;
  }

  /** Where to put the head `bytes[from, end)` that was just not found; undefined: it is not to be kept. */
  keep(bytes: Buffer, from: number, end: number, limits: EngineLimits, variant: string): Head | undefined {
    const signature = this.#signature;
    const index = signature & (SLOTS - 1);
    const length = end - from;
    if (signature === 0 || length > HEAD_BYTES_MAX) return undefined;
    if (this.#seen[index] !== signature) {
      this.#seen[index] = signature;
      return undefined;
    }
    let slot = this.#slots[index];
    if (slot === undefined || slot.bytes.length < length) {
      const own = Buffer.allocUnsafeSlow(roomFor(length));
      slot = { bytes: own, length, signature, limits, variant, head: this.#create() };
      this.#slots[index] = slot;
    }
    bytes.copy(slot.bytes, 0, from, end);
    slot.length = length;
    slot.signature = signature;
    slot.limits = limits;
    slot.variant = variant;
    return slot.head;
  }
}

function roomFor(length: number): number {
  return length <= 256 ? 256 : HEAD_BYTES_MAX;
}

/** Tells most heads apart, by the size of what was received and some of its bytes; comparing them is left to `find`. */
function signatureOf(bytes: Buffer, from: number, to: number): number {
  const size = to - from;
  const step = (size >> 5) + 1;
  let signature = size;
  for (let at = from; at < to; at += step) signature = (Math.imul(signature, 31) + bytes[at]!) | 0;
  return signature ^ (signature >>> 15);
}
