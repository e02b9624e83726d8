import type { Command } from "commander";
import { consulPolicy } from "../../model/consul-policy.ts";
import { usageError } from "../usage-error.ts";
import type { Verb } from "../verb.ts";

interface Options {
  readonly prefix: string;
}

export const consul: Verb<Options> = {
  name: "consul",
  args: "<action>",
  about: "Print the rights that Gilliam needs in Consul, and not one more (consul policy).",
  examples: [
    ["gilliam consul policy", "as a policy for `consul acl policy create -rules -`"],
    ["gilliam consul policy --prefix staging", "for a platform with --consul-prefix staging"],
  ],
  configure: (command: Command) =>
    void command.option("--prefix <name>", "key below which everything is kept", "gilliam"),
  run: async (context, [action = ""], { prefix }) => {
    if (action !== "policy") {
      throw usageError(`gilliam consul does not know "${action}"`, { next: "Try: gilliam consul policy" });
    }
    if (!/^[a-z0-9._-]{1,100}$/.test(prefix)) {
      throw usageError(`--prefix must be a-z, 0-9, dot, dash or underscore; it is "${prefix}"`);
    }
    const policy = consulPolicy({ prefix });
    if (context.json) context.printJson({ policy });
    else context.print(policy.trimEnd());
  },
};
