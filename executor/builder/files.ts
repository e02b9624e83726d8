import {
  chmodSync,
  existsSync,
  lchownSync,
  lstatSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import type { SourceFolder } from "./language.ts";

/** Every path below `folder`, and itself, parents first. Does not follow symbolic links. */
function* walk(folder: string): Generator<string> {
  yield folder;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* walk(path);
    else yield path;
  }
}

/** Nobody may write it, everybody may read it, nothing in it gives away a user's rights. `owner` is for root only. */
export function makeReadOnly(folder: string, owner: number | undefined): void {
  for (const path of walk(folder)) {
    const stat = lstatSync(path);
    if (owner !== undefined) lchownSync(path, owner, owner);
    if (stat.isSymbolicLink()) continue;
    chmodSync(path, stat.isDirectory() || (stat.mode & 0o111) !== 0 ? 0o555 : 0o444);
  }
}

/** Removes a folder that was made read-only. */
export function removeReadOnly(folder: string): void {
  if (!existsSync(folder)) return;
  for (const path of walk(folder)) if (lstatSync(path).isDirectory()) chmodSync(path, 0o755);
  rmSync(folder, { recursive: true, force: true });
}

export function giveTo(folder: string, owner: number): void {
  for (const path of walk(folder)) lchownSync(path, owner, owner);
}

export function describeFolder(folder: string): SourceFolder {
  const entries = readdirSync(folder, { withFileTypes: true });
  const isFile = (name: string) => statSync(join(folder, name), { throwIfNoEntry: false })?.isFile() === true;
  return {
    names: new Set(entries.map(({ name }) => name)),
    executables: entries
      .map(({ name }) => name)
      .filter((name) => isFile(name) && (statSync(join(folder, name)).mode & 0o111) !== 0)
      .sort(),
    read: (name) => (isFile(name) ? readFileSync(join(folder, name), "utf8") : undefined),
  };
}
