import { CLASS, COLON, DIGIT, HOST } from "./syntax.ts";

const BRACKET_OPEN = 91;
const BRACKET_CLOSE = 93;

/** A name, an IPv4 address or an IPv6 literal, and perhaps `:port`. No user, no list, not empty. */
export function isHost(bytes: Uint8Array, from: number, to: number): boolean {
  let at = from;
  if (bytes[at] === BRACKET_OPEN && at < to) {
    at += 1;
    while (at < to && isIpv6Char(bytes[at]!)) at += 1;
    if (at === from + 1 || at >= to || bytes[at] !== BRACKET_CLOSE) return false;
    at += 1;
  } else {
    while (at < to && (CLASS[bytes[at]!]! & HOST) !== 0) at += 1;
    if (at === from) return false;
  }
  if (at === to) return true;
  if (bytes[at] !== COLON || to - at < 2 || to - at > 6) return false;
  for (at += 1; at < to; at += 1) if ((CLASS[bytes[at]!]! & DIGIT) === 0) return false;
  return true;
}

function isIpv6Char(byte: number): boolean {
  const lower = byte | 32;
  return (byte >= 46 && byte <= 58 && byte !== 47) || (lower >= 97 && lower <= 102);
}
