import { formatDuration, parseDurationMs } from "../../base/units.ts";
import { usageError } from "../usage-error.ts";
import type { Verb } from "../verb.ts";

const HOLD_MS_MAX = 3_600_000;

export const hold: Verb = {
  name: "hold",
  args: "<service> <duration-or-off>",
  about: "Let requests to a service wait while something is switched; they go on when it is over.",
  examples: [
    ["gilliam hold web 10s", "for ten seconds at most; what cannot wait gets 503"],
    ["gilliam hold web off", "now"],
  ],
  run: async (context, [service = "", word = ""]) => {
    const forMs = word === "off" ? 0 : parseDurationMs(word);
    if (forMs === undefined || forMs > HOLD_MS_MAX || (forMs < 1 && word !== "off")) {
      throw usageError(`say how long, like "10s", at most 1h, or off; it is "${word}"`);
    }
    const name = context.formation();
    const view = await context.client.call("pause", {
      name,
      body: word === "off" ? { kind: "none", service } : { kind: "hold", service, forMs: Math.round(forMs) },
    });
    if (context.json) context.printJson(view);
    else if (word === "off") context.print(`${service}: requests go on`);
    else
      context.print(
        `${service}: requests wait, ${formatDuration(forMs)} at most; let them go with: gilliam hold ${service} off`,
      );
  },
};
