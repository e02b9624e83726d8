import { releaseColumns } from "../output/views.ts";
import type { Verb } from "../verb.ts";

export const releases: Verb = {
  name: "releases",
  about: "List the releases of a formation, newest first. * is the one in force.",
  examples: [
    ["gilliam releases", "of the formation of this folder"],
    ["gilliam rollback --release 3", "goes back to one of them"],
  ],
  run: async (context) => {
    const found = await context.client.call("releases", { name: context.formation() });
    const shown = found.toSorted((a, b) => b.number - a.number);
    if (context.json) context.printJson(shown);
    else if (shown.length > 0)
      context.printTable(shown, releaseColumns(context.style, context.shell.clock.wallMs()));
    else context.note("There are no releases yet. Make one: gilliam deploy");
  },
};
