import { chmodSync, lstatSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";

/** Every path below `folder`, and itself, parents first. Does not follow symbolic links. */
export function* walkTree(folder: string): Generator<string> {
  yield folder;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* walkTree(path);
    else yield path;
  }
}

/**
 * Removes a folder and all below it, read-only folders too, which only root removes without this; nothing if it does
 * not exist. What belongs to somebody else is left to the error of the removal itself.
 */
export function removeTree(folder: string): void {
  if (lstatSync(folder, { throwIfNoEntry: false }) === undefined) return;
  const mine = process.getuid?.();
  for (const path of walkTree(folder)) {
    const stat = lstatSync(path);
    if (stat.isDirectory() && (mine === 0 || stat.uid === mine)) chmodSync(path, stat.mode | 0o700);
  }
  rmSync(folder, { recursive: true, force: true });
}
