import { randomBytes } from "node:crypto";
import { join, relative } from "node:path";
import { buildEnvironment } from "../base/build-environment.ts";
import { systemClock } from "../base/clock.ts";
import { UserError } from "../base/errors.ts";
import { down } from "./down.ts";
import { parseCommand, type UpOptions } from "./options.ts";
import { tlsAddresses } from "./tls.ts";
import { up, type UpResult } from "./up.ts";

/** `bootstrap/up` and `bootstrap/down`: progress on standard error, addresses on standard output. */
const root = join(import.meta.dirname, "..");
const say = (line: string): void => void process.stderr.write(`${line}\n`);

async function main(args: readonly string[]): Promise<void> {
  const caller = { env: process.env, uid: process.getuid?.() ?? -1, cwd: process.cwd(), root };
  const command = parseCommand(args, caller);
  switch (command.kind) {
    case "help":
      process.stdout.write(`${command.text}\n`);
      return;
    case "down":
      await down(command.options, { clock: systemClock, say });
      return;
    case "up": {
      const result = await up(command.options, {
        clock: systemClock,
        root,
        path: process.env["PATH"] ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        buildEnvironment: buildEnvironment(process.env),
        randomToken: () => randomBytes(32).toString("base64url"),
        say,
      });
      process.stdout.write(`${summary(result, command.options)}\n`);
    }
  }
}

/** Addresses and the next five commands. */
function summary({ platform, formation }: UpResult, { state, formation: folder }: UpOptions): string {
  const standard = process.getuid?.() === 0 ? "/var/lib/gilliam" : undefined;
  const isStandard = state === standard || process.env["GILLIAM_STATE"] === state;
  const cli = relative(process.cwd(), join(root, "cli/gilliam"));
  const gilliam = cli.includes("/") ? (cli.startsWith("..") ? join(root, "cli/gilliam") : cli) : `./${cli}`;
  const name = formation?.name ?? "gilliam";
  const addresses = [
    ...(formation?.urls ?? []).map((url) => [formation?.name ?? "", url]),
    ...tlsAddresses(platform, formation?.urls ?? []),
    ["api", platform.controlUrl],
    ...Object.entries(platform.metricsUrls).map(([part, url]) => [`metrics (${part})`, url]),
  ];
  const next = [
    `status --formation ${name}`,
    `graph --formation ${name}`,
    `logs -f --formation ${name}`,
    ...(folder?.endsWith("examples/shop") === true
      ? [`scale web=3 --formation ${name}`, "deploy --file examples/shop-v2/gilliam.yaml"]
      : ["hosts", "doctor"]),
  ];
  return [
    "",
    "Gilliam is up.",
    "",
    ...addresses.map(([label = "", url = ""]) => `  ${label.padEnd(20)} ${url}`),
    "",
    "Try next:",
    ...(isStandard ? [] : [`  export GILLIAM_STATE=${state}`]),
    ...next.map((command) => `  ${gilliam} ${command}`),
  ].join("\n");
}

main(process.argv.slice(2)).catch((error: unknown) => {
  if (error instanceof UserError) {
    say(`\ngilliam: ${error.message}`);
    for (const problem of error.problems) say(`  - ${problem}`);
    if (error.next !== undefined) say(`  next: ${error.next}`);
    process.exitCode = error.code === "usage" ? 2 : 1;
    return;
  }
  say(
    `\ngilliam: this is a bug in bootstrap: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
  );
  process.exitCode = 1;
});
