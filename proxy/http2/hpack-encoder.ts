import { isFieldName, isFieldValue } from "./field-check.ts";
import { encodeHuffman, huffmanLength } from "./huffman.ts";
import { STATIC_COUNT, STATIC_TABLE } from "./static-table.ts";

const ENTRY_OVERHEAD = 32;
/** Ours, whatever the peer allows: beyond it a table costs memory and gains little. */
const TABLE_BYTES_MAX = 4_096;
const RING = TABLE_BYTES_MAX / ENTRY_OVERHEAD;
/** Values remembered for one name, and how long one may be to be remembered. */
const VALUES_PER_NAME = 4;
const REMEMBERED_LENGTH_MAX = 256;
const NAMES_MAX = 96;
const CACHED_LISTS = 4;
const CACHED_BYTES_MAX = 512;

/** Names whose values must not be found by watching how well they compress (RFC 7541, 7.1.3). */
const NEVER_INDEXED = new Set(["authorization", "proxy-authorization", "cookie", "set-cookie"]);
/** Names that HTTP/2 has no place for (RFC 9113, 8.2.2): left out. */
const DROPPED = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
]);

/** What the encoder knows about one field name. */
interface Name {
  /** Lower case. */
  readonly text: string;
  /** Index in the static table, or 0. */
  readonly staticIndex: number;
  readonly dropped: boolean;
  readonly neverIndexed: boolean;
  /** Values seen, and the insertion number each has in the table: 0 not inserted, below 0 a static entry. */
  readonly values: string[];
  readonly inserted: number[];
  /** Values from here on may be replaced; before are static ones. */
  readonly fixed: number;
  next: number;
}

interface CachedList {
  readonly fields: readonly string[];
  readonly generation: number;
  readonly bytes: Uint8Array;
}

/**
 * Encodes field blocks (RFC 7541) of one direction of one connection.
 *
 * A value enters the table when it is seen for the second time, so that request ids and dates of single use never
 * push out what repeats; there is no list of names to keep. A list of fields whose encoding left the table as it was
 * is cached by identity: sending the same array again copies its bytes. So an array must not change once sent.
 */
export class HpackEncoder {
  /** Names by every spelling met. Allocated with the first block: idle connections stay small. */
  #names: Map<string, Name> | undefined;
  #sizes: Int32Array | undefined;
  #tableLimit = TABLE_BYTES_MAX;
  #tableBytes = 0;
  /** Entries inserted since the start, and how many of the last are still there. */
  #insertions = 0;
  #count = 0;
  /** Counts changes of the table, which move every index in a cached block. */
  #generation = 0;
  /** False once a value was met that the next block would encode better. */
  #settled = true;
  #cache: CachedList[] = [];
  #cacheNext = 0;
  /** Table sizes to announce before the next block: the least in between, then the last; -1 none. */
  #leastLimit = -1;

  /** The peer's SETTINGS_HEADER_TABLE_SIZE. Announced with the next block (RFC 7541, 4.2). */
  setPeerTableBytesMax(bytes: number): void {
    const limit = Math.min(bytes, TABLE_BYTES_MAX);
    if (limit === this.#tableLimit && this.#leastLimit < 0) return;
    this.#leastLimit = this.#leastLimit < 0 ? limit : Math.min(this.#leastLimit, limit);
    this.#tableLimit = limit;
    this.#evict(0);
  }

  /** Entries in the table now, and the octets they count. */
  get tableState(): { count: number; bytes: number } {
    return { count: this.#count, bytes: this.#tableBytes };
  }

  /** Octets that `start` and the fields may need at most. */
  static bound(fields: readonly string[]): number {
    let bytes = 16;
    for (let index = 0; index < fields.length; index++) bytes += fields[index]!.length + 6;
    return bytes;
  }

  /** Begins a block: writes table size updates that are due. Returns the offset behind them. */
  start(out: Buffer, offset: number): number {
    if (this.#leastLimit < 0) return offset;
    let at = offset;
    if (this.#leastLimit < this.#tableLimit) at = writeInteger(out, at, 0x20, 0x1f, this.#leastLimit);
    at = writeInteger(out, at, 0x20, 0x1f, this.#tableLimit);
    this.#leastLimit = -1;
    return at;
  }

  /** Appends names and values in turn. The array is kept: it must not change afterwards. */
  fields(fields: readonly string[], out: Buffer, offset: number): number {
    const cache = this.#cache;
    for (let index = 0; index < cache.length; index++) {
      const cached = cache[index]!;
      if (cached.fields !== fields || cached.generation !== this.#generation) continue;
      const bytes = cached.bytes;
      for (let at = 0; at < bytes.length; at++) out[offset + at] = bytes[at]!;
      return offset + bytes.length;
    }
    const generation = this.#generation;
    this.#settled = true;
    let at = offset;
    for (let index = 0; index + 1 < fields.length; index += 2) {
      at = this.field(fields[index]!, fields[index + 1]!, out, at);
    }
    if (this.#settled && generation === this.#generation && at - offset <= CACHED_BYTES_MAX) {
      cache[this.#cacheNext] = { fields, generation, bytes: Uint8Array.from(out.subarray(offset, at)) };
      this.#cacheNext = (this.#cacheNext + 1) % CACHED_LISTS;
    }
    return at;
  }

  /** Appends one field; its name in any case. Octets that may not travel become "?". */
  field(name: string, value: string, out: Buffer, offset: number): number {
    const known = this.#names?.get(name) ?? this.#learn(name);
    if (known.dropped) return offset;
    const { values, inserted } = known;
    for (let slot = 0; slot < values.length; slot++) {
      if (values[slot] !== value) continue;
      const insertion = inserted[slot]!;
      if (insertion < 0) return writeInteger(out, offset, 0x80, 0x7f, -insertion);
      const age = this.#insertions - insertion;
      if (insertion > 0 && age < this.#count) {
        return writeInteger(out, offset, 0x80, 0x7f, STATIC_COUNT + 1 + age);
      }
      return this.#insert(known, slot, value, out, offset);
    }
    const kind = known.neverIndexed ? 0x10 : 0x00;
    const at = this.#nameReference(known, kind, 0x0f, out, offset);
    const text = isFieldValue(value) ? value : repaired(value);
    if (!known.neverIndexed && value.length <= REMEMBERED_LENGTH_MAX && text === value) {
      values[known.next] = value;
      inserted[known.next] = 0;
      known.next = known.next + 1 < known.fixed + VALUES_PER_NAME ? known.next + 1 : known.fixed;
      this.#settled = false;
    }
    return writePlain(out, at, text);
  }

  #insert(known: Name, slot: number, value: string, out: Buffer, offset: number): number {
    const bytes = known.text.length + value.length + ENTRY_OVERHEAD;
    if (bytes > this.#tableLimit) {
      return writePlain(out, this.#nameReference(known, 0x00, 0x0f, out, offset), value);
    }
    const at = this.#nameReference(known, 0x40, 0x3f, out, offset);
    this.#evict(bytes);
    this.#sizes ??= new Int32Array(RING);
    this.#insertions += 1;
    this.#sizes[this.#insertions % RING] = bytes;
    this.#count += 1;
    this.#tableBytes += bytes;
    this.#generation += 1;
    known.inserted[slot] = this.#insertions;
    return writeCompact(out, at, value);
  }

  /** Writes the kind of literal and its name, by index where one is known. */
  #nameReference(known: Name, kind: number, mask: number, out: Buffer, offset: number): number {
    if (known.staticIndex > 0) return writeInteger(out, offset, kind, mask, known.staticIndex);
    for (let slot = 0; slot < known.inserted.length; slot++) {
      const insertion = known.inserted[slot]!;
      const age = this.#insertions - insertion;
      if (insertion > 0 && age < this.#count) {
        return writeInteger(out, offset, kind, mask, STATIC_COUNT + 1 + age);
      }
    }
    out[offset] = kind;
    return writeCompact(out, offset + 1, known.text);
  }

  #evict(bytes: number): void {
    while (this.#count > 0 && this.#tableBytes + bytes > this.#tableLimit) {
      this.#tableBytes -= this.#sizes![(this.#insertions - this.#count + 1) % RING]!;
      this.#count -= 1;
      this.#generation += 1;
    }
  }

  #learn(name: string): Name {
    // Forgetting costs some repeated literals; growing without end would cost the process.
    if (this.#names === undefined || this.#names.size >= NAMES_MAX) this.#names = new Map();
    const text = name.toLowerCase();
    const known = this.#names.get(text) ?? newName(text);
    this.#names.set(name, known);
    if (text !== name) this.#names.set(text, known);
    return known;
  }
}

function newName(text: string): Name {
  const values: string[] = [];
  const inserted: number[] = [];
  let staticIndex = 0;
  for (let index = 0; index < STATIC_COUNT; index++) {
    const [name, value] = STATIC_TABLE[index]!;
    if (name !== text) continue;
    if (staticIndex === 0) staticIndex = index + 1;
    if (value === "") continue;
    values.push(value);
    inserted.push(-(index + 1));
  }
  const dropped = DROPPED.has(text) || !isFieldName(text);
  const neverIndexed = NEVER_INDEXED.has(text);
  return {
    text,
    staticIndex,
    dropped,
    neverIndexed,
    values,
    inserted,
    fixed: values.length,
    next: values.length,
  };
}

/** `value` with "?" for what may not travel and without white space at its ends: injection ends here. */
function repaired(value: string): string {
  let from = 0;
  let to = value.length;
  while (from < to && (value.charCodeAt(from) === 0x20 || value.charCodeAt(from) === 0x09)) from++;
  while (to > from && (value.charCodeAt(to - 1) === 0x20 || value.charCodeAt(to - 1) === 0x09)) to--;
  return value.slice(from, to).replace(/[^\t\x20-\x7e\x80-\xff]/g, "?");
}

/** An integer (RFC 7541, 5.1) behind the bits of `kind`. */
function writeInteger(out: Buffer, offset: number, kind: number, mask: number, value: number): number {
  if (value < mask) {
    out[offset] = kind | value;
    return offset + 1;
  }
  out[offset] = kind | mask;
  let at = offset + 1;
  let rest = value - mask;
  while (rest >= 0x80) {
    out[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  out[at] = rest;
  return at + 1;
}

/** A string as it is: a literal that will not repeat is not worth the time of coding it. */
function writePlain(out: Buffer, offset: number, text: string): number {
  const at = writeInteger(out, offset, 0x00, 0x7f, text.length);
  if (text.length > 48) return at + out.latin1Write(text, at);
  for (let index = 0; index < text.length; index++) out[at + index] = text.charCodeAt(index);
  return at + text.length;
}

/** A string by Huffman code where that is shorter. */
function writeCompact(out: Buffer, offset: number, text: string): number {
  const coded = huffmanLength(text);
  if (coded >= text.length) return writePlain(out, offset, text);
  return encodeHuffman(text, out, writeInteger(out, offset, 0x80, 0x7f, coded));
}
