import { StringDecoder } from "node:string_decoder";

/** A line was longer than allowed; the stream it came from cannot be trusted any further. */
export class LineTooLong extends Error {
  override readonly name = "LineTooLong";
}

/**
 * Yields the lines of a byte stream without their ends; an unfinished last line is dropped, as NDJSON wants.
 * @throws LineTooLong as soon as more than `bytesMax` bytes came without an end of line.
 */
export async function* readLines(
  chunks: AsyncIterable<Uint8Array>,
  bytesMax: number,
): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder("utf8");
  let parts: string[] = [];
  let held = 0;
  for await (const chunk of chunks) {
    let from = 0;
    for (let eol = chunk.indexOf(10); eol >= 0; eol = chunk.indexOf(10, from)) {
      refuseLong(held + eol - from, bytesMax);
      parts.push(decoder.write(chunk.subarray(from, eol)));
      yield parts.join("");
      parts = [];
      held = 0;
      from = eol + 1;
    }
    held += chunk.length - from;
    refuseLong(held, bytesMax);
    if (from < chunk.length) parts.push(decoder.write(chunk.subarray(from)));
  }
}

function refuseLong(bytes: number, bytesMax: number): void {
  if (bytes > bytesMax) throw new LineTooLong(`a line is longer than ${bytesMax} bytes`);
}
