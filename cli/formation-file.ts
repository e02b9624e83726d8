import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { messageOf } from "../base/errors.ts";
import { NAME_PATTERN } from "../model/names.ts";
import { readYaml } from "../model/yaml-text.ts";
import type { Shell } from "./shell.ts";
import { usageError } from "./usage-error.ts";

const FILE_NAME = "gilliam.yaml";

export interface FormationFile {
  /** Absolute. */
  readonly path: string;
  /** Absolute folder; `source:` is relative to it. */
  readonly folder: string;
  /** As a person in `cwd` would write it, for messages. */
  readonly shown: string;
  readonly text: string;
}

/** `--file`, else gilliam.yaml in `cwd` or the nearest folder above. Undefined when there is none. */
export function findFormationFile({ cwd }: Shell, option: string | undefined): FormationFile | undefined {
  const path = option === undefined ? nearestAbove(cwd) : resolve(cwd, option);
  if (path === undefined) return undefined;
  const shown = relative(cwd, path) || basename(path);
  try {
    return { path, folder: dirname(path), shown, text: readFileSync(path, "utf8") };
  } catch (error) {
    throw usageError(`Cannot read ${shown}: ${messageOf(error)}`);
  }
}

function nearestAbove(cwd: string): string | undefined {
  for (let folder = resolve(cwd); ; folder = dirname(folder)) {
    const path = join(folder, FILE_NAME);
    if (existsSync(path)) return path;
    if (dirname(folder) === folder) return undefined;
  }
}

/** `formation:` of a manifest that may be wrong elsewhere; undefined when even that is. */
export function formationNameIn({ text, shown }: FormationFile): string | undefined {
  const yaml = readYaml(text, shown);
  if (!yaml.ok || typeof yaml.value !== "object" || yaml.value === null) return undefined;
  const { formation } = yaml.value as { formation?: unknown };
  return typeof formation === "string" && NAME_PATTERN.test(formation) ? formation : undefined;
}
