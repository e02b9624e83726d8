import { fork } from "node:child_process";
import { createHash } from "node:crypto";
import { statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { BuildFailure } from "esbuild";
import type { Manifest } from "../../model/manifest.ts";
import { filterFiles } from "../../model/manifest-filter.ts";
import type { FormationFile } from "../formation-file.ts";

/** A filter with everything it imports, as one file. */
export interface BundledFilter {
  /** As the manifest says it, like `./filters/auth.ts`. */
  readonly file: string;
  readonly digest: string;
  readonly path: string;
  readonly size: number;
}

const BYTES_MAX = 16_777_216;
const CHECK_MS_MAX = 10_000;
const FILTER_API = fileURLToPath(new URL("../../proxy/filters/filter.ts", import.meta.url));
/** Loads a bundle as the proxy will and says whether it is a filter; run, not imported. */
const LANE = new URL("../../proxy/filters/lane-main.ts", import.meta.url);

/**
 * Bundles every filter that the manifest names into `folder`, each with its imports in one CommonJS file (which can be
 * let go when a newer version replaces it; an ES module stays for as long as the proxy runs), and runs its top level
 * once. The same sources give the same digest. Types are stripped, not checked. Returns every problem of every filter.
 */
export async function bundleFilters(
  manifest: Manifest,
  file: FormationFile,
  folder: string,
  report: (text: string) => void,
): Promise<{ filters: BundledFilter[]; problems: string[] }> {
  const files = new Set(
    Object.values(manifest.processes).flatMap(({ edge = [], dependencies = {} }) =>
      [...edge, ...Object.values(dependencies)].flatMap((entry) =>
        typeof entry === "object" ? filterFiles(entry.filters) : [],
      ),
    ),
  );
  const filters: BundledFilter[] = [];
  const problems: string[] = [];
  for (const name of [...files].toSorted()) {
    report(`bundling ${name}`);
    const path = resolve(file.folder, name);
    if (!statSync(path, { throwIfNoEntry: false })?.isFile()) {
      problems.push(`filters "${name}": there is no such file (${path})`);
      continue;
    }
    const built = await bundle(path, file.folder);
    if (typeof built !== "string") {
      problems.push(...built.map((problem) => `filters "${name}": ${problem}`));
      continue;
    }
    const wrong = await check(built, name);
    if (wrong !== undefined) {
      problems.push(`filters "${name}": ${wrong}`);
      continue;
    }
    const bytes = Buffer.from(built);
    if (bytes.length > BYTES_MAX) {
      problems.push(`filters "${name}": its bundle is larger than ${BYTES_MAX / 1_048_576} MiB`);
      continue;
    }
    const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    const target = join(folder, `filter-${filters.length}.cjs`);
    writeFileSync(target, bytes, { mode: 0o600 });
    filters.push({ file: name, digest, path: target, size: bytes.length });
  }
  return { filters, problems };
}

/** The bundle's text, or what is wrong. */
async function bundle(path: string, folder: string): Promise<string | string[]> {
  const esbuild = await import("esbuild"); // Only who has filters waits for it.
  try {
    const { outputFiles } = await esbuild.build({
      entryPoints: [path],
      absWorkingDir: folder,
      bundle: true,
      write: false,
      format: "cjs",
      platform: "node",
      target: "node24",
      alias: { "gilliam/filter": FILTER_API },
      charset: "utf8",
      legalComments: "none",
      logLevel: "silent",
      sourcemap: false,
      define: { "process.env.NODE_ENV": '"production"', "import.meta.url": '"file:///filter.js"' },
    });
    return outputFiles[0]?.text ?? "";
  } catch (error) {
    const { errors } = error as BuildFailure;
    if (!Array.isArray(errors)) throw error;
    return errors.map(({ text, location }) => {
      const missing = /^Could not resolve "([^./][^"]*)"/.exec(text)?.[1];
      const next = missing === undefined ? "" : `; npm install ${missing} beside gilliam.yaml`;
      return location === null
        ? `${text}${next}`
        : `${location.file}:${location.line}:${location.column + 1} ${text}${next}`;
    });
  }
}

type Said = { readonly kind: string; readonly what?: string };

/** Runs the bundle's top level where it can do no harm; undefined when it is a filter. */
async function check(source: string, file: string): Promise<string | undefined> {
  const child = fork(LANE, [], {
    env: {},
    execArgv: ["--max-old-space-size=64"],
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
  try {
    return await new Promise((resolve) => {
      const late = AbortSignal.timeout(CHECK_MS_MAX);
      late.addEventListener("abort", () =>
        resolve(`its top level did not end within ${CHECK_MS_MAX / 1_000} s`),
      );
      child.on("exit", (code, signal) =>
        resolve(`its top level ended the process (${signal ?? `exit code ${code}`})`),
      );
      child.on("error", (error) => resolve(`it cannot be tried: ${error.message}`));
      child.on("message", (message: Said) => {
        if (message.kind === "loaded") resolve(undefined);
        if (message.kind === "refused") resolve(message.what);
      });
      child.send({ kind: "load", source, file });
    });
  } finally {
    child.removeAllListeners("exit");
    child.kill("SIGKILL");
  }
}
