import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import type { Manifest } from "../../model/manifest.ts";
import type { FormationFile } from "../formation-file.ts";
import { usageError } from "../usage-error.ts";
import { bundleFilters, type BundledFilter } from "./filters.ts";
import { tarEnd, tarHeader, tarPadding } from "./tar.ts";
import { walkSource, type SourceEntry } from "./walk.ts";

export interface PackedSource {
  /** Service by service, the same archive may serve several. */
  readonly services: readonly string[];
  /** As the manifest says it, like `./web`. */
  readonly source: string;
  /** `sha256:…` of the archive. */
  readonly digest: string;
  readonly path: string;
  readonly size: number;
  readonly files: number;
}

/** Archives in a temporary folder, which goes when this is disposed. */
export interface PackedSources extends Disposable {
  readonly sources: readonly PackedSource[];
  /** Digest by service. */
  readonly digests: Readonly<Record<string, string>>;
  readonly filters: readonly BundledFilter[];
  /** Digest by file, as the manifest says it. */
  readonly filterDigests: Readonly<Record<string, string>>;
}

const CHUNK_BYTES = 256 * 1024;

/**
 * Packs the `source:` of every process and bundles every filter. The same files always give the same digest, whoever packs them and when.
 * @throws UserError "usage" with every problem in every source.
 */
export async function packSources(
  manifest: Manifest,
  file: FormationFile,
  report: (text: string) => void = () => undefined,
): Promise<PackedSources> {
  const folder = mkdtempSync(join(tmpdir(), "gilliam-source-"));
  const dispose = () => rmSync(folder, { recursive: true, force: true });
  try {
    const wanted = new Map<string, { source: string; services: string[] }>();
    for (const [name, { source }] of Object.entries(manifest.processes)) {
      if (source === undefined) continue;
      const path = resolve(file.folder, source);
      const entry = wanted.get(path) ?? { source, services: [] };
      entry.services.push(name);
      wanted.set(path, entry);
    }
    const problems: string[] = [];
    const sources: PackedSource[] = [];
    for (const [path, { source, services }] of wanted) {
      const walked = walkOne(path, source, services, file);
      problems.push(...walked.problems);
      if (walked.problems.length > 0) continue;
      report(`${services.join(", ")}: packing ${source}`);
      const target = join(folder, `${sources.length}.tar`);
      const packed = await writeArchive(walked.entries, target);
      sources.push({ ...packed, services, source, path: target, files: walked.entries.length });
    }
    const bundled = await bundleFilters(manifest, file, folder, report);
    problems.push(...bundled.problems);
    if (problems.length > 0) throw usageError("Cannot pack the sources", { problems });
    const digests = Object.fromEntries(
      sources.flatMap(({ services, digest }) => services.map((service) => [service, digest])),
    );
    const { filters } = bundled;
    const filterDigests = Object.fromEntries(filters.map((filter) => [filter.file, filter.digest]));
    return { sources, digests, filters, filterDigests, [Symbol.dispose]: dispose };
  } catch (error) {
    dispose();
    throw error;
  }
}

function walkOne(
  path: string,
  source: string,
  services: readonly string[],
  file: FormationFile,
): { entries: SourceEntry[]; problems: string[] } {
  const where = services.map((service) => `processes.${service}.source`).join(", ");
  const stats = statSync(path, { throwIfNoEntry: false });
  if (!stats?.isDirectory()) {
    const what = stats === undefined ? "there is no such folder" : "is not a folder";
    return { entries: [], problems: [`${where} "${source}": ${what} (${path})`] };
  }
  const inside = !relative(file.folder, path).startsWith("..");
  const { entries, problems } = walkSource(path, {
    manifest: file.path,
    ...(inside ? { outermost: file.folder } : {}),
  });
  if (problems.length === 0 && entries.length === 0) {
    return { entries, problems: [`${where} "${source}": holds no files, or all of them are ignored`] };
  }
  return { entries, problems: problems.map((problem) => `${where} "${source}": ${problem}`) };
}

async function writeArchive(
  entries: readonly SourceEntry[],
  path: string,
): Promise<{ digest: string; size: number }> {
  const hash = createHash("sha256");
  let size = 0;
  const out = await open(path, "wx", 0o600);
  const put = async (bytes: Uint8Array) => {
    hash.update(bytes);
    size += bytes.length;
    await out.write(bytes);
  };
  try {
    for (const entry of entries) {
      await put(tarHeader(entry));
      if (entry.type !== "file") continue;
      await putContent(entry, put);
      await put(tarPadding(entry.size));
    }
    await put(tarEnd());
  } finally {
    await out.close();
  }
  return { digest: `sha256:${hash.digest("hex")}`, size };
}

async function putContent(entry: SourceEntry, put: (bytes: Uint8Array) => Promise<void>): Promise<void> {
  const file = await openSource(entry);
  try {
    const buffer = Buffer.alloc(CHUNK_BYTES);
    let left = entry.size;
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, left + 1));
      // One byte more than expected is asked for at the end, to notice a file that has grown.
      if (bytesRead > left || (bytesRead === 0 && left > 0)) {
        throw usageError(`${entry.name} changed while it was packed`, {
          next: "Run the command again when nothing writes there.",
        });
      }
      if (bytesRead === 0) return;
      await put(Buffer.from(buffer.subarray(0, bytesRead)));
      left -= bytesRead;
    }
  } finally {
    await file.close();
  }
}

async function openSource({ path, name }: SourceEntry): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (error) {
    throw usageError(`Cannot read ${name}: ${error instanceof Error ? error.message : String(error)}`, {
      next: "Make it readable, or leave it out with .gilliamignore.",
    });
  }
}
