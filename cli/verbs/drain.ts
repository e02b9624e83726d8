import type { Command } from "commander";
import { count } from "../output/words.ts";
import type { Verb } from "../verb.ts";

interface Options {
  readonly undo?: boolean;
}

export const drain: Verb<Options> = {
  name: "drain",
  args: "<host>",
  about: "Move every instance away from a machine, without losing a request, and place no new one there.",
  examples: [
    ["gilliam drain worker-2", "before maintenance; `gilliam hosts` shows how many are left"],
    ["gilliam drain worker-2 --undo", "instances may come again"],
  ],
  configure: (command: Command) => void command.option("--undo", "take it back"),
  run: async (context, [id = ""], { undo }) => {
    const host = await context.client.call("drain", { id, body: { undo: undo === true } });
    if (context.json) context.printJson(host);
    else if (undo === true) context.print(`Host ${host.hostId} takes instances again.`);
    else
      context.print(
        `Host ${host.hostId} is draining: ${count(host.instances, "instance")} left. Watch: gilliam hosts`,
      );
  },
};
