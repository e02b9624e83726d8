import path from "node:path";
import { median } from "./figures.ts";
import { ownCommand, wrk } from "./generators.ts";
import { startInteractive } from "./processes.ts";
import type { Cores } from "./processes.ts";
import type { SwapTimes } from "./swap-engine.ts";
import { startHttp1Upstream } from "./upstream.ts";

export interface SwapResult extends SwapTimes {
  readonly requests: number;
  readonly perSecond: number;
  readonly failures: number;
}

const PAUSE_MS_MAX = 5;
const CONNECTIONS = 64;

/** swap-engine.ts under as much load as it takes, after as long a warm-up. */
export async function measureSwaps(cores: Cores, folder: string, seconds: number): Promise<SwapResult> {
  const upstream = await startHttp1Upstream(cores.upstream, path.join(folder, "upstream"));
  const engine = startInteractive(cores.proxy, ownCommand("swap-engine.ts", upstream.ports));
  try {
    const url = `http://127.0.0.1:${await engine.nextLine()}/`;
    const warm = await wrk(cores.load, url, CONNECTIONS, seconds);
    engine.ask();
    await engine.nextLine();
    const load = await wrk(cores.load, url, CONNECTIONS, seconds);
    engine.ask();
    const times = JSON.parse(await engine.nextLine()) as SwapTimes;
    return { ...times, ...load, failures: warm.failures + load.failures };
  } finally {
    engine.end();
    await upstream.stop();
  }
}

export function swapsToMarkdown({ deltas, wholes, perSecond, failures }: SwapResult): string {
  const row = (what: string, values: readonly number[]) => {
    const longest = Math.max(...values);
    const verdict =
      longest <= PAUSE_MS_MAX ? "reached" : `missed by ${(longest - PAUSE_MS_MAX).toFixed(1)} ms`;
    return `| ${what} | ${values.length} | ${median(values).toFixed(1)} | ${longest.toFixed(1)} | ≤ ${PAUSE_MS_MAX} | ${verdict} |`;
  };
  return [
    "| 1,000 routes, 5,000 endpoints | swaps | median pause ms | longest | goal | verdict |",
    "|---|---|---|---|---|---|",
    row("a delta, 1 % of the services", deltas),
    row("all of it, every instance new", wholes),
    "",
    `Under ${Math.round(perSecond)} requests/s; ${failures} failed.`,
    "",
  ].join("\n");
}
