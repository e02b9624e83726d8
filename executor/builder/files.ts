import { chmodSync, lchownSync, lstatSync, readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { walkTree } from "../../base/remove-tree.ts";
import type { SourceFolder } from "./language.ts";

/** Nobody may write it, everybody may read it, nothing in it gives away a user's rights. `owner` is for root only. */
export function makeReadOnly(folder: string, owner: number | undefined): void {
  for (const path of walkTree(folder)) {
    const stat = lstatSync(path);
    if (owner !== undefined) lchownSync(path, owner, owner);
    if (stat.isSymbolicLink()) continue;
    chmodSync(path, stat.isDirectory() || (stat.mode & 0o111) !== 0 ? 0o555 : 0o444);
  }
}

export function giveTo(folder: string, owner: number): void {
  for (const path of walkTree(folder)) lchownSync(path, owner, owner);
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
