import { expect, test } from "vitest";
import { hostIdFrom } from "./names.ts";

test.for([
  ["vm", "vm"],
  ["Annas-MacBook.local", "annas-macbook.local"],
  ["büro 3", "b-ro-3"],
  ["-x", "x"],
  ["", "host"],
  ["x".repeat(200), "x".repeat(100)],
] as const)("the machine %j is host %j", ([name, id]) => {
  expect(hostIdFrom(name)).toBe(id);
});
