import { createHash, randomUUID } from "node:crypto";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf, messageOf } from "../../base/errors.ts";
import type { Log } from "../../base/log.ts";

export interface FilterStoreOptions {
  /** Beside the saved epoch. */
  readonly folder: string;
  /** A bundle from control, by its digest; rejects when control is away or has none. */
  readonly fetch: (digest: string) => Promise<Buffer>;
  readonly log: Log;
}

/**
 * Bundles of filters by their digest, on disk beside the saved epoch, so that a proxy that starts without control has
 * what that epoch needs. A name that exists is whole; what is read is checked all the same.
 */
export class FilterStore {
  readonly #options: FilterStoreOptions;
  #kept: ReadonlySet<string> = new Set();

  constructor(options: FilterStoreOptions) {
    this.#options = options;
  }

  /** @throws Error when it is neither here nor at control, or is not what its digest says. */
  async load(digest: string): Promise<string> {
    const path = this.#path(digest);
    const saved = await this.#read(path);
    if (saved !== undefined && digestOf(saved) === digest) return saved.toString("utf8");
    if (saved !== undefined)
      this.#options.log.error({ path }, "a saved filter is damaged; asking control for it");
    const fetched = await this.#options.fetch(digest);
    const found = digestOf(fetched);
    if (found !== digest) throw new Error(`control sent ${found} for ${digest}`);
    await this.#save(path, fetched);
    return fetched.toString("utf8");
  }

  /** Removes what neither these nor those of the call before name: the last epoch may be needed once more. */
  keep(digests: ReadonlySet<string>): void {
    const names = new Set([...this.#kept, ...digests].map((digest) => this.#name(digest)));
    this.#kept = digests;
    try {
      for (const name of readdirSync(this.#options.folder)) {
        if (!names.has(name) && /^[0-9a-f]{64}$/.test(name))
          rmSync(join(this.#options.folder, name), { force: true });
      }
    } catch (error) {
      if (errnoOf(error) !== "ENOENT")
        this.#options.log.warn({ reason: messageOf(error) }, "cannot clear away old filters");
    }
  }

  async #read(path: string): Promise<Buffer | undefined> {
    try {
      return await readFile(path);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") {
        this.#options.log.error({ path, reason: messageOf(error) }, "cannot read a saved filter");
      }
      return undefined;
    }
  }

  /** A disk that is full costs the memory of a restart, never the filter. */
  async #save(path: string, bytes: Buffer): Promise<void> {
    const draft = join(this.#options.folder, `draft-${randomUUID()}`);
    try {
      mkdirSync(this.#options.folder, { recursive: true, mode: 0o700 });
      const file = await open(draft, "wx", 0o600);
      try {
        await file.writeFile(bytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(draft, path);
    } catch (error) {
      await rm(draft, { force: true }).catch(() => undefined);
      this.#options.log.error(
        { path, reason: messageOf(error) },
        "cannot save a filter; a restart without control has none",
      );
    }
  }

  #path(digest: string): string {
    return join(this.#options.folder, this.#name(digest));
  }

  #name(digest: string): string {
    return digest.slice("sha256:".length);
  }
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
