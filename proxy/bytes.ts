/** Node has this on every Buffer, one step shorter than `toString("latin1")`, but not in its types. */
interface Latin1Bytes {
  latin1Slice(from: number, to: number): string;
}

/** `bytes[from, to)` as text, one character a byte: what goes in comes out unchanged when written as Latin-1. */
export function latin1(bytes: Buffer, from: number, to: number): string {
  return (bytes as unknown as Latin1Bytes).latin1Slice(from, to);
}

/** The same text in one piece. What was put together of many pieces is put together anew by each write. */
export function flat(text: string): string {
  const bytes = Buffer.from(text, "latin1");
  return latin1(bytes, 0, bytes.length);
}
