import * as fc from "fast-check";
import { expect, test } from "vitest";
import { MaglevTable } from "./maglev.ts";

const names = (count: number) => Array.from({ length: count }, (_, index) => `instance-${index}`);
const keys = Array.from({ length: 5000 }, (_, index) => `key ${index}`);
const homes = (members: readonly string[]) => {
  const table = new MaglevTable(members);
  return keys.map((key) => members[table.lookup(key)]);
};

test("shares are even", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 20 }), (count) => {
      const members = names(count);
      const counts = new Map<string | undefined, number>();
      for (const home of homes(members)) counts.set(home, (counts.get(home) ?? 0) + 1);
      const mean = keys.length / count;
      for (const member of members) {
        expect(counts.get(member) ?? 0).toBeGreaterThan(mean * 0.6);
        expect(counts.get(member) ?? 0).toBeLessThan(mean * 1.4);
      }
    }),
    { numRuns: 20 },
  );
});

test("when a member goes, hardly a key moves that was not its own", () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 20 }), fc.nat(), (count, gone) => {
      const members = names(count);
      const lost = members[gone % count];
      const before = homes(members);
      const after = homes(members.filter((name) => name !== lost));
      const moved = before.filter((home, index) => home !== lost && after[index] !== home).length;
      expect(moved / keys.length).toBeLessThan(0.1);
    }),
    { numRuns: 20 },
  );
});

test("the order of members means nothing", () => {
  fc.assert(
    fc.property(fc.shuffledSubarray(names(8), { minLength: 1 }), (members) => {
      expect(homes(members)).toEqual(homes(members.toSorted()));
    }),
    { numRuns: 20 },
  );
});

test("without members there is no choice", () => {
  expect(new MaglevTable([]).lookup("a")).toBe(-1);
});
