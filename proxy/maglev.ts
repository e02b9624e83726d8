import { hash32 } from "./hash.ts";

/**
 * A prime. The same for any number of members, since another size would move every key; up to 160 members have a hundred
 * places each, which keeps shares within about one per cent.
 */
const SIZE = 16_381;

/**
 * Places on a ring for members by name, as in Maglev (Eisenbud et al., NSDI 2016, 3.4): every member has its own
 * permutation of the places and they take turns. Shares are even, and when a member comes or goes few keys move.
 */
export class MaglevTable {
  /** Index of a member by place. */
  readonly #places: Uint16Array;

  constructor(names: readonly string[]) {
    this.#places = placesOf(names, SIZE);
  }

  /** Index of the member for a key; `try`: the next choice for the same key. -1 without members. */
  lookup(key: string, attempt = 0): number {
    if (this.#places.length === 0) return -1;
    return this.#places[hash32(key, attempt) % this.#places.length]!;
  }
}

const FREE = 0xffff;

function placesOf(names: readonly string[], size: number): Uint16Array {
  if (names.length === 0) return new Uint16Array(0);
  const places = new Uint16Array(size).fill(FREE);
  const offsets = names.map((name) => hash32(name, 1) % size);
  const skips = names.map((name) => (hash32(name, 2) % (size - 1)) + 1);
  const next = names.map(() => 0);
  // Turns go by name, so that the order in which members are listed means nothing.
  const turns = names.map((_, index) => index).sort((a, b) => (names[a]! < names[b]! ? -1 : 1));
  for (let filled = 0; ;) {
    for (const member of turns) {
      let place: number;
      do {
        place = (offsets[member]! + next[member]! * skips[member]!) % size;
        next[member]! += 1;
      } while (places[place] !== FREE);
      places[place] = member;
      filled += 1;
      if (filled === size) return places;
    }
  }
}
