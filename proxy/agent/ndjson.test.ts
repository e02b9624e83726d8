import * as fc from "fast-check";
import { expect, test } from "vitest";
import { readLines } from "./ndjson.ts";

async function* chunksOf(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let at = 0;
  for (let turn = 0; at < bytes.length; turn++) {
    const size = sizes[turn % sizes.length] ?? 1;
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

async function linesOf(text: string, sizes: readonly number[], bytesMax = 1_000): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of readLines(chunksOf(Buffer.from(text), sizes), bytesMax)) lines.push(line);
  return lines;
}

test("lines come out whole however the bytes are cut", async () => {
  const text = fc.string({ unit: "grapheme", maxLength: 40 }).map((line) => line.replaceAll("\n", ""));
  await fc.assert(
    fc.asyncProperty(
      fc.array(text),
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 }),
      async (lines, sizes) => {
        expect(await linesOf(lines.map((line) => `${line}\n`).join(""), sizes)).toEqual(lines);
      },
    ),
  );
});

test("an unfinished last line is dropped", async () => {
  expect(await linesOf('{"a":1}\n{"b":', [3])).toEqual(['{"a":1}']);
});

test.for([
  { text: `${"x".repeat(10)}\n`, sizes: [4], fits: true },
  { text: `${"x".repeat(11)}\n`, sizes: [4], fits: false },
  { text: "x".repeat(11), sizes: [4], fits: false }, // Refused before its end came.
])("a line of $text.length with the limit 10 fits: $fits", async ({ text, sizes, fits }) => {
  const lines = linesOf(text, sizes, 10);
  if (fits) await expect(lines).resolves.toHaveLength(1);
  else await expect(lines).rejects.toThrow("longer than 10 bytes");
});
