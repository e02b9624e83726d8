/**
 * Deterministic archives: POSIX ustar with a pax header where a name or size does not fit, every header reduced to
 * what matters (mtime 0, owner 0, mode 0644 or 0755), so that the same files always give the same bytes.
 */

export interface TarEntry {
  /** Relative, `/`-separated, without a trailing slash. */
  readonly name: string;
  readonly type: "file" | "folder" | "link";
  readonly executable: boolean;
  /** Bytes of content; 0 unless a file. */
  readonly size: number;
  /** Where a link leads; "" unless a link. */
  readonly target: string;
}

const BLOCK = 512;
/** Largest size the octal field holds. */
const OCTAL_SIZE_MAX = 0o77777777777;

/** Everything that comes before an entry's content. */
export function tarHeader(entry: TarEntry): Buffer {
  const name = entry.type === "folder" ? `${entry.name}/` : entry.name;
  const split = splitName(name);
  const records: [string, string][] = [];
  if (split === undefined) records.push(["path", name]);
  if (Buffer.byteLength(entry.target) > 100) records.push(["linkpath", entry.target]);
  if (entry.size > OCTAL_SIZE_MAX) records.push(["size", String(entry.size)]);
  const header = ustar(entry, split ?? { prefix: "", name: cutBytes(name, 100) });
  if (records.length === 0) return header;
  const content = Buffer.concat(records.map(([key, value]) => paxRecord(key, value)));
  const paxEntry: TarEntry = {
    name: "pax",
    type: "file",
    executable: false,
    size: content.length,
    target: "",
  };
  const pax = ustar(paxEntry, { prefix: "", name: "PaxHeader" }, "x");
  return Buffer.concat([pax, content, tarPadding(content.length), header]);
}

/** Zeros up to the next block. */
export function tarPadding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

export function tarEnd(): Buffer {
  return Buffer.alloc(2 * BLOCK);
}

function ustar(entry: TarEntry, { prefix, name }: { prefix: string; name: string }, type?: string): Buffer {
  const block = Buffer.alloc(BLOCK);
  const size = entry.size > OCTAL_SIZE_MAX ? 0 : entry.size;
  const mode = entry.type === "folder" || entry.type === "link" || entry.executable ? 0o755 : 0o644;
  block.write(name, 0, 100);
  block.write(octal(mode, 8), 100);
  block.write(octal(0, 8), 108); // Owner.
  block.write(octal(0, 8), 116); // Group.
  block.write(octal(size, 12), 124);
  block.write(octal(0, 12), 136); // Time of change.
  block.write("        ", 148); // The checksum counts itself as spaces.
  block.write(type ?? { file: "0", link: "2", folder: "5" }[entry.type], 156);
  block.write(cutBytes(entry.target, 100), 157, 100);
  block.write("ustar\u000000", 257, "latin1");
  block.write(prefix, 345, 155);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\u0000 `, 148, "latin1");
  return block;
}

function octal(value: number, width: number): string {
  return `${value.toString(8).padStart(width - 1, "0")}\u0000`;
}

/** At most 100 bytes of name after at most 155 of prefix, divided at a slash; undefined when that cannot be. */
function splitName(name: string): { prefix: string; name: string } | undefined {
  if (Buffer.byteLength(name) <= 100) return { prefix: "", name };
  for (
    let slash = name.indexOf("/");
    slash > 0 && slash < name.length - 1;
    slash = name.indexOf("/", slash + 1)
  ) {
    const [prefix, rest] = [name.slice(0, slash), name.slice(slash + 1)];
    if (Buffer.byteLength(prefix) <= 155 && Buffer.byteLength(rest) <= 100) return { prefix, name: rest };
  }
  return undefined;
}

/** `LENGTH key=value\n`, where LENGTH counts itself. */
function paxRecord(key: string, value: string): Buffer {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest + 1;
  while (String(length).length + rest !== length) length = String(length).length + rest;
  return Buffer.from(`${length} ${key}=${value}\n`);
}

/** The longest beginning of at most `max` bytes that breaks no character. */
function cutBytes(text: string, max: number): string {
  let bytes = 0;
  let kept = "";
  for (const character of text) {
    bytes += Buffer.byteLength(character);
    if (bytes > max) break;
    kept += character;
  }
  return kept;
}
