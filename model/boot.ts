import { z } from "zod";
import { RunSpec } from "./run-spec.ts";

/**
 * The boot manifest, `$GILLIAM_STATE/boot.json`: the platform's own parts, which the executor runs by itself before
 * there is a control to ask. Written by `bootstrap/up`, read once when the executor starts; holds no secrets.
 * A part whose entry changed is restarted when the executor next starts, the others are left running.
 */
export const BootInstance = z.strictObject({
  /** `gilliam-control-1` */
  instanceId: z.string().min(1),
  /** `port` is where the part answers on the host's 127.0.0.1; `health` is checked there. */
  spec: RunSpec,
  /** `sidecar` may enter network namespaces (CAP_SYS_ADMIN as its only capability); everything else may not. */
  privileges: z.enum(["none", "sidecar"]),
});
export type BootInstance = z.infer<typeof BootInstance>;

export const BootManifest = z.strictObject({
  formation: z.literal("gilliam"),
  instances: z.array(BootInstance),
});
export type BootManifest = z.infer<typeof BootManifest>;
