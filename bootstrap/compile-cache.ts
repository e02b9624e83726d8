import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

/** The programs that load everything, write the cache and end when started with `--warm-cache`. */
const PROGRAMS = ["sidecar/main.ts", "proxy/main.ts"];
const TIMEOUT_MS = 30_000;

export interface CacheFacts {
  /** The platform's copy. */
  readonly folder: string;
  /** The Node.js that will read the cache. */
  readonly node: string;
  /** Whom the parts will run as; Node looks for a cache with that number in its name. */
  readonly uid: number;
}

/**
 * Writes the keepers' compile cache into the platform's copy: it saves each of them two thirds of the CPU of its
 * start and 40 MB, for types need not be stripped any more. Written by us and by nobody else: what is in it runs
 * with the sidecar's right to enter namespaces, and the workers, which are the same user, must not put code there.
 * Returns false when there is none: everything works without, only slower.
 */
export function warmCompileCache({ folder, node, uid }: CacheFacts): boolean {
  const target = compileCacheOf(folder);
  if (existsSync(target)) return true;
  const unfinished = `${target}.${process.pid}`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { mode: 0o700 });
  const written = PROGRAMS.every((program) => {
    const env = { NODE_COMPILE_CACHE: unfinished };
    const run = spawnSync(node, [join(folder, program), "--warm-cache"], {
      cwd: "/",
      env,
      stdio: "ignore",
      timeout: TIMEOUT_MS,
    });
    return run.status === 0;
  });
  const ending = `-${process.getuid?.() ?? 0}`;
  const name = readdirSync(unfinished).find((entry) => entry.endsWith(ending));
  if (!written || name === undefined) {
    rmSync(unfinished, { recursive: true, force: true });
    return false;
  }
  renameSync(join(unfinished, name), join(unfinished, `${name.slice(0, -ending.length)}-${uid}`));
  openForReading(unfinished);
  renameSync(unfinished, target);
  return true;
}

export function compileCacheOf(folder: string): string {
  return join(folder, "compile-cache");
}

function openForReading(folder: string): void {
  chmodSync(folder, 0o755);
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) openForReading(path);
    else chmodSync(path, 0o644);
  }
}
