import * as fc from "fast-check";
import { expect, test } from "vitest";
import { editDistance, nearest } from "./suggest.ts";

test.for([
  { a: "", b: "abc", distance: 3 },
  { a: "api", b: "aip", distance: 1 }, // Two neighbours swapped are one slip.
  { a: "dependancies", b: "dependencies", distance: 1 },
  { a: "kitten", b: "sitting", distance: 3 },
])("$a → $b is $distance", ({ a, b, distance }) => {
  expect(editDistance(a, b)).toBe(distance);
});

test("distance is symmetric, and zero only for equal words", () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), (a, b) => {
      expect(editDistance(a, b)).toBe(editDistance(b, a));
      expect(editDistance(a, b) === 0).toBe(a === b);
      expect(editDistance(a, b)).toBeLessThanOrEqual(Math.max(a.length, b.length));
    }),
  );
});

test.for([
  { word: "prot", found: "port" },
  { word: "env", found: "environment" }, // A beginning is an abbreviation.
  { word: "xyz", found: undefined },
  { word: "p".repeat(10_000), found: undefined },
])("nearest to $word is $found", ({ word, found }) => {
  expect(nearest(word, ["port", "environment", "command"])).toBe(found);
});
