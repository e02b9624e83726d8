/**
 * The Huffman code of HPACK (RFC 7541, Appendix B). The code is canonical: symbols sorted by (length, value)
 * get consecutive codes, so the lengths alone define it.
 */
// prettier-ignore
const CODE_LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
];
const EOS = 256;

/** Code bits by symbol, right-aligned; the longest of an octet has 30 bits. */
const CODES = new Uint32Array(257);
const LENGTHS = Uint8Array.from(CODE_LENGTHS);

/**
 * The decoder is an automaton that takes a whole octet per step. A state is an inner node of the code tree
 * (256 of them, state 0 is the root); its row has one entry for each octet:
 *
 *     bit 31..20      19         18 17      16       15..8            7..0
 *     next state    invalid       count of symbols   second symbol    first symbol
 *
 * The shortest code has 5 bits, so an octet completes at most two symbols. "Invalid" marks a path through EOS.
 */
const STEPS = new Uint32Array(256 * 256);
const INVALID = 1 << 19;
/** 1 where a string may end: at the root, or after fewer than 8 bits that are all ones (RFC 7541, 5.2). */
const MAY_END = new Uint8Array(256);

buildTables();

function buildTables(): void {
  const symbols = Array.from({ length: 257 }, (_, symbol) => symbol).sort(
    (a, b) => LENGTHS[a]! - LENGTHS[b]! || a - b,
  );
  let code = 0;
  let previousLength = LENGTHS[symbols[0]!]!;
  for (const symbol of symbols) {
    code *= 2 ** (LENGTHS[symbol]! - previousLength);
    previousLength = LENGTHS[symbol]!;
    CODES[symbol] = code;
    code += 1;
  }
  // child[2 * node + bit]: an inner node's number, or ~symbol for a leaf.
  const child = new Int32Array(512);
  let nodes = 1;
  for (let symbol = 0; symbol <= EOS; symbol++) {
    let node = 0;
    for (let bit = LENGTHS[symbol]! - 1; bit >= 0; bit--) {
      const slot = 2 * node + ((CODES[symbol]! >>> bit) & 1);
      if (bit === 0) child[slot] = ~symbol;
      else node = child[slot]! > 0 ? child[slot]! : (child[slot] = nodes++);
    }
  }
  for (let node = 0; node < 256; node++) {
    for (let octet = 0; octet < 256; octet++) STEPS[(node << 8) | octet] = stepFrom(child, node, octet);
  }
  for (let node = 0, ones = 0; ones < 8; ones++, node = child[2 * node + 1]!) MAY_END[node] = 1;
}

function stepFrom(child: Int32Array, start: number, octet: number): number {
  let node = start;
  let count = 0;
  let emitted = 0;
  for (let bit = 7; bit >= 0; bit--) {
    const next = child[2 * node + ((octet >>> bit) & 1)]!;
    if (next >= 0) {
      node = next;
      continue;
    }
    if (~next === EOS) return INVALID;
    emitted |= ~next << (8 * count++);
    node = 0;
  }
  return (node << 20) | (count << 16) | emitted;
}

/**
 * Decodes `bytes[start, end)` into `out` from offset 0 and returns how many octets that made, or -1 when the
 * code holds EOS, or its padding is longer than 7 bits or not all ones. `out` must hold twice the input.
 */
export function decodeHuffman(bytes: Uint8Array, start: number, end: number, out: Uint8Array): number {
  let state = 0;
  let length = 0;
  for (let at = start; at < end; at++) {
    const step = STEPS[(state << 8) | bytes[at]!]!;
    // Both symbols are stored and the count tells how many stay: no branch on data.
    out[length] = step;
    out[length + 1] = step >>> 8;
    length += (step >>> 16) & 3;
    if ((step & INVALID) !== 0) return -1;
    state = step >>> 20;
  }
  return MAY_END[state] === 1 ? length : -1;
}

/** Octets that `text`, latin1, takes when encoded. */
export function huffmanLength(text: string): number {
  let bits = 0;
  for (let at = 0; at < text.length; at++) bits += LENGTHS[text.charCodeAt(at) & 0xff]!;
  return (bits + 7) >>> 3;
}

/** Writes `text`, latin1, encoded to `out` at `offset`; returns the offset behind it. */
export function encodeHuffman(text: string, out: Uint8Array, offset: number): number {
  let at = offset;
  // Up to 7 bits wait in `held` while a code of up to 30 joins them; so the code goes in two halves.
  let held = 0;
  let heldBits = 0;
  for (let index = 0; index < text.length; index++) {
    const symbol = text.charCodeAt(index) & 0xff;
    let code = CODES[symbol]!;
    let bits = LENGTHS[symbol]!;
    if (bits > 24) {
      held = (held << (bits - 16)) | (code >>> 16);
      heldBits += bits - 16;
      while (heldBits >= 8) out[at++] = held >>> (heldBits -= 8);
      code &= 0xffff;
      bits = 16;
    }
    held = (held << bits) | code;
    heldBits += bits;
    while (heldBits >= 8) out[at++] = held >>> (heldBits -= 8);
    held &= 0xff;
  }
  if (heldBits > 0) out[at++] = (held << (8 - heldBits)) | (0xff >>> heldBits);
  return at;
}
