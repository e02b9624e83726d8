import type { Command } from "commander";
import { UserError } from "../../base/errors.ts";
import type { CanaryRequest } from "../../model/api.ts";
import type { Context } from "../context.ts";
import { canaryText } from "../output/views.ts";
import { usageError } from "../usage-error.ts";
import type { Verb } from "../verb.ts";
import { timeoutOf, waitUntilSettled } from "../watch.ts";

interface Options {
  readonly release?: string;
  readonly weight?: string;
  readonly sticky?: string;
  readonly detach?: boolean;
  readonly timeout?: string;
}

export const canary: Verb<Options> = {
  name: "canary",
  args: "<service>",
  about: "Give a share of a service's requests to another release, from the edge and from every caller.",
  examples: [
    ["gilliam deploy --stage", "makes the release"],
    ["gilliam canary web --release 4 --weight 10", "exactly 10 of 100 requests go to release 4"],
    ["gilliam canary web --weight 50", "more, to the newest release"],
    ["gilliam canary web --weight 10 --sticky cookie:visitor", "a visitor stays on one release"],
    ["gilliam promote web", "all of them"],
    ["gilliam rollback", "none of them"],
  ],
  configure: (command: Command) =>
    void command
      .option("-r, --release <number>", "the release (default: the newest)")
      .requiredOption("-w, --weight <percent>", "its share, 0 to 100")
      .option("--sticky <how>", "cookie:NAME or header:NAME")
      .option("-d, --detach", "return at once")
      .option("--timeout <duration>", "longest wait (default: 10m)"),
  run: async (context, [service = ""], options) => {
    const timeoutMs = timeoutOf(options.timeout);
    const weight = wholeNumber("--weight", options.weight, 0, 100);
    const name = context.formation();
    const release =
      options.release === undefined
        ? await newestRelease(context, name)
        : wholeNumber("--release", options.release, 1, Number.MAX_SAFE_INTEGER);
    const sticky = stickyOf(options.sticky);
    const body: CanaryRequest = { service, release, weight, ...(sticky === undefined ? {} : { sticky }) };
    let view = await context.client.call("canary", { name, body });
    if (options.detach !== true) {
      view = await waitUntilSettled(context, name, {
        services: [service],
        timeoutMs,
        failure: `Release ${release} of ${service} does not become ready`,
        next: "The old release keeps serving. End the canary: gilliam rollback",
      });
    }
    const shown = view.services.find((other) => other.name === service);
    if (context.json) context.printJson(view);
    else if (shown !== undefined) context.print(canaryText(shown));
  },
};

async function newestRelease({ client }: Context, name: string): Promise<number> {
  const releases = await client.call("releases", { name });
  const newest = Math.max(0, ...releases.map(({ number }) => number));
  const current = releases.find((release) => release.current)?.number;
  if (newest > 0 && newest !== current) return newest;
  throw new UserError(`There is no release of ${name} newer than the one in force (${current ?? "none"})`, {
    code: "no_release",
    next: "Make one: gilliam deploy --stage. Or name one: --release NUMBER.",
  });
}

function stickyOf(text: string | undefined): CanaryRequest["sticky"] {
  if (text === undefined) return undefined;
  const match = /^(cookie|header):([A-Za-z0-9!#$%&'*+.^_`|~-]+)$/.exec(text);
  if (match === null) throw usageError(`--sticky must be cookie:NAME or header:NAME; it is "${text}"`);
  return { by: match[1] === "cookie" ? "cookie" : "header", name: match[2] ?? "" };
}

/** @throws UserError "usage" unless `text` is a whole number within the bounds. */
export function wholeNumber(option: string, text: string | undefined, min: number, max: number): number {
  const value = text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  const bounds = max === Number.MAX_SAFE_INTEGER ? `from ${min}` : `from ${min} to ${max}`;
  throw usageError(`${option} must be a whole number ${bounds}; it is "${text ?? ""}"`);
}
