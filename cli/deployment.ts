import type { Plan } from "../model/api.ts";
import type { Manifest } from "../model/manifest.ts";
import { parseManifest } from "../model/manifest-parse.ts";
import type { Context } from "./context.ts";
import type { FormationFile } from "./formation-file.ts";
import { formatBytes } from "../base/units.ts";
import { packSources, type PackedSources } from "./source/pack.ts";
import { runSteps } from "./steps.ts";
import { usageError } from "./usage-error.ts";

/** A manifest read, its sources packed, and what control would make of it. */
export interface Prepared extends Disposable {
  readonly file: FormationFile;
  readonly manifest: Manifest;
  readonly packed: PackedSources;
  readonly plan: Plan;
}

/**
 * What `plan` and `deploy` begin with; nothing is changed anywhere.
 * @throws UserError "usage" with every problem of the manifest or the sources.
 */
export async function prepareDeployment(context: Context, mode: "deploy" | "stage"): Promise<Prepared> {
  const file = context.requireFile();
  const manifest = readManifest(context, file);
  let packed: PackedSources | undefined;
  let plan: Plan | undefined;
  const { client } = context;
  await runSteps(context, [
    {
      title: "Packing the sources",
      run: async (report) => {
        packed = await packSources(manifest, file, report);
        const size = packed.sources.reduce((sum, source) => sum + source.size, 0);
        const files = packed.sources.reduce((sum, source) => sum + source.files, 0);
        const bundled = packed.filters.length === 0 ? "" : `, bundled ${packed.filters.length} filters`;
        return packed.sources.length === 0
          ? `No sources to pack${bundled}`
          : `Packed ${files} files, ${formatBytes(size)}${bundled}`;
      },
    },
    {
      title: "Comparing with what runs",
      run: async () => {
        const { digests: sources = {}, filterDigests: filters = {} } = packed ?? {};
        const body = { manifest: file.text, file: file.shown, sources, filters, mode };
        plan = await client.call("plan", { name: manifest.formation, body });
        return plan.from === 0 ? "Nothing is deployed yet" : `Compared with release ${plan.from}`;
      },
    },
  ]).catch((error: unknown) => {
    packed?.[Symbol.dispose]();
    throw error;
  });
  if (packed === undefined || plan === undefined) throw new Error("a step ended without its result");
  const archives = packed;
  return { file, manifest, packed: archives, plan, [Symbol.dispose]: () => archives[Symbol.dispose]() };
}

function readManifest({ options }: Context, file: FormationFile): Manifest {
  const parsed = parseManifest(file.text, file.shown);
  if (!parsed.ok) {
    throw usageError(`${file.shown} cannot be used; nothing was changed`, { problems: parsed.problems });
  }
  const { formation } = parsed.manifest;
  if (options.formation !== undefined && options.formation !== formation) {
    throw usageError(
      `${file.shown} is of formation "${formation}", and --formation says "${options.formation}"`,
      {
        next: "Leave --formation out, or change `formation:`.",
      },
    );
  }
  return parsed.manifest;
}

/** Sends the archives that control has not got yet. */
export async function uploadSources(
  { client }: Context,
  { sources, filters }: PackedSources,
  report: (text: string) => void,
): Promise<string> {
  let sent = 0;
  for (const { digest, path, size, services } of sources) {
    if (await client.hasBlob(digest)) continue;
    report(`${services.join(", ")}: sending ${formatBytes(size)}`);
    await client.putBlob(digest, path, size);
    sent += size;
  }
  for (const { digest, path, size, file } of filters) {
    if (await client.hasBlob(digest)) continue;
    report(`${file}: sending ${formatBytes(size)}`);
    await client.putBlob(digest, path, size);
    sent += size;
  }
  return sent === 0 ? "Sources are there already" : `Sent ${formatBytes(sent)}`;
}
