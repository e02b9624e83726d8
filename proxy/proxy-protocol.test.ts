import { assert, constantFrom, nat, property, uint8Array } from "fast-check";
import { expect, test } from "vitest";
import { crc32cWithout, parseProxyHeader } from "./proxy-protocol.ts";

const SIGNATURE = "\r\n\r\n\0\r\nQUIT\n";
const text = (latin1: string) => Buffer.from(latin1, "latin1");

/** A header of version 2. */
function v2(command: number, family: number, rest: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(rest.length);
  return Buffer.concat([text(SIGNATURE), Buffer.from([command, family]), length, rest]);
}

function tlv(type: number, value: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(value.length);
  return Buffer.concat([Buffer.from([type]), length, value]);
}

const INET = Buffer.from([192, 0, 2, 1, 198, 51, 100, 2, 0xd4, 0x31, 0x01, 0xbb]);
const INET6 = Buffer.from(`20010db8${"00".repeat(11)}01${"00".repeat(15)}01d43101bb`, "hex");

test.for([
  ["PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\nGET", "192.0.2.1", 54_321, 45],
  ["PROXY TCP6 2001:db8::1 ::1 1 0\r\n", "2001:db8::1", 1, 32],
  ["PROXY UNKNOWN\r\n", undefined, undefined, 15],
  ["PROXY UNKNOWN ffff::1 anything 9 9\r\n", undefined, undefined, 36],
] as const)("%j names %s", ([sent, address, port, size]) => {
  const source = address === undefined ? undefined : { address, port };
  expect(parseProxyHeader(text(sent))).toMatchObject({ kind: "whole", size, source });
});

test.for([
  "GET / HTTP/1.1\r\n",
  "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
  "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
  "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
  "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
  "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
  "PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n",
  "PROXY TCP4 192.0.02.1 198.51.100.2 1 2\r\n",
  "PROXY TCP4 ::1 ::1 1 2\r\n",
  "PROXY TCP6 192.0.2.1 ::1 1 2\r\n",
  "PROXY TCP6 1::2::3 ::1 1 2\r\n",
  "PROXY TCP6 ::1%eth0 ::1 1 2\r\n",
  "PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n",
  "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
  "proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
  `PROXY UNKNOWN ${"x".repeat(100)}\r\n`,
])("%j is refused", (sent) => {
  expect(parseProxyHeader(text(sent))).toMatchObject({ kind: "bad" });
});

test.for([
  { what: "TCP over IPv4", header: v2(0x21, 0x11, INET), source: { address: "192.0.2.1", port: 54_321 } },
  { what: "TCP over IPv6", header: v2(0x21, 0x21, INET6), source: { address: "2001:db8::1", port: 54_321 } },
  { what: "LOCAL", header: v2(0x20, 0x00, Buffer.alloc(0)), source: undefined },
  { what: "LOCAL with an address", header: v2(0x20, 0x11, INET), source: undefined },
  { what: "an unknown family", header: v2(0x21, 0x00, Buffer.alloc(0)), source: undefined },
  { what: "a Unix socket", header: v2(0x21, 0x31, Buffer.alloc(216)), source: undefined },
  {
    what: "other TLVs",
    header: v2(0x21, 0x11, Buffer.concat([INET, tlv(0x01, text("h2")), tlv(0xee, Buffer.alloc(0))])),
    source: { address: "192.0.2.1", port: 54_321 },
  },
])("version 2: $what", ({ header, source }) => {
  const sent = Buffer.concat([header, text("GET")]);
  expect(parseProxyHeader(sent)).toMatchObject({ kind: "whole", size: header.length, source });
});

test.for([
  { what: "another version", header: v2(0x11, 0x11, INET) },
  { what: "another command", header: v2(0x22, 0x11, INET) },
  { what: "another family", header: v2(0x21, 0x41, INET) },
  { what: "another transport", header: v2(0x21, 0x13, INET) },
  { what: "too few bytes for its addresses", header: v2(0x21, 0x21, INET) },
  { what: "a TLV that is cut off", header: v2(0x21, 0x11, Buffer.concat([INET, Buffer.from([1, 0])])) },
  {
    what: "a TLV longer than the rest",
    header: v2(0x21, 0x11, Buffer.concat([INET, Buffer.from([1, 0, 9, 1])])),
  },
  { what: "a checksum of two bytes", header: v2(0x21, 0x11, Buffer.concat([INET, tlv(3, Buffer.alloc(2))])) },
  { what: "a wrong checksum", header: v2(0x21, 0x11, Buffer.concat([INET, tlv(3, Buffer.alloc(4))])) },
  { what: "too much of it", header: v2(0x21, 0x11, Buffer.concat([INET, tlv(4, Buffer.alloc(3000))])) },
  { what: "a wrong signature", header: text("\r\n\r\n\0\r\nQUIX\n0123") },
])("version 2 with $what is refused", ({ header }) => {
  expect(parseProxyHeader(header)).toMatchObject({ kind: "bad" });
});

test("a checksum is that of CRC-32C, over a header with zeros in its place", () => {
  expect(crc32cWithout(text("123456789"), 100)).toBe(0xe306_9283);
  const header = v2(0x21, 0x11, Buffer.concat([INET, tlv(3, Buffer.alloc(4)), tlv(4, Buffer.alloc(2))]));
  const hole = 16 + INET.length + 3;
  header.writeUInt32BE(crc32cWithout(header, hole), hole);
  expect(parseProxyHeader(header)).toMatchObject({ kind: "whole", size: header.length });
  header[17] = header[17]! ^ 1;
  expect(parseProxyHeader(header)).toEqual({ kind: "bad", problem: "its checksum is wrong" });
});

test("a header in pieces is waited for, and read the same however it is cut", () => {
  const headers = [text("PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\n"), v2(0x21, 0x21, INET6)];
  for (const header of headers) {
    for (let cut = 0; cut < header.length; cut += 1) {
      expect(parseProxyHeader(header.subarray(0, cut))).toEqual({ kind: "more" });
    }
  }
});

test("whatever comes is read, refused or waited for; more bytes never change a verdict", () => {
  const begins = constantFrom(
    "",
    "PROXY ",
    "PROXY TCP4 1.2.3.4 ",
    "PROXY TCP6 ",
    SIGNATURE,
    `${SIGNATURE}!\x11\0`,
  );
  assert(
    property(begins, uint8Array({ maxLength: 300 }), nat(300), (start, rest, cut) => {
      const bytes = Buffer.concat([text(start), rest]);
      const early = parseProxyHeader(bytes.subarray(0, cut));
      const late = parseProxyHeader(bytes);
      if (early.kind !== "more") expect(late).toEqual(early);
      if (late.kind === "whole") expect(late.size).toBeLessThanOrEqual(bytes.length);
    }),
  );
});
