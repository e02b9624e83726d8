import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import { errnoOf, messageOf } from "../../base/errors.ts";
import { RegistryDump } from "../../model/api.ts";
import type { Context } from "../context.ts";
import { count } from "../output/words.ts";
import { usageError } from "../usage-error.ts";
import type { Verb } from "../verb.ts";

interface Options {
  readonly replace?: boolean;
}

export const registry: Verb<Options> = {
  name: "registry",
  args: "<action> [file]",
  about: "Save everything that was deployed and decided, or write it back (registry export|import).",
  examples: [
    ["gilliam registry export backup.json", "releases, counts, secrets: keep the file safe"],
    ["gilliam registry import backup.json", "adds what is missing; changes and removes nothing"],
    ["gilliam registry import backup.json --replace", "also writes over what is different now"],
  ],
  configure: (command: Command) =>
    void command.option("--replace", "import: write over what is different now"),
  run: async (context, [action = "", file], { replace }) => {
    if (action === "export") return exportTo(context, file);
    if (action === "import" && file !== undefined) return importFrom(context, file, replace === true);
    throw usageError(
      action === "import" ? "Which file shall be imported?" : `gilliam registry does not know "${action}"`,
      { next: "Try: gilliam registry export FILE, or gilliam registry import FILE" },
    );
  },
};

async function exportTo(context: Context, file: string | undefined): Promise<void> {
  const dump = await context.client.call("registryExport", {});
  const text = `${JSON.stringify(dump, null, 1)}\n`;
  if (file === undefined) {
    context.print(text.trimEnd());
    return;
  }
  const path = resolve(context.shell.cwd, file);
  try {
    writeFileSync(path, text, { mode: 0o600 });
  } catch (error) {
    throw usageError(`Cannot write ${path}: ${errnoOf(error) ?? messageOf(error)}`);
  }
  context.note(
    `${count(dump.entries.length, "entry", "entries")} written to ${path}; there are secrets in it.`,
  );
}

async function importFrom(context: Context, file: string, replace: boolean): Promise<void> {
  const body = readDump(resolve(context.shell.cwd, file));
  const result = await context.client.call("registryImport", { body: { dump: body, replace } });
  if (context.json) {
    context.printJson(result);
    return;
  }
  const { written, same, kept } = result;
  context.print(`${count(written, "entry", "entries")} written, ${same} were there already.`);
  if (kept.length === 0) return;
  context.note(`${kept.length} are different now and stay as they are (--replace writes over them):`);
  for (const key of kept.slice(0, 20)) context.note(`  ${key}`);
}

function readDump(path: string): RegistryDump {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw usageError(`Cannot read ${path}: ${errnoOf(error) ?? messageOf(error)}`);
  }
  try {
    return RegistryDump.parse(JSON.parse(text));
  } catch {
    throw usageError(`${path} is not what gilliam registry export writes`);
  }
}
