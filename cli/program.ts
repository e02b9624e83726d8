import { readFileSync } from "node:fs";
import { type Argument, Command, CommanderError } from "commander";
import { messageOf, UserError } from "../base/errors.ts";
import { addCompletion } from "./completion.ts";
import { Style } from "./output/style.ts";
import { settingsIn } from "./platform.ts";
import type { Shell } from "./shell.ts";
import { exitCodeOf } from "./usage-error.ts";
import { addGlobalOptions, addVerb, type AnyVerb } from "./verb.ts";
import { canary } from "./verbs/canary.ts";
import { consul } from "./verbs/consul.ts";
import { deploy } from "./verbs/deploy.ts";
import { doctor } from "./verbs/doctor.ts";
import { down } from "./verbs/down.ts";
import { drain } from "./verbs/drain.ts";
import { env } from "./verbs/env.ts";
import { exec } from "./verbs/exec.ts";
import { graph } from "./verbs/graph.ts";
import { hold } from "./verbs/hold.ts";
import { hosts } from "./verbs/hosts.ts";
import { logs } from "./verbs/logs.ts";
import { maintenance } from "./verbs/maintenance.ts";
import { open } from "./verbs/open.ts";
import { plan } from "./verbs/plan.ts";
import { promote } from "./verbs/promote.ts";
import { ps } from "./verbs/ps.ts";
import { registry } from "./verbs/registry.ts";
import { releases } from "./verbs/releases.ts";
import { rollback } from "./verbs/rollback.ts";
import { routes } from "./verbs/routes.ts";
import { run } from "./verbs/run.ts";
import { scale } from "./verbs/scale.ts";
import { status } from "./verbs/status.ts";
import { up } from "./verbs/up.ts";

const GROUPS: readonly (readonly [heading: string, verbs: readonly AnyVerb[]])[] = [
  ["Change a formation:", [plan, deploy, scale, up, down, maintenance, hold]],
  ["Release step by step:", [releases, canary, promote, rollback]],
  ["See what runs:", [status, ps, logs, graph, routes, env, open]],
  ["Work inside it:", [exec, run]],
  ["The machines:", [hosts, drain, registry, consul, doctor]],
];

const INTRO = `Runs systems made of many small services: what each one needs is written down once, in gilliam.yaml.

Start: gilliam doctor, then gilliam deploy in a folder with a gilliam.yaml.`;

/** The command line of `argv` (without node and script). Resolves with the exit code; never rejects. */
export async function runCommandLine(argv: readonly string[], shell: Shell): Promise<number> {
  let code = 0;
  const program = buildProgram(shell, (done) => {
    code = done;
  });
  try {
    if (argv.length === 0) {
      shell.stderr.write(program.helpInformation());
      return 2;
    }
    await program.parseAsync([...argv], { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (shell.signal.aborted) return 130;
    shell.stderr.write(`${describeError(error, new Style(shell.stderr.color), shell)}\n`);
    return exitCodeOf(error);
  }
}

export function buildProgram(shell: Shell, done: (code: number) => void): Command {
  const program = new Command("gilliam")
    .description(INTRO)
    .usage("<verb> [options]")
    .version(readVersion(), "-V, --version", "the version of this command")
    .helpOption("-h, --help", "help, with examples, also for each verb")
    .helpCommand(false)
    .configureHelp({
      subcommandTerm: (command) =>
        [command.name(), ...command.registeredArguments.map(argumentTerm)].join(" "),
    })
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => shell.stdout.write(text),
      writeErr: (text) => shell.stderr.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, "gilliam: ")),
      getOutHelpWidth: () => Math.min(110, shell.stdout.columns()),
      getErrHelpWidth: () => Math.min(110, shell.stderr.columns()),
      getOutHasColors: () => shell.stdout.color,
      getErrHasColors: () => shell.stderr.color,
    })
    .showHelpAfterError("Try: gilliam --help");
  addGlobalOptions(program);
  for (const [heading, verbs] of GROUPS) {
    program.commandsGroup(heading);
    for (const verb of verbs) addVerb(program, verb, shell, done);
  }
  program.commandsGroup("This command:");
  addCompletion(program, shell);
  return program;
}

function argumentTerm(argument: Argument): string {
  const name = `${argument.name()}${argument.variadic ? "..." : ""}`;
  return argument.required ? `<${name}>` : `[${name}]`;
}

function readVersion(): string {
  const file = new URL("../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}

/** What, every problem, what next. An error that nobody foresaw is shown as the bug it is. */
function describeError(error: unknown, style: Style, { env }: Shell): string {
  const debug = settingsIn(env).debug !== "";
  if (!(error instanceof UserError)) {
    const stack = error instanceof Error ? error.stack : String(error);
    return `${style.red("gilliam: this is a bug")}: ${debug ? stack : messageOf(error)}\nSet GILLIAM_DEBUG=1 to see where.`;
  }
  return [
    `${style.red("gilliam:")} ${error.message}`,
    ...error.problems.map((problem) => `  ${problem}`),
    ...(error.next === undefined ? [] : [error.next]),
    ...(debug ? [error.stack ?? ""] : []),
  ].join("\n");
}
