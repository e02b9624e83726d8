import type { Command } from "commander";
import { UserError } from "../../base/errors.ts";
import type { LogLine } from "../../model/api.ts";
import type { Context } from "../context.ts";
import { printable } from "../output/style.ts";
import { usageError } from "../usage-error.ts";
import type { Verb } from "../verb.ts";

interface Options {
  readonly follow?: boolean;
  readonly tail?: string;
  readonly instance?: string;
  readonly time?: boolean;
}

const RETRY_MS = 1_000;
/** Asked for again after control was away; what was shown already is left out. */
const CATCH_UP_LINES = "1000";

export const logs: Verb<Options> = {
  name: "logs",
  args: "[services...]",
  about: "Show what instances write, several together, each with its name and colour.",
  examples: [
    ["gilliam logs -f", "everything of this folder's formation, as it comes"],
    ["gilliam logs web -n 100", "the last 100 lines of each instance of web"],
    ["gilliam logs --instance shop-web-r4-k3x9q", "one instance"],
    ["gilliam logs -f --json | jq .text", "one JSON object a line"],
  ],
  configure: (command: Command) =>
    void command
      .option("-f, --follow", "go on until Ctrl-C")
      .option("-n, --tail <lines>", "lines from the past, for each instance (default: 20)")
      .option("--instance <id>", "only this instance")
      .option("-t, --time", "with the time of each line"),
  run: async (context, services, options) => {
    const tail = options.tail ?? "20";
    if (!/^\d{1,6}$/.test(tail)) throw usageError(`--tail must be a number of lines; it is "${tail}"`);
    const name = context.formation();
    const [service] = services;
    const show = new LogPrinter(context, options.time === true, services);
    const query = {
      follow: options.follow === true ? ("true" as const) : undefined,
      // The route takes one service; several are filtered here.
      service: services.length === 1 ? service : undefined,
      instance: options.instance,
      tail,
    };
    await readOnce(context, name, withoutAbsent(query), show).catch((error: unknown) => {
      if (options.follow !== true || !isAway(error, "connection_lost")) throw error;
    });
    while (options.follow === true && !context.shell.signal.aborted) {
      await followAgain(context, name, { ...withoutAbsent(query), tail: CATCH_UP_LINES }, show);
    }
  },
};

type Query = { follow?: "true"; service?: string; instance?: string; tail: string };

function withoutAbsent(query: Record<string, string | undefined>): Query {
  return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== undefined)) as Query;
}

async function readOnce({ client }: Context, name: string, query: Query, show: LogPrinter): Promise<void> {
  for await (const line of client.stream("logs", { name, query })) show.print(line);
}

function isAway(error: unknown, code: "connection_lost" | "control_unreachable"): boolean {
  return error instanceof UserError && error.code === code;
}

/** Control may restart while somebody reads: instances do not, so neither should the reading. */
async function followAgain(context: Context, name: string, query: Query, show: LogPrinter): Promise<void> {
  const { clock, signal } = context.shell;
  context.note("(the connection to control ended; waiting for it)");
  for (;;) {
    await clock.sleep(RETRY_MS, signal).catch(() => undefined);
    if (signal.aborted) return;
    try {
      show.skipShown();
      await readOnce(context, name, query, show);
      return;
    } catch (error) {
      if (isAway(error, "connection_lost")) return;
      if (!isAway(error, "control_unreachable")) throw error;
    }
  }
}

/** Prints lines and remembers how far each instance was shown. */
class LogPrinter {
  readonly #context: Context;
  readonly #time: boolean;
  readonly #services: readonly string[];
  readonly #lastMs = new Map<string, number>();
  #skipUntil: ReadonlyMap<string, number> = new Map();
  #nameWidth = 0;

  constructor(context: Context, time: boolean, services: readonly string[]) {
    this.#context = context;
    this.#time = time;
    this.#services = services;
  }

  skipShown(): void {
    this.#skipUntil = new Map(this.#lastMs);
  }

  print(line: LogLine): void {
    const { atMs, service, instanceId, text, stream } = line;
    if (this.#services.length > 0 && !this.#services.includes(service)) return;
    if (atMs <= (this.#skipUntil.get(instanceId) ?? -1)) return;
    this.#lastMs.set(instanceId, atMs);
    const context = this.#context;
    if (context.json) {
      context.print(JSON.stringify(line));
      return;
    }
    const { style, shell } = context;
    const name = shortName(line);
    this.#nameWidth = Math.max(this.#nameWidth, name.length);
    const time = this.#time ? `${style.dim(new Date(atMs).toISOString())} ` : "";
    const shown = printable(text, shell.stdout.color);
    const words = stream === "system" ? style.dim(shown) : shown;
    context.print(
      `${time}${style.named(name.padEnd(this.#nameWidth), instanceId)} ${style.dim("│")} ${words}`,
    );
  }
}

/** `web.k3x9q` of `shop-web-r4-k3x9q`. */
function shortName({ service, instanceId }: LogLine): string {
  const dash = instanceId.lastIndexOf("-");
  return `${service}.${instanceId.slice(dash + 1)}`;
}
