import type { FilterHeaders } from "./filter.ts";

/**
 * A head's fields as the engine keeps them, lines ending in CR LF, seen as Fetch's `Headers`. Nothing is parsed before
 * it is asked for, and nothing is copied before it is changed.
 */
export class HeaderLines implements FilterHeaders {
  lines: string;
  changed = false;

  constructor(lines: string) {
    this.lines = lines;
  }

  get(name: string): string | null {
    const wanted = name.toLowerCase();
    const { lines } = this;
    let found: string | null = null;
    for (let at = findLine(lines, wanted, 0); at >= 0;) {
      const end = lines.indexOf("\r\n", at);
      const value = lines.slice(at + wanted.length + 1, end).trim();
      found = found === null ? value : `${found}${wanted === "cookie" ? "; " : ", "}${value}`;
      at = findLine(lines, wanted, end + 2);
    }
    return found;
  }

  has(name: string): boolean {
    return findLine(this.lines, name.toLowerCase(), 0) >= 0;
  }

  set(name: string, value: string): void {
    const line = checkedLine(name, value);
    this.#remove(name.toLowerCase());
    this.lines += line;
    this.changed = true;
  }

  append(name: string, value: string): void {
    this.lines += checkedLine(name, value);
    this.changed = true;
  }

  delete(name: string): void {
    checkName(name);
    this.#remove(name.toLowerCase());
  }

  *[Symbol.iterator](): Iterator<[string, string]> {
    const { lines } = this;
    for (let at = 0; at < lines.length;) {
      const end = lines.indexOf("\r\n", at);
      const colon = lines.indexOf(":", at);
      if (end < 0 || colon < 0) return;
      yield [lines.slice(at, colon).toLowerCase(), lines.slice(colon + 1, end).trim()];
      at = end + 2;
    }
  }

  #remove(name: string): void {
    for (let at = findLine(this.lines, name, 0); at >= 0; at = findLine(this.lines, name, at)) {
      const end = this.lines.indexOf("\r\n", at) + 2;
      this.lines = this.lines.slice(0, at) + this.lines.slice(end);
      this.changed = true;
    }
  }
}

/** Where the next line with `name` (lower case) begins, at a line's start from `from` on; -1 when there is none. */
function findLine(lines: string, name: string, from: number): number {
  const size = name.length;
  for (let at = from; at < lines.length;) {
    if (lines.charCodeAt(at + size) === 58 && sameName(lines, at, name)) return at;
    const end = lines.indexOf("\r\n", at);
    if (end < 0) return -1;
    at = end + 2;
  }
  return -1;
}

function sameName(lines: string, at: number, name: string): boolean {
  for (let index = 0; index < name.length; index += 1) {
    const code = lines.charCodeAt(at + index);
    const lower = code >= 65 && code <= 90 ? code + 32 : code;
    if (lower !== name.charCodeAt(index)) return false;
  }
  return true;
}

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const VALUE_CHARS_MAX = 16_384;

/** Framing, what belongs to one hop, and what tells services who calls: written by the proxy alone. */
const KEPT =
  /^(?:host|connection|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade|content-length|http2-settings|expect|via|forwarded|x-real-ip|x-request-id|x-forwarded-.*|x-gilliam-.*)$/;

/** True for names that a filter can read and not write. */
export function isKeptName(name: string): boolean {
  return KEPT.test(name.toLowerCase().replaceAll("_", "-"));
}

function checkName(name: string): void {
  if (!TOKEN.test(name)) throw new TypeError(`"${name.slice(0, 64)}" is not a field name`);
  if (isKeptName(name)) throw new TypeError(`${name} is written by the proxy; a filter cannot change it`);
}

/** The line as it is sent; UTF-16 beyond Latin-1 has no place in a field (RFC 9110 5.5). */
export function checkedLine(name: string, value: unknown): string {
  checkName(name);
  const text = String(value).trim();
  if (!VALUE.test(text)) throw new TypeError(`the value for ${name} has characters that a field cannot have`);
  if (text.length > VALUE_CHARS_MAX) {
    throw new TypeError(`the value for ${name} is longer than ${VALUE_CHARS_MAX} characters`);
  }
  return `${name.toLowerCase()}: ${text}\r\n`;
}

/** Lines with this Content-Length and no other. */
export function withLength(lines: string, length: number | undefined): string {
  const rest = lines.replace(/^content-length:.*\r\n/gim, "");
  return length === undefined ? rest : `${rest}content-length: ${length}\r\n`;
}
