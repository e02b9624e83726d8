import type { Command } from "commander";
import { canaryText } from "../output/views.ts";
import type { Verb } from "../verb.ts";
import { timeoutOf, waitUntilSettled } from "../watch.ts";

interface Options {
  readonly detach?: boolean;
  readonly timeout?: string;
}

export const promote: Verb<Options> = {
  name: "promote",
  args: "[service]",
  about: "Give every request to the release that has a canary.",
  examples: [
    ["gilliam promote", "every service with a canary"],
    ["gilliam promote web", "only this one"],
  ],
  configure: (command: Command) =>
    void command
      .option("-d, --detach", "return at once")
      .option("--timeout <duration>", "longest wait (default: 10m)"),
  run: async (context, [service], options) => {
    const timeoutMs = timeoutOf(options.timeout);
    const name = context.formation();
    let view = await context.client.call("promote", { name, body: service === undefined ? {} : { service } });
    if (options.detach !== true) {
      view = await waitUntilSettled(context, name, {
        ...(service === undefined ? {} : { services: [service] }),
        timeoutMs,
        failure: `The promoted release of ${service ?? name} does not become ready`,
        next: "The old release keeps serving. Go back: gilliam rollback",
      });
    }
    if (context.json) context.printJson(view);
    else {
      const shown = view.services.filter((other) => service === undefined || other.name === service);
      context.print(shown.map(canaryText).join("\n"));
    }
  },
};
