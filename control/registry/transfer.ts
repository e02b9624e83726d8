import type { RegistryDump, RegistryImport } from "../../model/api.ts";
import { WRITES_MAX } from "./limits.ts";
import type { Registry, Write } from "./registry.ts";

/** Everything but what expires by itself: registrations and locks. */
export async function exportRegistry(registry: Registry, exportedAtMs: number): Promise<RegistryDump> {
  const { entries } = await registry.list("");
  return {
    format: 1,
    exportedAtMs,
    from: registry.description,
    entries: entries.map(({ key, value }) => ({ key, value })),
  };
}

/**
 * Writes what is not there. What is there and differs stays, and is counted, unless `replace`; nothing is ever removed.
 * Counters never go back. Can be repeated: what is the same already is left alone.
 */
export async function importRegistry(
  registry: Registry,
  dump: RegistryDump,
  replace: boolean,
): Promise<RegistryImport> {
  const there = new Map((await registry.list("")).entries.map((entry) => [entry.key, entry]));
  const writes: Write[] = [];
  const kept: string[] = [];
  let same = 0;
  for (const { key, value } of dump.entries) {
    const known = there.get(key);
    const isCounter = key.startsWith("counters/");
    if (known !== undefined && JSON.stringify(known.value) === JSON.stringify(value)) same += 1;
    else if (known === undefined) writes.push({ kind: "set", key, value, ifRevision: 0 });
    else if (isCounter ? Number(value) > Number(known.value) : replace)
      writes.push({ kind: "set", key, value, ifRevision: known.revision });
    else if (isCounter) same += 1;
    else kept.push(key);
  }
  let written = 0;
  for (let at = 0; at < writes.length; at += WRITES_MAX) {
    const batch = writes.slice(at, at + WRITES_MAX);
    if ((await registry.write(batch)).ok) {
      written += batch.length;
      continue;
    }
    // Something of it was changed just now by somebody else: that stays.
    for (const write of batch) {
      if ((await registry.write([write])).ok) written += 1;
      else kept.push(write.key);
    }
  }
  return { written, same, kept };
}
