import type { Head } from "./head.ts";

const SLOTS = 8;
const BLOCK_BYTES_MAX = 128;

interface Slot {
  readonly generation: number;
  readonly block: Uint8Array;
  readonly head: Head;
}

/**
 * Heads by the octets they were decoded from. A block that neither changes the table nor meets a changed one means
 * the same fields again, so a peer that repeats itself is decoded and checked once.
 */
export class HeadCache {
  #slots: (Slot | undefined)[] | undefined;

  get(bytes: Uint8Array, start: number, end: number, generation: number): Head | undefined {
    const length = end - start;
    if (this.#slots === undefined || length > BLOCK_BYTES_MAX || length === 0) return undefined;
    const slot = this.#slots[slotOf(bytes, start, end)];
    if (slot === undefined || slot.generation !== generation || slot.block.length !== length)
      return undefined;
    const { block } = slot;
    for (let at = 0; at < length; at++) {
      if (block[at] !== bytes[start + at]) return undefined;
    }
    return slot.head;
  }

  set(bytes: Uint8Array, start: number, end: number, generation: number, head: Head): void {
    if (end - start > BLOCK_BYTES_MAX || end === start) return;
    this.#slots ??= Array.from<Slot | undefined>({ length: SLOTS }).fill(undefined);
    this.#slots[slotOf(bytes, start, end)] = {
      generation,
      block: new Uint8Array(bytes.subarray(start, end)),
      head,
    };
  }
}

function slotOf(bytes: Uint8Array, start: number, end: number): number {
  return (end - start + bytes[end - 1]! + bytes[(start + end) >> 1]!) & (SLOTS - 1);
}
