import { fileURLToPath } from "node:url";
import { messageOf } from "../../base/errors.ts";
import type { Context } from "../context.ts";
import { checkMachine, type Finding, type MachineFacts } from "../doctor/checks.ts";
import { machineProbe } from "../doctor/probe.ts";
import type { Style } from "../output/style.ts";
import { readPlatform, settingsIn, stateFolder } from "../platform.ts";
import type { Verb } from "../verb.ts";

export const doctor: Verb = {
  name: "doctor",
  about: "Check this machine: what Gilliam needs, what is missing, how to mend it.",
  examples: [
    ["gilliam doctor", "exit code 1 when something needed is missing"],
    ["gilliam doctor --json", "for scripts"],
  ],
  run: async (context) => {
    const findings = await checkMachine(await factsOf(context), machineProbe);
    if (context.json) context.printJson(findings);
    else context.print(findingsText(findings, context.style));
    return findings.some(({ level }) => level === "missing") ? 1 : 0;
  },
};

async function factsOf(context: Context): Promise<MachineFacts> {
  const { shell, options } = context;
  const folder = stateFolder(shell, options.state);
  return {
    platform: process.platform,
    uid: shell.uid,
    nodeVersion: process.version,
    stateFolder: folder,
    root: fileURLToPath(new URL("../../", import.meta.url)),
    nowMs: shell.clock.wallMs(),
    control: await controlState(context, folder),
  };
}

async function controlState(context: Context, folder: string): Promise<MachineFacts["control"]> {
  try {
    if (readPlatform(folder) === undefined && settingsIn(context.shell.env).url === "") return undefined;
    const url = context.client.baseUrl;
    const { alarms } = await context.client.call("status", {});
    return { url, error: undefined, alarms };
  } catch (error) {
    return { url: "", error: messageOf(error) };
  }
}

export function findingsText(findings: readonly Finding[], style: Style): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const marks = { ok: style.green("✓"), note: style.yellow("•"), missing: style.red("✗") };
  const lines = findings.flatMap(({ check, level, found, next }) => [
    `${marks[level]} ${check.padEnd(width)}  ${found}`,
    ...(next === "" ? [] : [`${" ".repeat(width + 4)}${style.dim(next)}`]),
  ]);
  const wrong = findings.filter(({ level }) => level === "missing").length;
  const verdict =
    wrong === 0
      ? style.green("This machine can run Gilliam.")
      : style.red(`${wrong} of ${findings.length} checks failed.`);
  return [...lines, "", verdict].join("\n");
}
