import { expect, test } from "vitest";
import { backoffMs, equalJitterMs } from "./backoff.ts";

const policy = { baseMs: 100, capMs: 1_000 };

test.for([
  { attempt: 0, random: 0, full: 0, equal: 50 },
  { attempt: 0, random: 0.5, full: 50, equal: 75 },
  { attempt: 3, random: 0.5, full: 400, equal: 600 },
  { attempt: 4, random: 0.5, full: 500, equal: 750 }, // 1,600 is over the cap.
  { attempt: 5_000, random: 0.5, full: 500, equal: 750 }, // 2^5000 would be Infinity.
])("attempt $attempt at chance $random waits $full ms or $equal ms", ({ attempt, random, full, equal }) => {
  expect(backoffMs(attempt, policy, () => random)).toBe(full);
  expect(equalJitterMs(attempt, policy, () => random)).toBe(equal);
});
