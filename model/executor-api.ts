import { z } from "zod";
import { RunSpec } from "./run-spec.ts";

/**
 * The executor's HTTP API, as control uses it: `authorization: Bearer HOST-TOKEN`, errors as problem+json.
 *
 * - `GET /v1/logs` with `LogsQuery`: NDJSON of `LogLine` (model/api.ts), oldest first; with `follow` it goes on.
 * - `POST /v1/instances/{id}/exec` with `ExecRequest`: NDJSON of `ExecMessage`, the last one `exit` or `failed`.
 * - `POST /v1/run` with `ExecutorRunRequest`: the same, in a fresh instance that is removed afterwards.
 * - `GET /v1/builds/{image}/log`: the whole output of the image's last build, text/plain. 404: never built here.
 * - `POST /v1/shutdown`: stops every instance and itself; NDJSON of `ShutdownMessage`.
 *
 * A client that leaves ends what it started: exec and run are killed.
 */
export const LogsQuery = z.object({
  formation: z.string().optional(),
  service: z.string().optional(),
  instance: z.string().optional(),
  /** Only the last N lines of each instance until now. Absent: all that is kept. */
  tail: z.coerce.number().int().min(0).max(100_000).optional(),
  /** Only lines at or after this wall time, milliseconds since 1970. */
  sinceMs: z.coerce.number().optional(),
  /** `true`: stay and send every new line. */
  follow: z.enum(["true", "false"]).default("false"),
});
export type LogsQuery = z.infer<typeof LogsQuery>;

/** Everything the executor needs for a one-off; secrets are filled in. */
export const ExecutorRunRequest = z.strictObject({
  spec: RunSpec,
  /** Program and arguments, no shell. */
  command: z.array(z.string()).min(1),
  /** Standard input, base64; absent: none. */
  stdin: z.string().optional(),
});
export type ExecutorRunRequest = z.infer<typeof ExecutorRunRequest>;

/** After `done` nothing of this host's instances is left, and the executor exits with code 0. */
export const ShutdownMessage = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("progress"), text: z.string() }),
  z.strictObject({ kind: z.literal("done") }),
]);
export type ShutdownMessage = z.infer<typeof ShutdownMessage>;
