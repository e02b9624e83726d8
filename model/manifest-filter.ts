import { z } from "zod";
import { parseDurationMs } from "../base/units.ts";
import type { FilterUse } from "./filter.ts";
import { NAME_PATTERN } from "./names.ts";

/** `filters:` of an entry of `edge:` or of a dependency, as a person writes it. */

const FILE_RULE = "must be a TypeScript or JavaScript file of this folder, like ./filters/auth.ts";
const FilterFile = z
  .string({ error: FILE_RULE })
  .regex(/^\.\/(?!.*(?:^|\/)\.\.(?:\/|$))[\w@ ./-]{1,200}\.[cm]?[jt]s$/, FILE_RULE);

const CLUSTERS_RULE = "must be a list of services, like [web-b]";
const TIMEOUT_RULE = 'must be a duration from "1ms" to "60s", like "50ms"';
const FILTER_RULE = "must be a file, like ./filters/auth.ts, or a mapping with `file`";

export const FilterMapping = z.strictObject(
  {
    file: FilterFile.describe("The module whose default export is the filter."),
    options: z.json().optional().describe("Whatever the filter reads as `context.options`."),
    onFailure: z
      .enum(["open", "closed"], { error: "must be open or closed" })
      .optional()
      .describe(
        "What becomes of a request when the filter fails. Default: what the filter says, else closed.",
      ),
    timeout: z
      .string({ error: TIMEOUT_RULE })
      .regex(/^\d{1,9}(?:\.\d{1,3})?(?:ms|s)$/, TIMEOUT_RULE)
      .refine((text) => {
        const ms = parseDurationMs(text) ?? 0;
        return ms >= 1 && ms <= 60_000;
      }, TIMEOUT_RULE)
      .optional()
      .describe(
        "Longest run. Default: what the filter says, else 50ms inside the proxy and 1s in a process of its own.",
      ),
    clusters: z
      .array(z.string({ error: CLUSTERS_RULE }).regex(NAME_PATTERN, CLUSTERS_RULE), { error: CLUSTERS_RULE })
      .max(16, "has more than 16 services")
      .optional()
      .describe(
        "Services the filter may send requests to with `context.routeTo`; of a dependency: other dependencies.",
      ),
  },
  { error: FILTER_RULE },
);

export const Filters = z
  .array(z.union([FilterFile, FilterMapping], { error: FILTER_RULE }), {
    error: "must be a list of filters, like [./filters/auth.ts]",
  })
  .max(16, "has more than 16 filters")
  .describe("Filters in TypeScript, the first sees requests first. See proxy/filters/README.md.");
export type Filters = z.infer<typeof Filters>;

/** The files of a list of filters. */
export function filterFiles(filters: Filters | undefined): string[] {
  return (filters ?? []).map((filter) => (typeof filter === "string" ? filter : filter.file));
}

export interface FilterResolution {
  /** `service.formation` that declares them. */
  readonly owner: string;
  /** Digest of each file's bundle. */
  readonly bundles: Readonly<Record<string, string>>;
  /** The cluster for a name in `clusters:`; undefined when it may not be called from here. */
  readonly clusterOf: (name: string) => string | undefined;
  /** Takes a problem, said from where it is. */
  readonly problem: (text: string) => void;
}

/** What a proxy is told of a list of filters; undefined when it is empty. */
export function resolveFilters(
  filters: Filters | undefined,
  { owner, bundles, clusterOf, problem }: FilterResolution,
): FilterUse[] | undefined {
  if (filters === undefined || filters.length === 0) return undefined;
  return filters.flatMap((entry): FilterUse[] => {
    const { file, options, onFailure, timeout, clusters } =
      typeof entry === "string" ? ({ file: entry } as z.infer<typeof FilterMapping>) : entry;
    const digest = bundles[file];
    if (digest === undefined) {
      problem(`filters ${JSON.stringify(file)}: no bundle of it was sent`);
      return [];
    }
    const targets = (clusters ?? []).flatMap((name): [string, string][] => {
      const cluster = clusterOf(name);
      if (cluster !== undefined) return [[name, cluster]];
      problem(`filters ${JSON.stringify(file)} clusters: \`${name}\` is not a service it could be sent to`);
      return [];
    });
    return [
      {
        file,
        owner,
        digest,
        ...(options === undefined ? {} : { options }),
        ...(onFailure === undefined ? {} : { onFailure }),
        ...(timeout === undefined ? {} : { timeoutMs: Math.ceil(parseDurationMs(timeout) ?? 0) }),
        ...(targets.length === 0 ? {} : { clusters: Object.fromEntries(targets) }),
      },
    ];
  });
}
