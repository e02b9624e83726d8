import { evaluateFilter, shapeOf } from "./module.ts";
import type { Filter } from "./filter.ts";
import { runJob } from "./job.ts";
import { systemClock } from "../../base/clock.ts";
import type { FromLane, ToLane } from "./lane.ts";

/**
 * The process of one filter that does not run inside the proxy. It is told the filter and then, one by one, what to run
 * it on; several may be under way. It has no environment, and ends with its proxy.
 */
const states = new Map<string, Map<string, unknown>>();
/** Requests whose response never came are forgotten, the oldest first. */
const STATES_MAX = 20_000;
let filter: Filter | undefined;

const send = (message: FromLane): void => {
  process.send?.(message);
};

process.on("message", (message: ToLane) => {
  switch (message.kind) {
    case "load":
      try {
        filter = evaluateFilter(message.source, message.file, true);
        send({ kind: "loaded", shape: shapeOf(filter, message.file) });
      } catch (error) {
        send({ kind: "refused", what: error instanceof Error ? error.message : String(error) });
      }
      return;
    case "job":
      void runJob(filter!, message.job, states, () => systemClock.wallMs()).then((result) => {
        send({ kind: "result", result });
        if (states.size > STATES_MAX) states.delete(states.keys().next().value!);
      });
      return;
    case "ping":
      send({ kind: "pong" });
  }
});
process.on("disconnect", () => process.exit(0));
// A rejection that nobody awaits concerns no request: it is told, and the filter goes on.
process.on("unhandledRejection", (error) => send({ kind: "stray", what: String(error).slice(0, 500) }));
send({ kind: "hello" });
