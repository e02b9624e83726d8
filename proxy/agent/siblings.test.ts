import { expect, test } from "vitest";
import { mergeSiblings } from "./siblings.ts";

test("alone it reports itself", () => {
  expect(mergeSiblings({ epoch: 5, busy: { a: 1 } }, [])).toEqual({ epoch: 5, busy: { a: 1 } });
});

test("an epoch is in force when it is in force in every worker, and what any has in flight is in flight", () => {
  const siblings = [
    { epoch: 4, busy: { a: 2, b: 1 } },
    { epoch: 6, busy: {} },
  ];
  expect(mergeSiblings({ epoch: 5, busy: { a: 1 } }, siblings)).toEqual({ epoch: 4, busy: { a: 3, b: 1 } });
});
