import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { HpackDecoder } from "./hpack-decoder.ts";
import { HpackEncoder } from "./hpack-encoder.ts";
import { decodeHuffman, encodeHuffman, huffmanLength } from "./huffman.ts";

const LIST_MAX = 65_536;
const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ""), "hex");
const decodeAll = (decoder: HpackDecoder, text: string) => {
  const bytes = hex(text);
  return decoder.decode(bytes, 0, bytes.length, LIST_MAX) ? decoder.fields : undefined;
};

const REQUESTS = [
  [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "www.example.com"],
  [
    ":method",
    "GET",
    ":scheme",
    "http",
    ":path",
    "/",
    ":authority",
    "www.example.com",
    "cache-control",
    "no-cache",
  ],
  [
    ":method",
    "GET",
    ":scheme",
    "https",
    ":path",
    "/index.html",
    ":authority",
    "www.example.com",
    "custom-key",
    "custom-value",
  ],
];
const RESPONSES = [
  [
    ":status",
    "302",
    "cache-control",
    "private",
    "date",
    "Mon, 21 Oct 2013 20:13:21 GMT",
    "location",
    "https://www.example.com",
  ],
  [
    ":status",
    "307",
    "cache-control",
    "private",
    "date",
    "Mon, 21 Oct 2013 20:13:21 GMT",
    "location",
    "https://www.example.com",
  ],
  [
    ":status",
    "200",
    "cache-control",
    "private",
    "date",
    "Mon, 21 Oct 2013 20:13:22 GMT",
    "location",
    "https://www.example.com",
    "content-encoding",
    "gzip",
    "set-cookie",
    "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
  ],
];

describe("the vectors of RFC 7541, Appendix C", () => {
  test.for([
    [
      "C.2.1 with indexing",
      "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
      ["custom-key", "custom-header"],
      55,
    ],
    ["C.2.2 without indexing", "040c 2f73 616d 706c 652f 7061 7468", [":path", "/sample/path"], 0],
    ["C.2.3 never indexed", "1008 7061 7373 776f 7264 0673 6563 7265 74", ["password", "secret"], 0],
    ["C.2.4 indexed", "82", [":method", "GET"], 0],
  ] as const)("%s", ([, block, fields, tableBytes]) => {
    const decoder = new HpackDecoder(4_096);
    expect(decodeAll(decoder, block)).toEqual(fields);
    expect(decoder.tableState.bytes).toBe(tableBytes);
  });

  test.for([
    {
      section: "C.3 requests, plain",
      tableMax: 4_096,
      lists: REQUESTS,
      tableBytes: [57, 110, 164],
      blocks: [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
      ],
    },
    {
      section: "C.4 requests, Huffman",
      tableMax: 4_096,
      lists: REQUESTS,
      tableBytes: [57, 110, 164],
      blocks: [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
      ],
    },
    {
      section: "C.5 responses, plain, with eviction",
      tableMax: 256,
      lists: RESPONSES,
      tableBytes: [222, 222, 215],
      blocks: [
        `4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32
         3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d`,
        "4803 3330 37c1 c0bf",
        `88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970
         7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61
         6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31`,
      ],
    },
    {
      section: "C.6 responses, Huffman, with eviction",
      tableMax: 256,
      lists: RESPONSES,
      tableBytes: [222, 222, 215],
      blocks: [
        `4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad
         1718 63c7 8f0b 97c8 e9ae 82ae 43d3`,
        "4883 640e ffc1 c0bf",
        `88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2
         e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07`,
      ],
    },
  ])("$section", ({ tableMax, lists, tableBytes, blocks }) => {
    const decoder = new HpackDecoder(tableMax);
    for (const [index, block] of blocks.entries()) {
      expect(decodeAll(decoder, block)).toEqual(lists[index]);
      expect(decoder.tableState.bytes).toBe(tableBytes[index]);
    }
  });
});

describe("blocks that cannot be decoded", () => {
  test.for([
    ["index 0 (6.1)", "80"],
    ["index beyond both tables (2.3.3)", "be"],
    ["name index beyond both tables", "7e 01 61"],
    ["integer cut off (5.1)", "ff"],
    ["integer too large (5.1)", "ff ff ff ff ff ff ff ff 01"],
    ["string cut off (5.2)", "00 05 61 62"],
    ["string without length", "00 01 61"],
    ["Huffman padding of 8 bits (5.2)", "00 82 1f ff 00"],
    ["Huffman padding of zeros (5.2)", "00 81 18 00"],
    ["Huffman EOS (5.2)", "00 84 ff ff ff ff 00"],
    ["table size update behind a field (4.2)", "82 20"],
    ["table size update above our setting (6.3)", "3f e2 1f"],
  ])("%s", ([, block]) => {
    expect(decodeAll(new HpackDecoder(4_096), block!)).toBeUndefined();
  });

  test("a block that ignores our smaller table (RFC 9113, 4.3.1)", () => {
    const decoder = new HpackDecoder(4_096);
    decoder.setTableBytesMax(100);
    expect(decodeAll(decoder, "82")).toBeUndefined();
    const heeding = new HpackDecoder(4_096);
    heeding.setTableBytesMax(100);
    expect(decodeAll(heeding, "3f 45 82")).toEqual([":method", "GET"]);
  });
});

describe("what is wrong with fields is told, and the table stays in step", () => {
  test.for([
    ["upper case in a name", "40 01 41 01 62"],
    ["space in a name", "40 02 61 20 01 62"],
    ["an empty name", "40 00 01 62"],
    ["LF in a value", "40 01 61 01 0a"],
    ["NUL in a value", "40 01 61 01 00"],
    ["a space before a value", "40 01 61 02 20 62"],
    ["a tab behind a value", "40 01 61 02 62 09"],
  ])("%s", ([, block]) => {
    const decoder = new HpackDecoder(4_096);
    expect(decodeAll(decoder, block!)).toBeDefined();
    expect(decoder.invalid).not.toBe("");
    expect(decoder.tableState.count).toBe(1);
    // Referred to again it is as wrong as before; other fields are not touched by it.
    decodeAll(decoder, "be");
    expect(decoder.invalid).not.toBe("");
    decodeAll(decoder, "82");
    expect(decoder.invalid).toBe("");
  });

  test("a list beyond the limit is dropped, not kept in memory (an HPACK bomb)", () => {
    const decoder = new HpackDecoder(4_096);
    const big = Buffer.concat([hex("40 01 61 7f 81 1e"), Buffer.alloc(4_000, 0x62)]);
    const bomb = Buffer.concat([big, Buffer.alloc(16_000, 0xbe)]);
    expect(decoder.decode(bomb, 0, bomb.length, LIST_MAX)).toBe(true);
    expect(decoder.tooLarge).toBe(true);
    expect(decoder.fields).toEqual([]);
    expect(decoder.tableState.count).toBe(1);
  });
});

const fieldName = fc.stringMatching(/^[a-z0-9-]{1,24}$/).filter((name) => name !== "upgrade");
const fieldValue = fc
  .array(
    fc.integer({ min: 0x21, max: 0xff }).filter((code) => code !== 0x7f),
    { maxLength: 80 },
  )
  .map((codes) => String.fromCharCode(...codes));

describe("properties", () => {
  test("Huffman: what is encoded decodes, and takes the octets announced", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (octets) => {
        const text = Buffer.from(octets).latin1Slice(0, octets.length);
        const out = Buffer.alloc(octets.length * 4 + 8);
        const end = encodeHuffman(text, out, 0);
        expect(end).toBe(huffmanLength(text));
        const back = Buffer.alloc(end * 2 + 8);
        expect(decodeHuffman(out, 0, end, back)).toBe(octets.length);
        expect(back.latin1Slice(0, octets.length)).toBe(text);
      }),
    );
  });

  test("an encoder and a decoder stay in step over any lists, table sizes and repetitions", () => {
    const list = fc.array(fc.tuple(fieldName, fieldValue), { maxLength: 12 }).map((pairs) => pairs.flat());
    const step = fc.record({ which: fc.nat({ max: 5 }), tableMax: fc.option(fc.nat({ max: 5_000 })) });
    fc.assert(
      fc.property(
        fc.array(list, { minLength: 6, maxLength: 6 }),
        fc.array(step, { maxLength: 40 }),
        (lists, steps) => {
          const encoder = new HpackEncoder();
          const decoder = new HpackDecoder(4_096);
          for (const { which, tableMax } of steps) {
            if (tableMax !== null) encoder.setPeerTableBytesMax(tableMax);
            const fields = lists[which]!;
            const out = Buffer.alloc(HpackEncoder.bound(fields) + HpackEncoder.bound([]));
            const end = encoder.fields(fields, out, encoder.start(out, 0));
            expect(decoder.decode(out, 0, end, 1_000_000)).toBe(true);
            expect(decoder.fields).toEqual(fields);
            expect(decoder.tableState).toEqual(encoder.tableState);
          }
        },
      ),
    );
  });

  test("arbitrary octets never throw, and the table keeps its bound", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }), (blocks) => {
        const decoder = new HpackDecoder(256);
        for (const block of blocks) {
          if (!decoder.decode(Buffer.from(block), 0, block.length, LIST_MAX)) break;
          expect(decoder.tableState.bytes).toBeLessThanOrEqual(256);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("the encoder", () => {
  const encode = (encoder: HpackEncoder, fields: readonly string[]) => {
    const out = Buffer.alloc(1_000);
    return Buffer.from(out.subarray(0, encoder.fields(fields, out, encoder.start(out, 0))));
  };

  test("repeats cost one octet a field from the third time on", () => {
    const encoder = new HpackEncoder();
    const fields = () => ["content-type", "text/html", "x-own", "a value"];
    encode(encoder, fields());
    encode(encoder, fields());
    expect(encode(encoder, fields()).length).toBe(2);
    const same = fields();
    expect(encode(encoder, same)).toEqual(encode(encoder, same));
  });

  test("what never repeats leaves the table alone", () => {
    const encoder = new HpackEncoder();
    for (let id = 0; id < 50; id++) encode(encoder, ["x-request-id", `id-${id}`]);
    expect(encoder.tableState.count).toBe(0);
  });

  test("secrets are never indexed (RFC 7541, 7.1.3)", () => {
    const encoder = new HpackEncoder();
    for (let turn = 0; turn < 3; turn++) {
      expect(encode(encoder, ["authorization", "Basic eA=="])[0]! & 0xf0).toBe(0x10);
    }
  });

  test("connection-specific fields and bad names are left out, bad octets neutralised", () => {
    const encoder = new HpackEncoder();
    const block = encode(encoder, ["Connection", "close", "bad name", "x", "X-Split", " a\r\nb: c "]);
    const decoder = new HpackDecoder(4_096);
    decoder.decode(block, 0, block.length, LIST_MAX);
    expect(decoder.fields).toEqual(["x-split", "a??b: c"]);
  });
});
