import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { inSlices } from "../base/slices.ts";
import type { MeshConfig } from "../model/mesh.ts";
import { applyDelta } from "../model/mesh-delta.ts";
import { feedMessageSteps } from "../proxy/agent/feed-message.ts";
import { createEngine } from "../proxy/engine.ts";

/**
 * node swap-engine.ts UPSTREAM_PORT…: an edge whose configuration of 1,000 routes and 5,000 endpoints is replaced four
 * times a second, by a delta (1 % of the services) and every tenth time as a whole with new instances everywhere, from
 * the line of the feed to the engine. Prints its port; after a line on standard input the longest time for which each stood in the way of requests, since the last.
 */
const ports = process.argv.slice(2).map(Number);
const CLUSTERS = 1_000;
const ENDPOINTS = 5;
const CHANGED = 10;
const EVERY_MS = 250;
const WHOLE_EVERY = 10;

/** What is measured of each swap, in milliseconds: the longest time in which nothing else ran. */
export interface SwapTimes {
  deltas: number[];
  wholes: number[];
}
let times: SwapTimes = { deltas: [], wholes: [] };
let config: MeshConfig | undefined;

const engine = createEngine({
  clock: systemClock,
  random: systemRandom,
  log: silentLog,
  name: "edge",
  onSlice: (durationMs) => noteSlice(durationMs),
});

function service(index: number, generation: number) {
  const endpoints = Array.from({ length: ENDPOINTS }, (_, each) => ({
    id: `s${index}-${each}-g${generation}`,
    host: "127.0.0.1",
    port: ports[each % ports.length],
    release: generation,
  }));
  return { name: `s${index}.load`, protocol: "http", endpoints };
}

const wholeLine = (epoch: number) =>
  JSON.stringify({
    kind: "config",
    config: {
      epoch,
      clusters: Array.from({ length: CLUSTERS }, (_, index) => service(index, epoch)),
      edges: [],
      routes: Array.from({ length: CLUSTERS }, (_, index) => ({
        id: `r${index}`,
        host: index === 0 ? "127.0.0.1" : `h${index}.test`,
        path: "/",
        cluster: `s${index}.load`,
      })),
    },
  });

const deltaLine = (base: number) =>
  JSON.stringify({
    kind: "delta",
    delta: {
      epoch: base + 1,
      base,
      set: {
        clusters: Array.from({ length: CHANGED }, (_, each) =>
          // The one under load is always among them.
          service(each === 0 ? 0 : (base * 17 + each) % CLUSTERS, base + 1),
        ),
        edges: [],
        routes: [],
      },
      remove: { clusters: [], edges: [], routes: [] },
    },
  });

/** The longest slice of the swap that is under way. */
let longestMs = 0;
const noteSlice = (durationMs: number) => {
  longestMs = Math.max(longestMs, durationMs);
};

/** What a proxy does with a line of its feed. */
async function hear(line: string): Promise<void> {
  const message = await inSlices(feedMessageSteps(line), systemClock, noteSlice);
  if (message.kind === "config") config = message.config;
  else if (message.kind === "delta") {
    const startedMs = performance.now();
    config = applyDelta(config!, message.delta)!;
    noteSlice(performance.now() - startedMs);
  }
  const outcome = await engine.applySliced(config!);
  if (!outcome.ok) throw new Error(outcome.reason);
}

async function swap(): Promise<void> {
  const base = config?.epoch ?? 0;
  const isWhole = base % WHOLE_EVERY === 0;
  const line = isWhole ? wholeLine(base + 1) : deltaLine(base);
  // What it takes to make the line is not the proxy's.
  await new Promise(setImmediate);
  longestMs = 0;
  await hear(line);
  (isWhole ? times.wholes : times.deltas).push(longestMs);
}

await hear(wholeLine(1));
const { address } = await engine.listen({ kind: "edge", id: "public" }, { host: "127.0.0.1", port: 0 });
process.stdout.write(`${address.port}\n`);
setInterval(() => void swap(), EVERY_MS);
process.stdin.on("data", () => {
  process.stdout.write(`${JSON.stringify(times)}\n`);
  times = { deltas: [], wholes: [] };
});
process.stdin.on("end", () => process.exit(0));
