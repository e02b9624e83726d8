import { createHash, randomUUID } from "node:crypto";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  type ReadStream,
} from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { UserError, errnoOf } from "../base/errors.ts";
import { formatBytes } from "../base/units.ts";

/** Source archives by content, one file each: `blobs/<64 hexadecimal digits>`. A name that exists is whole and true. */
export class BlobStore {
  readonly #folder: string;
  readonly #bytesMax: number;

  constructor(folder: string, bytesMax: number) {
    this.#folder = folder;
    this.#bytesMax = bytesMax;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(folder)) {
      if (name.startsWith("upload-")) rmSync(join(folder, name), { force: true }); // Cut off by a crash.
    }
  }

  has(digest: string): boolean {
    return existsSync(this.#path(digest));
  }

  /** Undefined when there is none. */
  size(digest: string): number | undefined {
    return statSync(this.#path(digest), { throwIfNoEntry: false })?.size;
  }

  read(digest: string): ReadStream {
    return createReadStream(this.#path(digest));
  }

  /**
   * Writes the stream to disk while hashing it; it gets its name only when the digest fits and it is synced.
   * @throws UserError "digest_mismatch", "too_large", "disk_full"
   */
  async put(digest: string, content: Readable): Promise<void> {
    const draft = join(this.#folder, `upload-${randomUUID()}`);
    const hash = createHash("sha256");
    let bytes = 0;
    try {
      const file = await open(draft, "wx", 0o600);
      try {
        for await (const chunk of content as AsyncIterable<Buffer>) {
          bytes += chunk.length;
          if (bytes > this.#bytesMax) throw tooLarge(this.#bytesMax);
          hash.update(chunk);
          for (let at = 0; at < chunk.length;) at += (await file.write(chunk, at)).bytesWritten;
        }
        await file.sync();
      } finally {
        await file.close();
      }
      const found = `sha256:${hash.digest("hex")}`;
      if (found !== digest) throw mismatch(digest, found);
      await rename(draft, this.#path(digest));
    } catch (error) {
      await rm(draft, { force: true });
      throw errnoOf(error) === "ENOSPC" || errnoOf(error) === "EDQUOT"
        ? diskFull(this.#folder, error)
        : error;
    }
  }

  /** Removes every archive not in `kept` that was not touched for `idleMs`; returns how many. */
  collect(kept: ReadonlySet<string>, nowMs: number, idleMs: number): number {
    let removed = 0;
    for (const name of readdirSync(this.#folder)) {
      const path = join(this.#folder, name);
      const info = statSync(path, { throwIfNoEntry: false });
      if (!/^[0-9a-f]{64}$/.test(name) || info === undefined) continue;
      if (kept.has(`sha256:${name}`) || nowMs - info.mtimeMs < idleMs) continue;
      rmSync(path, { force: true });
      removed += 1;
    }
    return removed;
  }

  #path(digest: string): string {
    const match = /^sha256:([0-9a-f]{64})$/.exec(digest);
    if (match?.[1] === undefined) throw new Error(`not a digest: ${digest}`); // Checked at the API.
    return join(this.#folder, match[1]);
  }
}

function tooLarge(bytesMax: number): UserError {
  return new UserError(`The archive is larger than ${formatBytes(bytesMax)}`, {
    code: "too_large",
    status: 413,
    next: "Name what it does not need in .gilliamignore, or raise GILLIAM_CONTROL_BLOB_MAX.",
  });
}

function mismatch(wanted: string, found: string): UserError {
  return new UserError(`The archive is ${found}, not ${wanted}`, {
    code: "digest_mismatch",
    status: 422,
    next: "Send it again; it was changed or cut on the way.",
  });
}

function diskFull(folder: string, cause: unknown): UserError {
  return new UserError(`The disk of ${folder} is full; nothing was kept of the archive`, {
    code: "disk_full",
    status: 507,
    next: "Free some space on that disk, then try again.",
    cause,
  });
}
