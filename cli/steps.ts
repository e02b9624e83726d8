import type { Context } from "./context.ts";

/** A part of long work, shown while it runs. */
export interface Step {
  readonly title: string;
  /** `report` shows where it is; what it returns replaces the title once done. */
  readonly run: (report: (text: string) => void) => Promise<string | void>;
}

/** Runs one step after the other: live on a terminal, a line for each change otherwise. All on standard error. */
export async function runSteps(context: Context, steps: readonly Step[]): Promise<void> {
  if (context.shell.stderr.isTerminal) {
    const { runStepsOnTerminal } = await import("./steps-terminal.ts");
    await runStepsOnTerminal(steps);
    return;
  }
  for (const { title, run } of steps) {
    let last = "";
    const result = await run((text) => {
      for (const line of text.split("\n").filter((line) => !last.split("\n").includes(line)))
        context.note(`  ${line}`);
      last = text;
    });
    context.note(result || title);
  }
}
