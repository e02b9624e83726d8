/**
 * Which octets a field may hold. Names: lower-case tokens (RFC 9113, 8.2.1; RFC 9110, 5.1). Values: no control
 * but HTAB, no white space at the ends (RFC 9113, 8.2.1; RFC 9110, 5.5). We refuse what recipients "may" repair.
 */
const NAME_OCTET = new Uint8Array(256);
for (const character of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") {
  NAME_OCTET[character.charCodeAt(0)] = 1;
}
const METHOD_OCTET = NAME_OCTET.slice();
for (let octet = 0x41; octet <= 0x5a; octet++) METHOD_OCTET[octet] = 1;

/** True for a field name of RFC 9113; a pseudo-header's leading colon passes, its name is checked elsewhere. */
export function isFieldName(name: string): boolean {
  const from = name.charCodeAt(0) === 0x3a ? 1 : 0;
  if (name.length === from) return false;
  for (let at = from; at < name.length; at++) {
    if (NAME_OCTET[name.charCodeAt(at)] !== 1) return false;
  }
  return true;
}

/** True for a latin1 field value that may travel to the next hop. */
export function isFieldValue(value: string): boolean {
  const last = value.length - 1;
  if (last < 0) return true;
  const first = value.charCodeAt(0);
  const final = value.charCodeAt(last);
  if (first === 0x20 || first === 0x09 || final === 0x20 || final === 0x09) return false;
  for (let at = 0; at <= last; at++) {
    const code = value.charCodeAt(at);
    if ((code < 0x20 && code !== 0x09) || code === 0x7f || code > 0xff) return false;
  }
  return true;
}

/** True for a method: a token (RFC 9110, 9.1). */
export function isMethod(method: string): boolean {
  for (let at = 0; at < method.length; at++) {
    if (METHOD_OCTET[method.charCodeAt(at)] !== 1) return false;
  }
  return method.length > 0;
}

/** True when every octet is visible ASCII and none of `except` occurs. An empty text passes. */
export function isVisible(text: string, except: string): boolean {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code <= 0x20 || code >= 0x7f) return false;
    if (except.includes(text[at]!)) return false;
  }
  return true;
}

/** A length in decimal digits alone, at most 2^53 - 1; -1 for anything else (RFC 9110, 8.6). */
export function parseContentLength(value: string): number {
  const digits = value.length;
  if (digits === 0 || digits > 16) return -1;
  let length = 0;
  for (let at = 0; at < digits; at++) {
    const digit = value.charCodeAt(at) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    length = length * 10 + digit;
  }
  return length <= Number.MAX_SAFE_INTEGER ? length : -1;
}
