import type { Command } from "commander";
import { canaryText } from "../output/views.ts";
import { usageError } from "../usage-error.ts";
import type { Verb } from "../verb.ts";
import { timeoutOf, waitUntilSettled } from "../watch.ts";

interface Options {
  readonly detach?: boolean;
  readonly timeout?: string;
}

export const scale: Verb<Options> = {
  name: "scale",
  args: "<services...>",
  about: "Change how many copies of services run. Overrides `instances:` until it is scaled again.",
  examples: [
    ["gilliam scale web=5", "five copies of web"],
    ["gilliam scale web=5 api=2 --detach", "several at once, without waiting"],
    ["gilliam scale worker=0", "none; the service stays declared"],
  ],
  configure: (command: Command) =>
    void command
      .option("-d, --detach", "return at once")
      .option("--timeout <duration>", "longest wait (default: 10m)"),
  run: async (context, args, options) => {
    const timeoutMs = timeoutOf(options.timeout);
    const counts = Object.fromEntries(args.map(parseCount));
    const name = context.formation();
    let view = await context.client.call("scale", { name, body: { counts } });
    const services = Object.keys(counts);
    if (options.detach !== true) {
      view = await waitUntilSettled(context, name, {
        services,
        timeoutMs,
        failure: `${services.join(", ")} of ${name} cannot be scaled`,
        next: "See: gilliam status",
      });
    }
    if (context.json) {
      context.printJson(view);
      return;
    }
    for (const service of view.services.filter((service) => services.includes(service.name))) {
      const { name, wanted, ready } = service;
      context.print(service.canary === null ? `${name}: ${ready} of ${wanted} ready` : canaryText(service));
    }
  },
};

function parseCount(text: string): [service: string, count: number] {
  const match = /^([a-z][a-z0-9-]*)=(\d{1,4})$/.exec(text);
  if (match === null)
    throw usageError(`"${text}" is not SERVICE=COUNT`, { next: "Like: gilliam scale web=5" });
  return [match[1] ?? "", Number(match[2])];
}
