import type { Command } from "commander";
import type { Verb } from "../verb.ts";
import { timeoutOf, waitUntilSettled } from "../watch.ts";

interface Options {
  readonly detach?: boolean;
  readonly timeout?: string;
}

export const down: Verb<Options> = {
  name: "down",
  about: "Stop every instance of a formation. Releases, volumes and settings stay.",
  examples: [
    ["gilliam down", "the formation of this folder"],
    ["gilliam up", "runs it again, on the same release"],
  ],
  configure: (command: Command) =>
    void command
      .option("-d, --detach", "return at once")
      .option("--timeout <duration>", "longest wait (default: 10m)"),
  run: async (context, _args, options) => {
    const timeoutMs = timeoutOf(options.timeout);
    const name = context.formation();
    let view = await context.client.call("down", { name });
    if (options.detach !== true) {
      view = await waitUntilSettled(context, name, {
        timeoutMs,
        failure: `${name} does not stop`,
        next: "See: gilliam status",
      });
    }
    if (context.json) context.printJson(view);
    else
      context.print(
        `${context.style.bold(name)} is ${view.services.every(({ state }) => state === "down") ? "down" : "going down"}.`,
      );
  },
};
