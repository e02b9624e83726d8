import type { Settings } from "../base/settings.ts";
import type { RunSpec } from "../model/run-spec.ts";
import type { executorSettings } from "./settings.ts";
import type { SupervisionPolicy } from "./supervise.ts";

/** A part of the platform comes back much sooner than anything else: everybody waits for it. */
const BOOT_RESTARTS = { firstRestartMs: 100, restartMsBase: 100, restartMsMax: 5_000 } as const;

/** How an instance is supervised: by its own spec, and by the settings of this host. */
export function policyFor(
  spec: RunSpec,
  isBoot: boolean,
  settings: Pick<
    Settings<typeof executorSettings>,
    "checkStartingMs" | "checkReadyMs" | "checkFailuresMax" | "restartMsBase" | "restartMsMax" | "stableMs"
  >,
): SupervisionPolicy {
  const { checkStartingMs, checkReadyMs, checkFailuresMax, restartMsBase, restartMsMax, stableMs } = settings;
  return {
    health: spec.health,
    stopSignal: spec.stop.signal,
    graceMs: spec.stop.graceMs,
    checkStartingMs,
    checkReadyMs,
    failuresMax: checkFailuresMax,
    ...(isBoot ? BOOT_RESTARTS : { firstRestartMs: 400, restartMsBase, restartMsMax }),
    stableMs: isBoot ? Math.min(stableMs, 10_000) : stableMs,
  };
}
