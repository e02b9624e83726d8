import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ManualClock } from "../../base/manual-clock.ts";
import { EmbeddedRegistry } from "../../control/registry/embedded.ts";
import { describeRegistry } from "./registry.contract.ts";

describeRegistry("embedded", async () => {
  const folder = mkdtempSync(join(tmpdir(), "registry-"));
  const path = join(folder, "registry.db");
  const clock = new ManualClock();
  let registry = new EmbeddedRegistry({ path, clock });
  const reopen = async () => {
    await registry.close();
    registry = new EmbeddedRegistry({ path, clock });
    return registry;
  };
  return {
    registry,
    ttlMs: 10_000,
    ttlSlackMs: 0,
    advance: (byMs) => clock.advance(byMs),
    reopen,
    loseLock: reopen, // Nothing but the end of its process takes it from a holder.
    cleanUp: async () => {
      await registry.close();
      rmSync(folder, { recursive: true });
    },
  };
});
