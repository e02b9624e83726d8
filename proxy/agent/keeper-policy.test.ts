import { expect, test } from "vitest";
import { defaultKeeperPolicy as policy, isHung, replacementDelay } from "./keeper-policy.ts";

test.for([
  { livedMs: 10_000, before: 7, delayMs: 0, quickDeaths: 0 },
  { livedMs: 9_999, before: 0, delayMs: 0, quickDeaths: 1 }, // The first quick death is forgiven.
  { livedMs: 0, before: 1, delayMs: 75, quickDeaths: 2 },
  { livedMs: 0, before: 2, delayMs: 150, quickDeaths: 3 },
  { livedMs: 0, before: 50, delayMs: 3_750, quickDeaths: 51 }, // The cap.
])(
  "lived $livedMs ms after $before quick deaths: wait $delayMs ms",
  ({ livedMs, before, delayMs, quickDeaths }) => {
    expect(replacementDelay(livedMs, before, policy, () => 0.5)).toEqual({ delayMs, quickDeaths });
  },
);

test.for([
  { sent: 0, answered: 0, hung: false },
  { sent: 9, answered: 6, hung: false },
  { sent: 10, answered: 6, hung: true },
])("$sent pings sent, $answered answered: hung is $hung", ({ sent, answered, hung }) => {
  expect(isHung({ sent, answered }, policy)).toBe(hung);
});
