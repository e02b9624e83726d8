import { createHash } from "node:crypto";
import {
  closeSync,
  createReadStream,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { open, rename, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf } from "./errors.ts";

/**
 * A JSON document on disk that is either the old or the new one, whatever dies when. The previous generation
 * stays beside it as `.previous`; the first line is the SHA-256 of the rest, so a damaged file is noticed and
 * the previous one used. An empty result is only ever said of a file that was never written.
 */
export function writeDurable(path: string, value: unknown): void {
  const body = JSON.stringify(value);
  const bytes = Buffer.from(`${digest(body)}\n${body}`);
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const file = openSync(temporary, "w", 0o600);
    try {
      for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    if (readOne(path).kind === "whole") renameSync(path, `${path}.previous`);
    renameSync(temporary, path);
  } catch (error) {
    try {
      unlinkSync(temporary);
    } catch {
      // It may not exist; the first error is the one to tell.
    }
    throw error;
  }
  const folder = openSync(dirname(path), "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** Like `writeDurable`, without holding up the event loop for the disk. One writer a path at a time. */
export async function writeDurableLater(path: string, value: unknown): Promise<void> {
  await writeDurablePieces(path, [JSON.stringify(value)]);
}

/** The same for a large document, given as the pieces of its JSON: the event loop turns after every 64 KiB of it. */
export async function writeDurablePieces(path: string, pieces: Iterable<string>): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  const hash = createHash("sha256");
  try {
    const file = await open(temporary, "w", 0o600);
    try {
      let at = DIGEST_CHARS + 1;
      for (const text of batches(pieces)) {
        const bytes = Buffer.from(text);
        hash.update(bytes);
        await file.write(bytes, 0, bytes.length, at);
        at += bytes.length;
      }
      await file.write(`${hash.digest("hex")}\n`, 0);
      await file.sync();
    } finally {
      await file.close();
    }
    if (await isWhole(path)) await rename(path, `${path}.previous`);
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => undefined); // It may not exist; the first error is the one to tell.
    throw error;
  }
  const folder = await open(dirname(path), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Has the file at `path` the digest it claims to have? False also when there is none. */
async function isWhole(path: string): Promise<boolean> {
  const hash = createHash("sha256");
  let claimed: Buffer = Buffer.alloc(0);
  try {
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      const missing = DIGEST_CHARS + 1 - claimed.length;
      if (missing > 0) claimed = Buffer.concat([claimed, chunk.subarray(0, missing)]);
      hash.update(missing > 0 ? chunk.subarray(missing) : chunk);
    }
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
  return claimed.toString("latin1") === `${hash.digest("hex")}\n`;
}

const DIGEST_CHARS = 64;
const BATCH_CHARS = 65_536;

/** Pieces put together, so that a write is worth its while. */
function* batches(pieces: Iterable<string>): Generator<string> {
  let text = "";
  for (const piece of pieces) {
    text += piece;
    if (text.length < BATCH_CHARS) continue;
    yield text;
    text = "";
  }
  yield text;
}

export type DurableRead =
  | { readonly kind: "missing" }
  /** `damaged` says that the newest generation was broken and this is the previous one. */
  | { readonly kind: "read"; readonly value: unknown; readonly damaged: boolean }
  | { readonly kind: "damaged"; readonly reason: string };

export function readDurable(path: string): DurableRead {
  const current = readOne(path);
  if (current.kind === "whole") return { kind: "read", value: current.value, damaged: false };
  const previous = readOne(`${path}.previous`);
  if (previous.kind === "whole") {
    return { kind: "read", value: previous.value, damaged: current.kind === "broken" };
  }
  if (current.kind === "missing" && previous.kind === "missing") return { kind: "missing" };
  return { kind: "damaged", reason: `${path} and its previous generation do not match their checksums` };
}

type OneRead = { kind: "missing" } | { kind: "broken" } | { kind: "whole"; value: unknown };

function readOne(path: string): OneRead {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return { kind: "missing" };
    throw error;
  }
  const eol = text.indexOf("\n");
  const body = text.slice(eol + 1);
  if (eol < 0 || text.slice(0, eol) !== digest(body)) return { kind: "broken" };
  try {
    return { kind: "whole", value: JSON.parse(body) as unknown };
  } catch {
    return { kind: "broken" };
  }
}

function digest(body: string): string {
  return createHash("sha256").update(body).digest("hex");
}
