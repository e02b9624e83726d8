import type { Command } from "commander";
import type { InstanceView } from "../../model/api.ts";
import { instanceColumns } from "../output/views.ts";
import type { Verb } from "../verb.ts";

interface Options {
  readonly all?: boolean;
}

export const ps: Verb<Options> = {
  name: "ps",
  args: "[services...]",
  about: "List instances: which copies run, of which release, and whether they get traffic.",
  examples: [
    ["gilliam ps", "the formation of this folder, or all of them"],
    ["gilliam ps web api", "only these services"],
    ["gilliam ps --all", "every formation, Gilliam's own too"],
  ],
  configure: (command: Command) => void command.option("-a, --all", "every formation"),
  run: async (context, services, { all }) => {
    const one = all === true ? undefined : context.formationIfAny();
    const names =
      one === undefined ? (await context.client.call("formations", {})).map(({ name }) => name) : [one];
    const found: InstanceView[] = [];
    for (const name of names) found.push(...(await context.client.call("instances", { name })));
    const shown = found
      .filter(({ service }) => services.length === 0 || services.includes(service))
      .sort((a, b) => keyOf(a).localeCompare(keyOf(b)));
    if (context.json) context.printJson(shown);
    else if (shown.length > 0)
      context.printTable(shown, instanceColumns(context.style, context.shell.clock.wallMs()));
    else
      context.note(
        services.length > 0
          ? `No instance of ${services.join(", ")} runs.`
          : "No instance runs. `gilliam status` says why.",
      );
  },
};

function keyOf({ formation, service, release, id }: InstanceView): string {
  return `${formation} ${service} ${String(release).padStart(9, "0")} ${id}`;
}
