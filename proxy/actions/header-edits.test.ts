import { expect, test } from "vitest";
import { compileEdits, editFields, problemOfEdits } from "./header-edits.ts";

test("fields are removed, replaced and added, whatever their case", () => {
  const edits = compileEdits({ remove: ["server"], set: { "x-a": "1" }, add: { vary: "origin" } });
  expect(editFields("Server: app\r\nX-A: old\r\nx-a: older\r\nVary: cookie\r\nx-ab: 1\r\n", edits)).toBe(
    "Vary: cookie\r\nx-ab: 1\r\nx-a: 1\r\nvary: origin\r\n",
  );
  expect(editFields("a: b\r\n", compileEdits({ add: { c: "d" } }))).toBe("a: b\r\nc: d\r\n");
});

test.for([
  [{ set: { "content-length": "1" } }, "belongs to the proxy"],
  [{ remove: ["transfer_encoding"] }, "belongs to the proxy"],
  [{ add: { "x-gilliam-from": "web" } }, "belongs to the proxy"],
  [{ set: { "a b": "1" } }, "is no field name"],
  [{ set: { a: "1\r\nb: 2" } }, "is no field value"],
  [{ set: { a: "1" }, remove: ["b"] }, undefined],
] as const)("%j: %s", ([edits, problem]) => {
  const found = problemOfEdits(edits as Parameters<typeof problemOfEdits>[0]);
  if (problem === undefined) expect(found).toBeUndefined();
  else expect(found).toContain(problem);
});
