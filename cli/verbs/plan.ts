import { prepareDeployment } from "../deployment.ts";
import { planText } from "../output/plan-text.ts";
import type { Verb } from "../verb.ts";

export const plan: Verb = {
  name: "plan",
  about: "Show what a deploy would change. Changes nothing.",
  examples: [
    ["gilliam plan", "compare gilliam.yaml and its sources with what runs"],
    ["gilliam plan --file staging.yaml", "another manifest"],
    ["gilliam plan --json | jq .changes", "for scripts"],
  ],
  run: async (context) => {
    using prepared = await prepareDeployment(context, "deploy");
    if (context.json) context.printJson(prepared.plan);
    else context.print(planText(prepared.plan, context.style));
  },
};
