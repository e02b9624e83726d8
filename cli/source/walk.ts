import { lstatSync, readdirSync, readFileSync, readlinkSync, realpathSync, type Stats } from "node:fs";
import { dirname, join, posix, relative, sep } from "node:path";
import ignore, { type Ignore } from "ignore";
import { errnoOf } from "../../base/errors.ts";
import type { TarEntry } from "./tar.ts";

/** Never part of an image: they are made anew, or are not the program. */
const ALWAYS_IGNORED = [".git", "node_modules", ".venv"];
const IGNORE_FILES = [".gitignore", ".gilliamignore"];
const ENTRIES_MAX = 100_000;

export interface SourceEntry extends TarEntry {
  readonly path: string;
}

/** Rules of one ignore file. */
interface Rules {
  readonly ignore: Ignore;
  /** A name relative to the source, as seen from the folder the file stands in. */
  readonly seenFrom: (name: string) => string;
}

/**
 * What belongs to the source in `root`, in the order of its archive: names sorted by their bytes, folders before what
 * is in them, empty folders left out. Honours .gitignore and .gilliamignore there, in every folder below, and from
 * `outermost` (the manifest's folder) down to `root`. `manifest` is left out: it is Gilliam's, not the program's.
 * Problems, one line each: links that lead outside, sockets and devices, unreadable files.
 */
export function walkSource(
  root: string,
  { outermost = root, manifest }: { outermost?: string; manifest?: string } = {},
): { entries: SourceEntry[]; problems: string[] } {
  const entries: SourceEntry[] = [];
  const problems: string[] = [];
  const realRoot = realpathSync(root);
  const visit = (folder: string, rules: readonly Rules[]): void => {
    const names = readdirSync(join(root, folder)).sort(byBytes);
    const own = [
      ...rules,
      ...rulesIn(join(root, folder), (name) => (folder === "" ? name : name.slice(folder.length + 1))),
    ];
    for (const base of names) {
      if (ALWAYS_IGNORED.includes(base)) continue;
      const name = folder === "" ? base : `${folder}/${base}`;
      const path = join(root, name);
      if (path === manifest) continue;
      if (entries.length >= ENTRIES_MAX) {
        problems.push(
          `${name}: the source has more than ${ENTRIES_MAX} files; leave some out with .gilliamignore`,
        );
        return;
      }
      const stats = lstatSync(path);
      if (isIgnored(own, name, stats.isDirectory())) continue;
      if (stats.isDirectory()) {
        const before = entries.length;
        entries.push({ name, path, type: "folder", executable: true, size: 0, target: "" });
        visit(name, own);
        if (entries.length === before + 1) entries.pop();
        continue;
      }
      const entry = entryOf(name, path, stats, realRoot);
      if (typeof entry === "string") problems.push(`${name}: ${entry}`);
      else entries.push(entry);
    }
  };
  try {
    visit("", outerRules(outermost, root));
  } catch (error) {
    problems.push(error instanceof Error ? error.message : String(error));
  }
  return { entries, problems };
}

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function entryOf(name: string, path: string, stats: Stats, realRoot: string): SourceEntry | string {
  const executable = (stats.mode & 0o100) !== 0;
  if (stats.isFile()) return { name, path, type: "file", executable, size: stats.size, target: "" };
  if (!stats.isSymbolicLink()) {
    const kind = stats.isSocket() ? "a socket" : stats.isFIFO() ? "a pipe" : "a device";
    return `is ${kind}, which cannot be part of an image; add it to .gilliamignore`;
  }
  const target = readlinkSync(path);
  if (leadsOutside(name, path, target, realRoot)) {
    return `links to ${target}, outside of the source; only links inside are kept. Copy it, or add it to .gilliamignore`;
  }
  return { name, path, type: "link", executable: false, size: 0, target };
}

/** By its text, and by what it resolves to when that exists (links through links can leave where texts do not). */
function leadsOutside(name: string, path: string, target: string, realRoot: string): boolean {
  if (target.startsWith("/")) return true;
  const lexical = posix.normalize(posix.join(posix.dirname(name), target));
  if (lexical === ".." || lexical.startsWith("../")) return true;
  try {
    const real = realpathSync(path);
    return real !== realRoot && !real.startsWith(realRoot + sep);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false; // Leads nowhere yet: the build may make it.
    return true;
  }
}

function rulesIn(path: string, seenFrom: Rules["seenFrom"]): Rules[] {
  return IGNORE_FILES.flatMap((file) => {
    try {
      return [
        { seenFrom, ignore: ignore({ ignorecase: false }).add(readFileSync(join(path, file), "utf8")) },
      ];
    } catch {
      return []; // Not there, or a folder of that name.
    }
  });
}

/** Rules of the folders from `outermost` down to just above `root`. */
function outerRules(outermost: string, root: string): Rules[] {
  const rules: Rules[] = [];
  const inside = relative(outermost, root);
  if (inside === "" || inside.startsWith("..")) return rules;
  for (let folder = dirname(root); ; folder = dirname(folder)) {
    const prefix = relative(folder, root).split(sep).join("/");
    rules.unshift(...rulesIn(folder, (name) => `${prefix}/${name}`));
    if (folder === outermost || dirname(folder) === folder) return rules;
  }
}

/** The last rule that says something decides, as in git: inner files over outer ones. */
function isIgnored(rules: readonly Rules[], name: string, isFolder: boolean): boolean {
  let isOut = false;
  for (const { ignore, seenFrom } of rules) {
    const seen = seenFrom(name);
    const { ignored, unignored } = ignore.test(isFolder ? `${seen}/` : seen);
    if (ignored) isOut = true;
    if (unignored) isOut = false;
  }
  return isOut;
}
