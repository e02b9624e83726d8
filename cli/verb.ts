import { Option, type Command } from "commander";
import { Context, type GlobalOptions } from "./context.ts";
import type { Shell } from "./shell.ts";

/** One verb of the command line; each has a file of its own in verbs/. */
export interface Verb<O extends object = object> {
  readonly name: string;
  /** Positional arguments in commander's notation: `<service> [command...]`. */
  readonly args?: string;
  readonly about: string;
  /** Command and what it does. */
  readonly examples: readonly (readonly [command: string, about: string])[];
  /** Everything after the first argument belongs to another command: `exec web ls -l`. */
  readonly passThrough?: boolean;
  /** Adds its own options. */
  readonly configure?: (command: Command) => void;
  /** The exit code; nothing is 0. */
  readonly run: (
    context: Context,
    args: readonly string[],
    options: O & GlobalOptions,
  ) => Promise<number | void>;
}

/** Lets the types of a verb's options be forgotten where all verbs are listed. */
export type AnyVerb = Verb<never>;

/** Options that every verb takes. `-f` is left to verbs that give it another meaning. */
export function addGlobalOptions(command: Command): Command {
  const shortTaken = command.options.some(({ short }) => short === "-f");
  return command
    .addOption(
      new Option(`${shortTaken ? "" : "-f, "}--formation <name>`, "the formation meant").helpGroup(
        "Everywhere:",
      ),
    )
    .addOption(
      new Option("--file <path>", "its manifest (default: gilliam.yaml here or above)").helpGroup(
        "Everywhere:",
      ),
    )
    .addOption(new Option("--state <folder>", "state folder of the platform meant").helpGroup("Everywhere:"))
    .addOption(new Option("--json", "data as JSON on standard output").helpGroup("Everywhere:"))
    .addOption(new Option("--no-color", "plain text (also: NO_COLOR=1)").helpGroup("Everywhere:"));
}

/** Adds `verb` to `program`; `done` gets its exit code. */
export function addVerb(program: Command, verb: AnyVerb, shell: Shell, done: (code: number) => void): void {
  const command = program.command(verb.name).description(verb.about);
  if (verb.args !== undefined) command.arguments(verb.args);
  verb.configure?.(command);
  addGlobalOptions(command);
  if (verb.passThrough === true) command.passThroughOptions();
  const width = Math.max(...verb.examples.map(([line]) => line.length));
  const examples = verb.examples.map(([line, about]) => `  ${line.padEnd(width)}  ${about}`);
  command.addHelpText("after", `\nExamples:\n${examples.join("\n")}`);
  command.action(async () => {
    const options = { ...program.opts<GlobalOptions>(), ...command.opts<GlobalOptions>() };
    const context = new Context(shell, options);
    done((await verb.run(context, command.args, options as never)) ?? 0);
  });
}
