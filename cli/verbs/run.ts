import { relayCommand, stdinBody } from "../remote-command.ts";
import { usageError } from "../usage-error.ts";
import type { Verb } from "../verb.ts";

export const run: Verb = {
  name: "run",
  args: "<service> [command...]",
  passThrough: true,
  about: "Run a one-off command as a fresh instance of a service: its image, variables and local ports.",
  examples: [
    ["gilliam run api -- python3 migrate.py", "a migration"],
    ["gilliam run web -- node -e 'console.log(process.env)'", "a look around"],
  ],
  run: async (context, [service = "", ...words]) => {
    const command = words[0] === "--" ? words.slice(1) : words;
    if (command.length === 0)
      throw usageError("Which command?", { next: `Like: gilliam run ${service} -- ls -l` });
    const body = { service, command, ...(await stdinBody(context)) };
    return await relayCommand(context, context.client.stream("run", { name: context.formation(), body }));
  },
};
