import { UserError } from "../../base/errors.ts";
import type { Context } from "../context.ts";
import { relayCommand, stdinBody } from "../remote-command.ts";
import { usageError } from "../usage-error.ts";
import type { Verb } from "../verb.ts";

export const exec: Verb = {
  name: "exec",
  args: "<service> [command...]",
  passThrough: true,
  about: "Run a command inside a running instance: its files, its network, its variables.",
  examples: [
    ["gilliam exec web -- ls -l", "in a ready instance of web"],
    ["gilliam exec shop-web-r4-k3x9q -- env", "in a certain instance"],
    ["gilliam exec db -- psql < schema.sql", "standard input goes along, up to 8 MiB"],
  ],
  run: async (context, [target = "", ...words]) => {
    const command = words[0] === "--" ? words.slice(1) : words;
    if (command.length === 0)
      throw usageError("Which command?", { next: `Like: gilliam exec ${target} -- ls -l` });
    const id = await findInstance(context, target);
    const body = { command, ...(await stdinBody(context)) };
    return await relayCommand(context, context.client.stream("exec", { id, body }));
  },
};

/** An instance by its id, or the best one of a service. */
async function findInstance(context: Context, target: string): Promise<string> {
  const name = context.formation();
  const instances = await context.client.call("instances", { name });
  const exact = instances.find(({ id }) => id === target);
  if (exact !== undefined) return exact.id;
  const ofService = instances.filter(({ service }) => service === target);
  const best =
    ofService.find(({ phase }) => phase === "ready") ?? ofService.find(({ phase }) => phase === "starting");
  if (best !== undefined) return best.id;
  const services = [...new Set(instances.map(({ service }) => service))].sort();
  const why = ofService.length > 0 ? "runs" : "exists";
  throw new UserError(`No instance "${target}" ${why} in ${name}`, {
    code: "no_instance",
    status: 404,
    next:
      ofService.length > 0
        ? "See: gilliam status. A one-off command needs no running instance: gilliam run."
        : services.length > 0
          ? `Services with instances: ${services.join(", ")}.`
          : "Nothing of it runs. See: gilliam status",
  });
}
