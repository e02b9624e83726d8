import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installPrograms } from "../bootstrap/packages.ts";
import { messageOf, UserError } from "../base/errors.ts";
import { type Outcome, readVitest } from "./run-outcome.ts";
import { consulBinary } from "./tools/consul.ts";
import { prepareBase } from "./tools/docker.ts";

/** Runs the gate's steps and every suite one after the other, and adds up what came of them. */

const GATES = [
  ["format", ["npm", "run", "--silent", "format:check"]],
  ["lint", ["npm", "run", "--silent", "lint"]],
  ["types", ["npm", "run", "--silent", "types"]],
  ["dead code", ["npm", "run", "--silent", "dead"]],
] as const;
const SUITES = ["unit", "contract", "sim", "wire", "processes", "e2e"] as const;
/** No single step may take longer, in milliseconds. */
const STEP_MS_MAX = 15 * 60_000;

const HELP = `Usage: test/run [flags] [suite...]

Runs format, lint, types, dead code and the suites ${SUITES.join(", ")}; or only the suites that are named.

  --no-skip   a skipped test counts as failed
  --help      this text`;

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help")) {
    process.stdout.write(`${HELP}\n`);
    return 0;
  }
  const flags = args.filter((arg) => arg.startsWith("-"));
  const named = args.filter((arg) => !arg.startsWith("-"));
  const unknown = [
    ...flags.filter((flag) => flag !== "--no-skip"),
    ...named.filter((name) => !SUITES.some((suite) => suite === name)),
  ];
  if (unknown.length > 0) {
    process.stderr.write(`test/run: ${unknown.join(", ")} is not known\n${HELP}\n`);
    return 2;
  }
  const outcomes: Outcome[] = [await prepare()];
  if (named.length === 0) for (const [name, command] of GATES) outcomes.push(await runGate(name, command));
  for (const suite of SUITES.filter((name) => named.length === 0 || named.includes(name))) {
    outcomes.push(await runSuite(suite));
  }
  return report(outcomes, flags.includes("--no-skip"));
}

/**
 * System packages, a real Consul and a base image for Docker; nothing is fetched when all is there. Without a program that the tests only compare with, those tests
 * are skipped, by name.
 */
async function prepare(): Promise<Outcome> {
  const need = { isRoot: process.getuid?.() === 0, shop: true, path: process.env["PATH"] ?? "" };
  try {
    installPrograms(need, say);
  } catch (error) {
    return { passed: 0, failures: [`system programs: ${explained(error)}`], skipped: [] };
  }
  try {
    installPrograms({ ...need, tests: true }, say);
    if (need.isRoot) await prepareBase(say);
    consulBinary(); // Kept in the user's cache folder; fetched once.
    return { passed: 0, failures: [], skipped: [] };
  } catch (error) {
    return { passed: 0, failures: [], skipped: [`what needs other programs: ${explained(error)}`] };
  }
}

function explained(error: unknown): string {
  return `${messageOf(error)}: ${error instanceof UserError ? error.problems.join("; ") : ""}`;
}

async function runGate(name: string, command: readonly string[]): Promise<Outcome> {
  const { code, output, seconds } = await run(command);
  say(`${name.padEnd(10)} ${code === 0 ? "passed" : "FAILED"} in ${seconds} s`);
  if (code === 0) return { passed: 1, failures: [], skipped: [] };
  say(indented(output));
  return { passed: 0, failures: [`${name} (${command.join(" ")})`], skipped: [] };
}

async function runSuite(suite: string): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), "gilliam-results-"));
  const file = join(folder, "results.json");
  try {
    const { code, output, seconds } = await run([
      "vitest",
      "run",
      "--project",
      suite,
      "--passWithNoTests",
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${file}`,
    ]);
    const outcome = readVitest(suite, code, readOrNothing(file));
    say(
      `${suite.padEnd(10)} ${outcome.passed} passed, ${outcome.failures.length} failed, ` +
        `${outcome.skipped.length} skipped in ${seconds} s`,
    );
    if (outcome.failures.length > 0) say(indented(output));
    return outcome;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function report(outcomes: readonly Outcome[], noSkip: boolean): number {
  const skipped = outcomes.flatMap((outcome) => outcome.skipped);
  const failures = [
    ...outcomes.flatMap((outcome) => outcome.failures),
    ...(noSkip ? skipped.map((name) => `skipped, which is not allowed: ${name}`) : []),
  ];
  const passed = outcomes.reduce((sum, outcome) => sum + outcome.passed, 0);
  if (skipped.length > 0) say(`\nSkipped:\n${skipped.map((name) => `  - ${name}`).join("\n")}`);
  if (failures.length > 0) say(`\nFailed:\n${failures.map((name) => `  - ${name}`).join("\n")}`);
  process.stdout.write(`\n${passed} passed, ${failures.length} failed\n`);
  return failures.length === 0 ? 0 : 1;
}

function run([program = "", ...args]: readonly string[]): Promise<{
  code: number;
  output: string;
  seconds: string;
}> {
  const startMs = performance.now();
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1" },
      timeout: STEP_MS_MAX,
    });
    const parts: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => parts.push(text));
    }
    const done = (code: number) => {
      const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
      resolve({ code, output: parts.join(""), seconds });
    };
    child.on("error", (error) => {
      parts.push(messageOf(error));
      done(-1);
    });
    child.on("close", (code) => done(code ?? -1));
  });
}

function readOrNothing(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);
const indented = (text: string) => text.trimEnd().replaceAll(/^/gm, "  | ");

process.exitCode = await main(process.argv.slice(2));
