/**
 * Characters and field names of HTTP/1.1 as tables, so that a parser needs one look-up a byte.
 * RFC 9110 5.6.2 (token), 5.5 (field values), RFC 3986 2 and what browsers send (targets).
 */
export const CR = 13;
export const LF = 10;
export const SP = 32;
export const TAB = 9;
export const COLON = 58;
export const SLASH = 47;

export const TOKEN = 1;
/** Visible characters, space, tab and obs-text; no other control character, DEL neither. */
export const VALUE = 2;
/** Visible ASCII but `#`: a fragment never travels. */
export const TARGET = 4;
export const DIGIT = 8;
/** Of a host without its port: names, IPv4, and the inside of an IPv6 literal is checked apart. */
export const HOST = 16;

export const CLASS = new Uint8Array(256);
for (let code = 0; code < 256; code += 1) {
  const letter = (code >= 65 && code <= 90) || (code >= 97 && code <= 122);
  const digit = code >= 48 && code <= 57;
  const char = String.fromCharCode(code);
  if (letter || digit || "!#$%&'*+-.^_`|~".includes(char)) CLASS[code] = TOKEN;
  if (code === TAB || (code >= 32 && code !== 127)) CLASS[code]! |= VALUE;
  if (code > 32 && code < 127 && char !== "#") CLASS[code]! |= TARGET;
  if (digit) CLASS[code]! |= DIGIT;
  if (letter || digit || "-._~%".includes(char)) CLASS[code]! |= HOST;
}

/** Lower case, and `-` for `_`: servers that speak CGI's language take `X_Forwarded_For` for `X-Forwarded-For`. */
const FOLD = new Uint8Array(256);
for (let code = 0; code < 256; code += 1) {
  FOLD[code] = code >= 65 && code <= 90 ? code + 32 : code === 95 ? 45 : code;
}

/** Names that mean something to a proxy; every other field is carried unseen. 0 is unknown. */
export const FIELD = {
  host: 1,
  "content-length": 2,
  "transfer-encoding": 3,
  connection: 4,
  expect: 5,
  upgrade: 6,
  te: 7,
  trailer: 8,
  "keep-alive": 9,
  "proxy-connection": 10,
  "proxy-authorization": 11,
  "http2-settings": 12,
  cookie: 13,
  traceparent: 14,
  date: 15,
  "x-request-id": 16,
  "x-forwarded-for": 17,
  "x-forwarded-proto": 18,
  "x-forwarded-host": 19,
  forwarded: 20,
  "x-real-ip": 21,
  "x-gilliam-from": 22,
  "x-request-deadline": 26,
  "grpc-timeout": 27,
  "x-request-priority": 28,
  priority: 29,
} as const;
/** `x-forwarded-port` and whatever else begins so. */
export const FIELD_FORWARDED_OTHER = 23;
/** `x-gilliam-…`: ours alone. */
export const FIELD_GILLIAM_OTHER = 24;
/** `content_length` or `transfer_encoding`: an alias that only somebody with bad intentions sends. */
export const FIELD_FRAMING_ALIAS = 25;

const NAMES = Object.keys(FIELD).map((name) => Buffer.from(name));
const IDS: readonly number[] = Object.values(FIELD);

/** Index of a name by its hash, in a table with one place for each: the multiplier is searched for at start. */
const TABLE_BITS = 8;
const table = new Int8Array(1 << TABLE_BITS);
const multiplier = findMultiplier();

function findMultiplier(): number {
  for (let candidate = 3; candidate < 100_000; candidate += 2) {
    table.fill(-1);
    const placed = NAMES.every((name, index) => {
      let hash = name.length;
      for (const byte of name) hash = (Math.imul(hash, candidate) + byte) | 0;
      const at = (hash ^ (hash >>> 15)) & (table.length - 1);
      if (table[at] !== -1) return false;
      table[at] = index;
      return true;
    });
    if (placed) return candidate;
  }
  throw new Error("the names of known fields have no perfect hash");
}

const X = 120;
const FORWARDED_PREFIX = Buffer.from("x-forwarded-");
const GILLIAM_PREFIX = Buffer.from("x-gilliam-");

/** The known field whose name is `bytes[from, to)`, upper or lower case; 0 when it is none. */
export function knownField(bytes: Uint8Array, from: number, to: number): number {
  let hash = to - from;
  for (let at = from; at < to; at += 1) hash = (Math.imul(hash, multiplier) + FOLD[bytes[at]!]!) | 0;
  const index = table[(hash ^ (hash >>> 15)) & (table.length - 1)]!;
  if (index >= 0) {
    const name = NAMES[index]!;
    if (name.length === to - from && foldedEqual(bytes, from, name)) {
      return hasUnderscore(bytes, from, to) ? aliasOf(IDS[index]!) : IDS[index]!;
    }
  }
  return FOLD[bytes[from]!] === X ? prefixField(bytes, from, to) : 0;
}

function foldedEqual(bytes: Uint8Array, from: number, name: Uint8Array): boolean {
  for (let at = 0; at < name.length; at += 1) if (FOLD[bytes[from + at]!] !== name[at]) return false;
  return true;
}

function hasUnderscore(bytes: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at < to; at += 1) if (bytes[at] === 95) return true;
  return false;
}

/** What `x_y` is when `x-y` is known: dangerous, ours, or a field like any other. */
function aliasOf(id: number): number {
  if (id === FIELD["content-length"] || id === FIELD["transfer-encoding"]) return FIELD_FRAMING_ALIAS;
  return id >= FIELD["x-request-id"] ? id : 0;
}

function prefixField(bytes: Uint8Array, from: number, to: number): number {
  const length = to - from;
  if (length > GILLIAM_PREFIX.length && foldedEqual(bytes, from, GILLIAM_PREFIX)) return FIELD_GILLIAM_OTHER;
  if (length > FORWARDED_PREFIX.length && foldedEqual(bytes, from, FORWARDED_PREFIX)) {
    return FIELD_FORWARDED_OTHER;
  }
  return 0;
}

/** Up to this, a count of bytes is exact in a double and no server disagrees about it. */
const LENGTH_DIGITS_MAX = 15;

/** The number that `bytes[from, to)` writes in plain digits; -1 for anything else (signs, spaces, lists, hex). */
export function parseLength(bytes: Uint8Array, from: number, to: number): number {
  if (to === from || to - from > LENGTH_DIGITS_MAX) return -1;
  let value = 0;
  for (let at = from; at < to; at += 1) {
    const digit = bytes[at]! - 48;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value;
}

/** The tokens of a comma-separated list in lower case; undefined when it is not such a list (RFC 9110 5.6.1). */
export function parseTokenList(text: string): string[] | undefined {
  const tokens: string[] = [];
  for (const part of text.split(",")) {
    const token = part.replace(/^[ \t]+|[ \t]+$/g, "");
    if (token === "") continue; // Empty elements are to be ignored.
    if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(token)) return undefined;
    tokens.push(token.toLowerCase());
  }
  return tokens;
}
