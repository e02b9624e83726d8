import { hostColumns } from "../output/views.ts";
import type { Verb } from "../verb.ts";

export const hosts: Verb = {
  name: "hosts",
  about: "List the machines that run instances.",
  examples: [
    ["gilliam hosts", "all of them"],
    ["gilliam drain HOST", "moves everything away from one"],
  ],
  run: async (context) => {
    const found = await context.client.call("hosts", {});
    if (context.json) context.printJson(found);
    else if (found.length > 0)
      context.printTable(found, hostColumns(context.style, context.shell.clock.wallMs()));
    else context.note("No host has reported yet. Is an executor running? See: gilliam doctor");
  },
};
