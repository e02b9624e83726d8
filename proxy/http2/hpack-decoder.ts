import { isFieldName, isFieldValue } from "./field-check.ts";
import { decodeHuffman } from "./huffman.ts";
import { STATIC_COUNT, STATIC_TABLE } from "./static-table.ts";

/** What an entry adds to its own length (RFC 7541, 4.1). */
const ENTRY_OVERHEAD = 32;
const STATIC_NAMES = STATIC_TABLE.map(([name]) => name);
const STATIC_VALUES = STATIC_TABLE.map(([, value]) => value);

/** Where Huffman codes are decoded to; shared, as decoding never yields. */
let scratch: Buffer = Buffer.allocUnsafeSlow(8_192);

/**
 * Decodes field blocks (RFC 7541) of one direction of one connection.
 *
 * A block is decoded to its end whatever it holds, because the table must stay in step with the peer's; what is
 * wrong with its fields is reported beside them (`invalid`, `tooLarge`). Octets are checked once, where a literal is
 * read: an entry of the table that is referred to again costs two array reads.
 */
export class HpackDecoder {
  /** After `decode`: names and values in turn. A new array for every block, so it may be kept. */
  fields: string[] = [];
  /** After `decode`: why a field may not travel (RFC 9113, 8.2.1), or "". */
  invalid = "";
  /** After `decode`: the list went beyond the limit; `fields` is empty. */
  tooLarge = false;
  /** Counts changes of the table. Equal blocks mean equal fields as long as it stands still. */
  generation = 0;

  #tableBytesMax: number;
  /** Set when our own setting shrank: the next block must begin with an update to this or less (RFC 9113, 4.3.1). */
  #shrunkTo = -1;
  #tableLimit: number;
  #tableBytes = 0;
  /** A ring of entries, allocated at the first insert; the newest stands at `#newest`. */
  #names: string[] = [];
  #values: string[] = [];
  #wrongs: string[] = [];
  #count = 0;
  #newest = 0;
  /** Reading position and, after a string was read, what is wrong with it. */
  #at = 0;

  constructor(tableBytesMax: number) {
    this.#tableBytesMax = tableBytesMax;
    this.#tableLimit = tableBytesMax;
  }

  /** Our SETTINGS_HEADER_TABLE_SIZE, once the peer has acknowledged it. */
  setTableBytesMax(bytes: number): void {
    if (bytes < this.#tableLimit) this.#shrunkTo = bytes;
    this.#tableBytesMax = bytes;
  }

  /**
   * Decodes the block `bytes[start, end)`. False when it cannot be: the connection must end with
   * COMPRESSION_ERROR. `listBytesMax` counts as RFC 9113, 6.5.2 does: 32 octets more for each field.
   */
  decode(bytes: Buffer, start: number, end: number, listBytesMax: number): boolean {
    const fields: string[] = [];
    let listBytes = 0;
    let updatable = true;
    this.invalid = "";
    this.tooLarge = false;
    this.fields = fields;
    this.#at = start;
    if (this.#shrunkTo >= 0 && !(start < end && (bytes[start]! & 0xe0) === 0x20)) return false;
    while (this.#at < end) {
      const first = bytes[this.#at]!;
      let name: string;
      let value: string;
      if (first >= 0x80) {
        // Indexed field (6.1).
        const index =
          first < 0xff && first > 0x80 ? (this.#at++, first & 0x7f) : this.#integer(bytes, end, 0x7f);
        if (index <= 0) return false;
        if (index <= STATIC_COUNT) {
          name = STATIC_NAMES[index - 1]!;
          value = STATIC_VALUES[index - 1]!;
        } else {
          const slot = this.#slotOf(index - STATIC_COUNT - 1);
          if (slot < 0) return false;
          name = this.#names[slot]!;
          value = this.#values[slot]!;
          if (this.#wrongs[slot] !== "") this.invalid = this.#wrongs[slot]!;
        }
      } else if ((first & 0xe0) === 0x20) {
        // Table size update (6.3), only before the first field (4.2).
        const bytesMax = this.#integer(bytes, end, 0x1f);
        if (!updatable || bytesMax < 0 || bytesMax > this.#tableBytesMax) return false;
        if (this.#shrunkTo >= 0 && bytesMax > this.#shrunkTo) return false;
        this.#shrunkTo = -1;
        this.#tableLimit = bytesMax;
        this.generation += 1;
        this.#evict(0);
        continue;
      } else {
        // Literal: with indexing (6.2.1), without (6.2.2), never (6.2.3).
        const indexing = (first & 0x40) !== 0;
        const nameIndex = this.#integer(bytes, end, indexing ? 0x3f : 0x0f);
        if (nameIndex < 0) return false;
        let wrong = "";
        if (nameIndex === 0) {
          const literal = this.#string(bytes, end);
          if (literal === undefined) return false;
          name = literal;
          if (!isFieldName(name)) wrong = "a field name holds an octet that is not allowed";
        } else if (nameIndex <= STATIC_COUNT) {
          name = STATIC_NAMES[nameIndex - 1]!;
        } else {
          const slot = this.#slotOf(nameIndex - STATIC_COUNT - 1);
          if (slot < 0) return false;
          name = this.#names[slot]!;
          if (this.#wrongs[slot] !== "" && !isFieldName(name)) wrong = this.#wrongs[slot]!;
        }
        const literal = this.#string(bytes, end);
        if (literal === undefined) return false;
        value = literal;
        if (!isFieldValue(value))
          wrong = `the value of ${printable(name)} holds an octet that is not allowed`;
        if (wrong !== "") this.invalid = wrong;
        if (indexing) this.#insert(name, value, wrong);
      }
      updatable = false;
      listBytes += name.length + value.length + ENTRY_OVERHEAD;
      if (listBytes > listBytesMax) this.tooLarge = true;
      else fields.push(name, value);
    }
    if (this.tooLarge) this.fields = [];
    return true;
  }

  /** Entries in the table now, and the octets they count; for tests and limits. */
  get tableState(): { count: number; bytes: number } {
    return { count: this.#count, bytes: this.#tableBytes };
  }

  /** An integer with a prefix of `mask` (RFC 7541, 5.1); -1 when it is cut off or above 2^28. */
  #integer(bytes: Buffer, end: number, mask: number): number {
    let value = bytes[this.#at++]! & mask;
    if (value < mask) return value;
    for (let shift = 0; shift <= 21; shift += 7) {
      if (this.#at >= end) return -1;
      const octet = bytes[this.#at++]!;
      value += (octet & 0x7f) << shift;
      if (octet < 0x80) return value;
    }
    return -1;
  }

  /** A string literal (RFC 7541, 5.2) as latin1; undefined when it is cut off or wrongly coded. */
  #string(bytes: Buffer, end: number): string | undefined {
    if (this.#at >= end) return undefined;
    const huffman = bytes[this.#at]! >= 0x80;
    const length = this.#integer(bytes, end, 0x7f);
    const from = this.#at;
    const to = from + length;
    if (length < 0 || to > end) return undefined;
    this.#at = to;
    if (!huffman) return bytes.latin1Slice(from, to);
    if (length * 2 > scratch.length) scratch = Buffer.allocUnsafeSlow(length * 2);
    const decoded = decodeHuffman(bytes, from, to, scratch);
    return decoded < 0 ? undefined : scratch.latin1Slice(0, decoded);
  }

  #slotOf(age: number): number {
    if (age >= this.#count) return -1;
    const capacity = this.#names.length;
    return (this.#newest - age + capacity) % capacity;
  }

  #insert(name: string, value: string, wrong: string): void {
    const bytes = name.length + value.length + ENTRY_OVERHEAD;
    this.generation += 1;
    this.#evict(bytes);
    if (bytes > this.#tableLimit) return;
    if (this.#count === this.#names.length) this.#grow();
    this.#newest = (this.#newest + 1) % this.#names.length;
    this.#names[this.#newest] = name;
    this.#values[this.#newest] = value;
    this.#wrongs[this.#newest] = wrong;
    this.#count += 1;
    this.#tableBytes += bytes;
  }

  /** Drops the oldest entries until `bytes` more fit (RFC 7541, 4.3 and 4.4). */
  #evict(bytes: number): void {
    while (this.#count > 0 && this.#tableBytes + bytes > this.#tableLimit) {
      const oldest = this.#slotOf(this.#count - 1);
      this.#tableBytes -= this.#names[oldest]!.length + this.#values[oldest]!.length + ENTRY_OVERHEAD;
      this.#names[oldest] = "";
      this.#values[oldest] = "";
      this.#count -= 1;
    }
  }

  /** Doubles the ring, oldest entry first. Bounded: an entry counts 32 octets at least. */
  #grow(): void {
    const order = Array.from({ length: this.#count }, (_, index) => this.#slotOf(this.#count - 1 - index));
    const padding = Array.from({ length: Math.max(16, this.#count) }, () => "");
    const moved = (ring: readonly string[]) => [...order.map((slot) => ring[slot]!), ...padding];
    this.#names = moved(this.#names);
    this.#values = moved(this.#values);
    this.#wrongs = moved(this.#wrongs);
    this.#newest = (this.#count - 1 + this.#names.length) % this.#names.length;
  }
}

/** `name` fit for a log line. */
function printable(name: string): string {
  return JSON.stringify(name.slice(0, 64));
}
