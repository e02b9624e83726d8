import type { Command } from "commander";
import type { Verb } from "../verb.ts";
import { timeoutOf, waitUntilSettled } from "../watch.ts";
import { wholeNumber } from "./canary.ts";

interface Options {
  readonly release?: string;
  readonly detach?: boolean;
  readonly timeout?: string;
}

export const rollback: Verb<Options> = {
  name: "rollback",
  about: "Go back to an earlier release, code and all, and end every canary.",
  examples: [
    ["gilliam rollback", "the release before, or just the end of a canary"],
    ["gilliam rollback --release 3", "a certain one; see: gilliam releases"],
  ],
  configure: (command: Command) =>
    void command
      .option("-r, --release <number>", "the release (default: the one before)")
      .option("-d, --detach", "return at once")
      .option("--timeout <duration>", "longest wait (default: 10m)"),
  run: async (context, _args, options) => {
    const timeoutMs = timeoutOf(options.timeout);
    const name = context.formation();
    const body =
      options.release === undefined
        ? {}
        : { release: wholeNumber("--release", options.release, 1, Number.MAX_SAFE_INTEGER) };
    let view = await context.client.call("rollback", { name, body });
    if (options.detach !== true) {
      view = await waitUntilSettled(context, name, {
        timeoutMs,
        failure: `Release ${view.current} of ${name} does not become ready again`,
        next: "See: gilliam status",
      });
    }
    if (context.json) context.printJson(view);
    else context.print(`${context.style.bold(name)} is back on release ${view.current}.`);
  },
};
