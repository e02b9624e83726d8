import {
  Listr,
  ListrLogger,
  ProcessOutput,
  type ListrDefaultRendererLogLevels,
  type ListrTask,
} from "listr2";
import type { Step } from "./steps.ts";

/** Steps with spinners, on standard error so that standard output stays data. */
export async function runStepsOnTerminal(steps: readonly Step[]): Promise<void> {
  const tasks = steps.map(({ title, run }): ListrTask => ({
    title,
    task: async (_context, task) => {
      const result = await run((text) => {
        task.output = text;
      });
      if (result) task.title = result;
    },
    rendererOptions: { outputBar: true, persistentOutput: false },
  }));
  const logger = new ListrLogger<ListrDefaultRendererLogLevels>({
    processOutput: new ProcessOutput(process.stderr, process.stderr),
  });
  await new Listr(tasks, {
    renderer: "default",
    fallbackRenderer: "simple",
    // Ctrl-C is main.ts's affair: it ends the wait in good order.
    registerSignalListeners: false,
    rendererOptions: { logger, showErrorMessage: false, collapseErrors: false },
  }).run();
}
