import type { Command } from "commander";
import { parseDurationMs } from "../../base/units.ts";
import { usageError } from "../usage-error.ts";
import type { Verb } from "../verb.ts";

interface Options {
  readonly retryAfter?: string;
}

export const maintenance: Verb<Options> = {
  name: "maintenance",
  args: "<service> <on-or-off>",
  about: "Send everybody who calls a service away with 503 and a time to come back, or open it again.",
  examples: [
    ["gilliam maintenance web on", "closed, at the edge and for other services; deploys go on"],
    ["gilliam maintenance web on --retry-after 10m", "and this is what clients are told"],
    ["gilliam maintenance web off", "open again"],
  ],
  configure: (command: Command) =>
    void command.option("--retry-after <duration>", "when to come back (default: 1m)"),
  run: async (context, [service = "", word = ""], options) => {
    if (word !== "on" && word !== "off") throw usageError(`say on or off; it is "${word}"`);
    const retryAfterMs = parseDurationMs(options.retryAfter ?? "1m");
    if (retryAfterMs === undefined || retryAfterMs > 86_400_000) {
      throw usageError(
        `--retry-after must be like "90s" or "10m", at most 24h; it is "${options.retryAfter}"`,
      );
    }
    const retryAfterSeconds = Math.ceil(retryAfterMs / 1000);
    const name = context.formation();
    const view = await context.client.call("pause", {
      name,
      body: word === "on" ? { kind: "maintenance", service, retryAfterSeconds } : { kind: "none", service },
    });
    if (context.json) context.printJson(view);
    else if (word === "off") context.print(`${service}: open`);
    else
      context.print(`${service}: closed for maintenance; open it with: gilliam maintenance ${service} off`);
  },
};
