import { z } from "zod";
import { RunSpec } from "./run-spec.ts";

/**
 * One running copy of a service from one release.
 * pending → starting → ready → draining → stopped, or failed. Crash and restart go back to starting.
 */
export const InstancePhase = z.enum(["pending", "starting", "ready", "draining", "stopped", "failed"]);
export type InstancePhase = z.infer<typeof InstancePhase>;

const NEXT_PHASES: Record<InstancePhase, readonly InstancePhase[]> = {
  pending: ["starting", "stopped", "failed"],
  starting: ["ready", "draining", "stopped", "failed"],
  ready: ["starting", "draining", "stopped", "failed"], // To starting: it crashed or failed its health check.
  draining: ["stopped", "failed"],
  stopped: [],
  failed: ["starting", "draining", "stopped"], // To starting: the back-off is over.
};

export function mayMove(from: InstancePhase, to: InstancePhase): boolean {
  return from === to || NEXT_PHASES[from].includes(to);
}

/** What control wants of an instance on a host. An instance is stopped only when told so, never for being absent. */
export const Assignment = z.strictObject({
  instanceId: z.string().min(1),
  spec: RunSpec,
  /** `stop` comes after every proxy has let go of it; then the signal, the grace, SIGKILL. */
  want: z.enum(["run", "stop"]),
});
export type Assignment = z.infer<typeof Assignment>;

/** What an executor says of an instance. */
export const InstanceStatus = z.strictObject({
  instanceId: z.string().min(1),
  phase: InstancePhase,
  /** Where proxies reach it; absent until it has a network. */
  address: z.strictObject({ host: z.string(), port: z.int().min(1).max(65_535) }).optional(),
  /** Plain words: why it is in this phase. */
  reason: z.string(),
  /** Starts beyond the first. */
  restarts: z.int().min(0),
  /** Wall clock of the last start, milliseconds since 1970. */
  startedAtMs: z.number().optional(),
  lastExit: z
    .strictObject({
      code: z.int().nullable(),
      signal: z.string().nullable(),
      atMs: z.number(),
      outOfMemory: z.boolean(),
    })
    .optional(),
  /** The last lines it wrote before it failed, at most 10. */
  lastLines: z.array(z.string()).max(10),
  /** Wall clock of the next start while it backs off. */
  nextStartAtMs: z.number().optional(),
  pid: z.int().optional(),
  /** Set on instances of the boot manifest, which the executor runs by itself: control adopts them. */
  boot: RunSpec.optional(),
});
export type InstanceStatus = z.infer<typeof InstanceStatus>;
