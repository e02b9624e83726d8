import { routeColumns } from "../output/views.ts";
import type { Verb } from "../verb.ts";

export const routes: Verb = {
  name: "routes",
  about: "List public host names and paths, and which releases share their requests.",
  examples: [
    ["gilliam routes", "of the formation of this folder"],
    ["gilliam routes --json", "for scripts"],
  ],
  run: async (context) => {
    const name = context.formation();
    const found = await context.client.call("routes", { name });
    if (context.json) context.printJson(found);
    else if (found.length > 0) context.printTable(found, routeColumns());
    else context.note(`${name} has no public address. Give a process one: \`edge: [${name}.localhost]\``);
  },
};
