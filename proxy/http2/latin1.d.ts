/** Methods of Node's Buffer that its types leave out: what `toString("latin1")` and `write(…, "latin1")` call. */
interface Buffer {
  latin1Slice(start: number, end: number): string;
  latin1Write(text: string, offset: number): number;
}
