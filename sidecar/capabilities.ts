import fs from "node:fs";

/** Bit of CAP_SYS_ADMIN in a capability set (linux/capability.h). */
const CAP_SYS_ADMIN = 21n;

/** True when `/proc/self/status` text shows CAP_SYS_ADMIN as effective. */
export function hasSysAdmin(status: string): boolean {
  const match = /^CapEff:\s*([0-9a-f]+)$/m.exec(status);
  return match?.[1] !== undefined && ((BigInt(`0x${match[1]}`) >> CAP_SYS_ADMIN) & 1n) === 1n;
}

/**
 * What to put before the worker's command so that it runs without the keeper's capabilities: it faces traffic,
 * the keeper enters namespaces. Nothing where the keeper has none. As root the bounding set must go too, since
 * a program started by root gets all that it allows; only root may and must do that.
 */
export function withoutCapabilities(): string[] {
  let status: string;
  try {
    status = fs.readFileSync("/proc/self/status", "utf8");
  } catch {
    return []; // Not Linux: no capabilities to drop.
  }
  if (!hasSysAdmin(status)) return [];
  const drop = ["--inh-caps=-all", "--ambient-caps=-all"];
  return ["setpriv", ...drop, ...(process.getuid?.() === 0 ? ["--bounding-set=-all"] : []), "--no-new-privs"];
}
