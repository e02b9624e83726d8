import { expect, test } from "vitest";
import { pauseProgram } from "./pause.ts";

test.for([
  { architecture: "x64", machine: 62, bytes: 129 },
  { architecture: "arm64", machine: 183, bytes: 148 },
])(
  "the $architecture program is an executable whose segment holds all of it",
  ({ architecture, machine, bytes }) => {
    const file = pauseProgram(architecture) ?? Buffer.alloc(0);
    expect(file.length).toBe(bytes);
    expect(file.subarray(0, 4).toString("latin1")).toBe("\x7fELF");
    expect([file.readUInt16LE(16), file.readUInt16LE(18)]).toEqual([2, machine]);
    const load = file.readBigUInt64LE(64 + 16);
    expect(file.readBigUInt64LE(24) - load).toBe(120n); // It starts right behind the two headers.
    expect(file.readBigUInt64LE(64 + 32)).toBe(BigInt(bytes));
  },
);

test("there is none for a machine it was never written for", () => {
  expect(pauseProgram("s390x")).toBeUndefined();
});
