import tab from "@bomb.sh/tab/commander";
import type { Command } from "commander";
import { outlineOf } from "../model/manifest-outline.ts";
import { readYaml } from "../model/yaml-text.ts";
import { findFormationFile } from "./formation-file.ts";
import type { Shell } from "./shell.ts";

/** Verbs whose arguments are services. */
const OF_SERVICES = ["logs", "exec", "run", "env", "canary", "promote", "scale", "ps", "maintenance", "hold"];

/** `gilliam completion bash|zsh|fish|powershell`, with the services of the manifest at hand. */
export function addCompletion(program: Command, shell: Shell): void {
  const completion = tab(program, { completionCommandName: "completion" });
  for (const verb of OF_SERVICES) {
    for (const argument of completion.commands.get(verb)?.arguments.values() ?? []) {
      if (argument.name !== "service" && argument.name !== "services") continue;
      argument.handler = (complete) => {
        for (const { name, kind } of servicesAtHand(shell))
          complete(verb === "scale" ? `${name}=` : name, kind);
      };
    }
  }
  program.commands
    .find((command) => command.name() === "completion")
    ?.addHelpText(
      "after",
      '\nExamples:\n  eval "$(gilliam completion bash)"          completion in this shell\n  gilliam completion fish > ~/.config/fish/completions/gilliam.fish',
    );
}

function servicesAtHand(shell: Shell): { name: string; kind: string }[] {
  try {
    const file = findFormationFile(shell, undefined);
    const yaml = file && readYaml(file.text, file.shown);
    return yaml?.ok ? [...outlineOf(yaml.value).services] : [];
  } catch {
    return []; // A completion must never print an error into somebody's line.
  }
}
