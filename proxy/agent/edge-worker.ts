import { randomUUID } from "node:crypto";
import { systemClock } from "../../base/clock.ts";
import { createLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { createEngine } from "../engine.ts";
import { ProxyProgram } from "./proxy-program.ts";
import { AgentFilters } from "./agent-filters.ts";
import { writeCompileCacheSoon } from "./compile-cache.ts";
import { engineSurroundings } from "./engine-surroundings.ts";
import { parentChannel, runWorker } from "./worker.ts";
import type { WorkerSettings } from "./worker-settings.ts";

/** The edge's worker; proxy/main.ts is its keeper. */
runWorker({
  channel: parentChannel(),
  clock: systemClock,
  start: async (given, link) => {
    const settings = given as WorkerSettings;
    const log = createLog({ part: "edge", level: settings.logLevel });
    const filters = new AgentFilters({ settings, clock: systemClock, random: systemRandom, log });
    const saved = await filters.prepareSaved();
    // Loaded only where it is wanted: TLS costs memory.
    const tls =
      settings.tls === undefined
        ? undefined
        : await (await import("./edge-tls.ts")).startEdgeTls(settings.tls, link, systemClock, log);
    const program = new ProxyProgram({
      ...(tls === undefined ? {} : { tls, pages: tls.pages }),
      filters,
      saved,
      settings,
      link,
      clock: systemClock,
      random: systemRandom,
      log,
      bootId: randomUUID(),
      createEngine: (onAccess) =>
        createEngine({
          name: "edge",
          clock: systemClock,
          random: systemRandom,
          log,
          onAccess,
          ...engineSurroundings(settings, systemClock, log),
        }),
    });
    writeCompileCacheSoon(systemClock, () => log.info("compile cache written"));
    return program;
  },
});
