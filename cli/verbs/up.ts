import type { Command } from "commander";
import { formationText } from "../output/views.ts";
import { publicUrls } from "../public-urls.ts";
import type { Verb } from "../verb.ts";
import { timeoutOf, waitUntilSettled } from "../watch.ts";

interface Options {
  readonly detach?: boolean;
  readonly timeout?: string;
}

export const up: Verb<Options> = {
  name: "up",
  about: "Run a formation that is down, on the release it had.",
  examples: [
    ["gilliam up", "the formation of this folder"],
    ["gilliam up --formation shop --detach", "another one, without waiting"],
  ],
  configure: (command: Command) =>
    void command
      .option("-d, --detach", "return at once")
      .option("--timeout <duration>", "longest wait (default: 10m)"),
  run: async (context, _args, options) => {
    const timeoutMs = timeoutOf(options.timeout);
    const name = context.formation();
    let view = await context.client.call("up", { name });
    if (options.detach !== true) {
      view = await waitUntilSettled(context, name, {
        timeoutMs,
        failure: `${name} does not come up`,
        next: "See: gilliam status",
      });
    }
    if (context.json) context.printJson(view);
    else
      context.print(
        formationText(
          { ...view, urls: publicUrls(context, view) },
          context.style,
          context.shell.stdout.columns(),
        ),
      );
  },
};
