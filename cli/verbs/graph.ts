import type { Command } from "commander";
import { graphDot, graphMermaid, graphText } from "../output/graph-text.ts";
import type { Verb } from "../verb.ts";

interface Options {
  readonly all?: boolean;
  readonly dot?: boolean;
  readonly mermaid?: boolean;
}

export const graph: Verb<Options> = {
  name: "graph",
  about: "Draw who may call whom, with what flows there now.",
  examples: [
    ["gilliam graph", "the formation of this folder"],
    ["gilliam graph --all", "all of them"],
    ["gilliam graph --dot | dot -Tsvg > graph.svg", "a picture"],
    ["gilliam graph --mermaid", "for Markdown"],
  ],
  configure: (command: Command) =>
    void command
      .option("-a, --all", "every formation")
      .option("--dot", "for Graphviz")
      .option("--mermaid", "for Mermaid"),
  run: async (context, _args, { all, dot, mermaid }) => {
    const formation = all === true ? undefined : context.formationIfAny();
    const view = await context.client.call("graph", { query: formation === undefined ? {} : { formation } });
    if (context.json) context.printJson(view);
    else if (dot === true) context.print(graphDot(view));
    else if (mermaid === true) context.print(graphMermaid(view));
    else if (view.nodes.length > 0) context.print(graphText(view, context.style));
    else context.note("Nothing is deployed yet. Deploy something: gilliam deploy");
  },
};
