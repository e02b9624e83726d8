import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { systemClock } from "../../base/clock.ts";
import { seededRandom } from "../../base/random.ts";
import type { Entry } from "../../control/registry/registry.ts";
import { EmbeddedRegistry } from "../../control/registry/embedded.ts";

const WRITER = fileURLToPath(new URL("../fixtures/registry-writer.ts", import.meta.url));
const KILLS = Number(process.env["GILLIAM_KILLS"] ?? 8);
const SEED = Number(process.env["SEED"] ?? 1);

/** Runs the writer from transaction `first` and kills it `afterMs` after its first acknowledgement. */
async function writeUntilKilled(path: string, first: number, afterMs: number): Promise<number> {
  const child = spawn(process.execPath, [WRITER, path, String(first)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  let timer: NodeJS.Timeout | undefined;
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
    timer ??= setTimeout(() => child.kill("SIGKILL"), afterMs);
  });
  await new Promise((resolve) => child.on("close", resolve));
  clearTimeout(timer);
  const lines = text.split("\n");
  lines.pop(); // An acknowledgement cut in two is none.
  return Number(lines.at(-1));
}

/** What transaction `number` of the writer does to a slot. */
function apply(slots: Map<number, number>, number: number): Map<number, number> {
  if (number % 7 === 6) slots.delete(number % 50);
  else slots.set(number % 50, number);
  return slots;
}

function slotsOf(entries: readonly Entry[], part: string): [number, number][] {
  const own = entries.filter(({ key }) => key.startsWith(`pair/${part}/`));
  return sorted(
    new Map(own.map(({ key, value }) => [Number(key.split("/")[2]), (value as { number: number }).number])),
  );
}

function sorted(slots: ReadonlyMap<number, number>): [number, number][] {
  return [...slots].sort(([a], [b]) => a - b);
}

test(`kill -9 at ${KILLS} random moments loses nothing acknowledged and mixes nothing (SEED=${SEED})`, async () => {
  const folder = mkdtempSync(join(tmpdir(), "registry-kill-"));
  const path = join(folder, "registry.db");
  const random = seededRandom(SEED);
  try {
    const expected = new Map<number, number>();
    let first = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      const acknowledged = await writeUntilKilled(path, first, random() * 60);
      expect(acknowledged).toBeGreaterThanOrEqual(first);
      const registry = new EmbeddedRegistry({ path, clock: systemClock });
      const { entries } = await registry.list("pair/");
      await registry.close();
      for (let number = first; number <= acknowledged; number++) apply(expected, number);
      const withNext = apply(new Map(expected), acknowledged + 1); // Written, but killed before it could say so.
      const found = ["a", "b", "c"].map((part) => slotsOf(entries, part));
      expect(found[1]).toEqual(found[0]);
      expect(found[2]).toEqual(found[0]);
      expect([sorted(expected), sorted(withNext)]).toContainEqual(found[0]);
      first = acknowledged + 1;
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 120_000);
