import type { Command } from "commander";
import { printable } from "../output/style.ts";
import type { Verb } from "../verb.ts";

interface Options {
  readonly reveal?: boolean;
}

export const env: Verb<Options> = {
  name: "env",
  args: "<service>",
  about: "Show the environment variables of a service and where each comes from.",
  examples: [
    ["gilliam env api", "secrets are masked"],
    ["gilliam env api --reveal", "secrets are shown"],
  ],
  configure: (command: Command) => void command.option("--reveal", "show secrets"),
  run: async (context, [service = ""], { reveal }) => {
    const query = { service, reveal: reveal === true ? ("true" as const) : ("false" as const) };
    const view = await context.client.call("env", { name: context.formation(), query });
    if (context.json) {
      context.printJson(view);
      return;
    }
    if (view.variables.length === 0) context.note(`${service} has no variables.`);
    else {
      context.printTable(view.variables, [
        { title: "VARIABLE", cell: ({ name }) => name },
        { title: "VALUE", cell: ({ value }) => printable(value), widthMin: 16 },
        { title: "FROM", cell: ({ from }) => from, drop: 1 },
      ]);
    }
  },
};
