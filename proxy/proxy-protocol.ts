/**
 * The PROXY protocol, versions 1 and 2: what a load balancer in front says about a connection before its first byte
 * (HAProxy, proxy-protocol.txt). Pure. Strict: what is not exactly as written there is refused.
 */

/** The two ends of a client's connection: the client's, and the one it connected to. */
export interface ProxyEnds {
  readonly address: string;
  readonly port: number;
  readonly ownAddress: string;
  readonly ownPort: number;
}

export type ProxyHeader =
  /** Not whole yet. */
  | { readonly kind: "more" }
  | { readonly kind: "bad"; readonly problem: string }
  /** `size` bytes belong to it. Without a source it speaks for itself (LOCAL, UNKNOWN): the connection's address holds. */
  | { readonly kind: "whole"; readonly size: number; readonly source: ProxyEnds | undefined };

const MORE: ProxyHeader = { kind: "more" };
/** With CR LF; section 2.1. */
const V1_BYTES_MAX = 107;
export const V2_SIGNATURE: Buffer = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
const V2_FIXED_BYTES = 16;
/** Of addresses and TLVs. The format allows 65,535; addresses of Unix sockets, the longest, take 216. */
const V2_REST_BYTES_MAX = 2_048;
/** By address family: what source and destination take. */
const V2_ADDRESS_BYTES = [0, 12, 36, 216] as const;
const TLV_CRC32C = 0x03;

/** The longest header that is read. */
export const PROXY_HEADER_BYTES_MAX: number = V2_FIXED_BYTES + V2_REST_BYTES_MAX;

/** Reads the header at the beginning of `bytes`. */
export function parseProxyHeader(bytes: Buffer): ProxyHeader {
  if (bytes.length === 0) return MORE;
  if (bytes[0] === V2_SIGNATURE[0]) return parseV2(bytes);
  return parseV1(bytes);
}

function bad(problem: string): ProxyHeader {
  return { kind: "bad", problem };
}

function parseV1(bytes: Buffer): ProxyHeader {
  const start = bytes.toString("latin1", 0, V1_BYTES_MAX);
  const begins = "PROXY ";
  if (start.slice(0, begins.length) !== begins.slice(0, start.length))
    return bad("it does not begin with PROXY");
  const end = start.indexOf("\r\n");
  if (end < 0) return bytes.length >= V1_BYTES_MAX ? bad("its line is too long") : MORE;
  const size = end + 2;
  const words = start.slice(0, end).split(" ");
  // What follows UNKNOWN must be ignored.
  if (words[1] === "UNKNOWN") return { kind: "whole", size, source: undefined };
  const [, family, source, destination, sourcePort, destinationPort, ...more] = words;
  const check = family === "TCP4" ? isIPv4 : family === "TCP6" ? isIPv6 : undefined;
  if (check === undefined) return bad("its family is neither TCP4, TCP6 nor UNKNOWN");
  const port = parsePort(sourcePort);
  const ownPort = parsePort(destinationPort);
  const whole = more.length === 0 && check(source) && check(destination);
  if (!whole || port === undefined || ownPort === undefined)
    return bad("its addresses or ports are malformed");
  return {
    kind: "whole",
    size,
    source: { address: source!, port, ownAddress: destination!, ownPort },
  };
}

function parsePort(text: string | undefined): number | undefined {
  if (text === undefined || !/^(?:0|[1-9]\d{0,4})$/.test(text)) return undefined;
  const port = Number(text);
  return port <= 65_535 ? port : undefined;
}

function isIPv4(text: string | undefined): boolean {
  const parts = text?.split(".") ?? [];
  return (
    parts.length === 4 && parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)
  );
}

/** Hexadecimal groups and at most one `::`; no zone and no dotted tail (section 2.1 shows neither). */
function isIPv6(text: string | undefined): boolean {
  if (text === undefined || text.length > 39) return false;
  const halves = text.split("::");
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => (half === "" ? [] : half.split(":")));
  const whole = halves.length === 1 ? groups.length === 8 : groups.length <= 7;
  return whole && groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group));
}

function parseV2(bytes: Buffer): ProxyHeader {
  const known = Math.min(bytes.length, V2_SIGNATURE.length);
  if (bytes.compare(V2_SIGNATURE, 0, known, 0, known) !== 0) return bad("its signature is wrong");
  if (bytes.length < V2_FIXED_BYTES) return MORE;
  const command = bytes[12]!;
  if (command !== 0x20 && command !== 0x21) return bad("its version or command is unknown");
  const family = bytes[13]! >> 4;
  const transport = bytes[13]! & 0x0f;
  if (family > 3 || transport > 2) return bad("its address family or transport is unknown");
  const rest = bytes.readUInt16BE(14);
  if (rest > V2_REST_BYTES_MAX) return bad("it is too long");
  const size = V2_FIXED_BYTES + rest;
  const addressBytes = V2_ADDRESS_BYTES[family]!;
  const local = command === 0x20;
  if (!local && rest < addressBytes) return bad("it is too short for its addresses");
  if (bytes.length < size) return MORE;
  // LOCAL says nothing about the family's bytes being there, only that they are to be skipped.
  const tlvsFrom = V2_FIXED_BYTES + (rest < addressBytes ? rest : addressBytes);
  const problem = tlvProblem(bytes.subarray(0, size), tlvsFrom);
  if (problem !== undefined) return bad(problem);
  if (local || transport !== 1) return { kind: "whole", size, source: undefined };
  return { kind: "whole", size, source: v2Source(bytes, family) };
}

function v2Source(bytes: Buffer, family: number): ProxyEnds | undefined {
  if (family === 1) {
    return {
      address: bytes.subarray(16, 20).join("."),
      port: bytes.readUInt16BE(24),
      ownAddress: bytes.subarray(20, 24).join("."),
      ownPort: bytes.readUInt16BE(26),
    };
  }
  if (family !== 2) return undefined;
  const v6 = (from: number) =>
    shortest(Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(from + index * 2).toString(16)));
  return {
    address: v6(16),
    port: bytes.readUInt16BE(48),
    ownAddress: v6(32),
    ownPort: bytes.readUInt16BE(50),
  };
}

/** The longest run of zero groups becomes `::` (RFC 5952 4.2). */
export function shortest(groups: readonly string[]): string {
  let best = { from: 0, length: 0 };
  for (let from = 0; from < groups.length; from += 1) {
    let length = 0;
    while (groups[from + length] === "0") length += 1;
    if (length > best.length) best = { from, length };
  }
  if (best.length < 2) return groups.join(":");
  return `${groups.slice(0, best.from).join(":")}::${groups.slice(best.from + best.length).join(":")}`;
}

/** What is wrong with the TLVs from `from` on; the checksum among them is checked (section 2.2.3). */
function tlvProblem(header: Buffer, from: number): string | undefined {
  let at = from;
  let checked = false;
  while (at < header.length) {
    if (at + 3 > header.length) return "a TLV is cut off";
    const length = header.readUInt16BE(at + 1);
    const value = at + 3;
    if (value + length > header.length) return "a TLV is cut off";
    if (header[at] === TLV_CRC32C) {
      if (length !== 4 || checked) return "its checksum is malformed";
      checked = true;
      if (header.readUInt32BE(value) !== crc32cWithout(header, value)) return "its checksum is wrong";
    }
    at = value + length;
  }
  return undefined;
}

/** CRC-32C (Castagnoli, RFC 3720 B.4) of `bytes`, with the four at `hole` taken for zero. */
export function crc32cWithout(bytes: Uint8Array, hole: number): number {
  let crc = 0xffff_ffff;
  for (let index = 0; index < bytes.length; index += 1) {
    crc ^= index >= hole && index < hole + 4 ? 0 : bytes[index]!;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ 0x82f6_3b78;
  }
  return (crc ^ 0xffff_ffff) >>> 0;
}
