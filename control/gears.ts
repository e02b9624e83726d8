import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { UserError } from "../base/errors.ts";
import { parseGears, type Gear } from "../model/gear.ts";

/** Those that come with Gilliam. */
const OWN_GEARS = fileURLToPath(new URL("../model/gears", import.meta.url));

/** Reads every `NAME/gear.yaml` below `folder`. @throws UserError "bad_gear" with all problems. */
export function readGears(folder: string): ReadonlyMap<string, Gear> {
  const root = folder === "" ? OWN_GEARS : folder;
  const names = existsSync(root) ? readdirSync(root).sort() : [];
  const files = names
    .map((name) => join(root, name, "gear.yaml"))
    .filter((file) => existsSync(file))
    .map((file) => ({ file, text: readFileSync(file, "utf8") }));
  const parsed = parseGears(files);
  if (parsed.ok) return parsed.gears;
  throw new UserError(`The gears in ${root} cannot be read`, {
    code: "bad_gear",
    status: 500,
    problems: parsed.problems,
    next: "Mend them, or point GILLIAM_GEARS to a folder of good ones.",
  });
}
