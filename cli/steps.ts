import type { Context } from "./context.ts";

/** A part of long work, shown while it runs. */
export interface Step {
  /** While it runs, like "Packing the sources". */
  readonly title: string;
  /** `report` shows where it is; what it returns is said when it is done. */
  readonly run: (report: (text: string) => void) => Promise<string>;
}

/** Runs one step after the other: live on a terminal, a line for whatever is new otherwise. All on standard error. */
export async function runSteps(context: Context, steps: readonly Step[]): Promise<void> {
  if (context.shell.stderr.isTerminal) {
    const { runStepsOnTerminal } = await import("./steps-terminal.ts");
    await runStepsOnTerminal(steps);
    return;
  }
  for (const { run } of steps) {
    const said = new Set<string>();
    const done = await run((text) => {
      for (const line of text.split("\n")) {
        if (said.has(gist(line))) continue;
        said.add(gist(line));
        context.note(`  ${line}`);
      }
    });
    context.note(done);
  }
}

/** A line without its durations: that time passes is no news. */
function gist(line: string): string {
  return line.replaceAll(/\b\d+(?:\.\d+)?(?:ms|s|m|h|d)(?:\d+[smh])?\b/g, "");
}
