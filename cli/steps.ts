import type { Context } from "./context.ts";

/** A part of long work, shown while it runs. */
export interface Step {
  /** While it runs, like "Packing the sources". */
  readonly title: string;
  /** `report` shows where it is; what it returns is said when it is done. */
  readonly run: (report: (text: string) => void) => Promise<string>;
}

/** Runs one step after the other: live on a terminal, a line for each change otherwise. All on standard error. */
export async function runSteps(context: Context, steps: readonly Step[]): Promise<void> {
  if (context.shell.stderr.isTerminal) {
    const { runStepsOnTerminal } = await import("./steps-terminal.ts");
    await runStepsOnTerminal(steps);
    return;
  }
  for (const { run } of steps) {
    let last = "";
    const done = await run((text) => {
      for (const line of text.split("\n").filter((line) => !last.split("\n").includes(line)))
        context.note(`  ${line}`);
      last = text;
    });
    context.note(done);
  }
}
