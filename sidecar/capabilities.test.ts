import { expect, test } from "vitest";
import { hasSysAdmin } from "./capabilities.ts";

test.for([
  { effective: "0000000000000000", has: false },
  { effective: "0000000000200000", has: true },
  { effective: "000001ffffffffff", has: true },
  { effective: "000001ffffdfffff", has: false }, // All but this one.
])("CapEff $effective has CAP_SYS_ADMIN: $has", ({ effective, has }) => {
  expect(hasSysAdmin(`Name:\tnode\nCapPrm:\t000001ffffffffff\nCapEff:\t${effective}\n`)).toBe(has);
});
