import { expect, test } from "vitest";
import { seededRandom } from "../base/random.ts";
import { AdaptivePolicy } from "../model/mesh.ts";
import { AdaptiveLimit } from "./adaptive-limit.ts";

const policy = AdaptivePolicy.parse({});

/**
 * A service with `workers` that each take `serviceMs` a request, offered as many requests as the limit lets in (closed
 * loop: an answer makes room for the next). Ticks of a millisecond; returns the mean limit and the mean time an answer took
 * over the last third.
 */
function serve(
  limit: AdaptiveLimit,
  { workers, serviceMs, forMs, startMs = 0, offered = Infinity, seed = 1 }: Load,
): { limit: number; tookMs: number } {
  const random = seededRandom(seed);
  const queue: number[] = [];
  let busy: { readonly sinceMs: number; leftMs: number }[] = [];
  let limits = 0;
  let took = 0;
  let answers = 0;
  for (let nowMs = startMs; nowMs < startMs + forMs; nowMs += 1) {
    while (queue.length + busy.length < Math.min(limit.limit, offered)) queue.push(nowMs);
    while (busy.length < workers && queue.length > 0) {
      busy.push({ sinceMs: queue.shift()!, leftMs: serviceMs * (0.75 + random() / 2) });
    }
    for (const one of busy) one.leftMs -= 1;
    const late = nowMs > startMs + (forMs * 2) / 3;
    for (const one of busy.filter(({ leftMs }) => leftMs <= 0)) {
      limit.sample(nowMs, nowMs - one.sinceMs + 1, queue.length + busy.length, false);
      if (late) [took, answers] = [took + nowMs - one.sinceMs + 1, answers + 1];
    }
    busy = busy.filter(({ leftMs }) => leftMs > 0);
    if (late) limits += limit.limit;
  }
  return { limit: limits / (forMs / 3), tookMs: took / Math.max(1, answers) };
}

interface Load {
  readonly workers: number;
  readonly serviceMs: number;
  readonly forMs: number;
  readonly startMs?: number;
  readonly offered?: number;
  readonly seed?: number;
}

test.for([1, 2, 3])("the limit finds what a service can take, and answers stay quick (SEED=%i)", (seed) => {
  const small = serve(new AdaptiveLimit(policy), { workers: 40, serviceMs: 10, forMs: 20_000, seed });
  const big = serve(new AdaptiveLimit(policy), { workers: 200, serviceMs: 10, forMs: 20_000, seed });
  expect(small.limit).toBeGreaterThan(35); // Every worker has something to do …
  expect(small.tookMs).toBeLessThan(40); // … and nobody waits long for one.
  expect(big.limit).toBeGreaterThan(small.limit * 2);
});

test("a service that becomes slower is given less, and more again when it has recovered", () => {
  const limit = new AdaptiveLimit(policy);
  const before = serve(limit, { workers: 100, serviceMs: 10, forMs: 15_000 });
  const slow = serve(limit, { workers: 10, serviceMs: 10, forMs: 5_000, startMs: 15_000 });
  expect(slow.limit).toBeLessThan(before.limit / 2);
  const after = serve(limit, { workers: 100, serviceMs: 10, forMs: 60_000, startMs: 20_000 });
  expect(after.limit).toBeGreaterThan(before.limit * 0.6);
});

test("little traffic teaches nothing: the limit stays where it began", () => {
  const limit = new AdaptiveLimit(policy);
  serve(limit, { workers: 100, serviceMs: 10, forMs: 10_000, offered: 5 });
  expect(limit.limit).toBe(policy.limitInitial);
});

test("refused and lost requests make it smaller, down to its floor", () => {
  const limit = new AdaptiveLimit(policy);
  for (let nowMs = 0; nowMs < 60_000; nowMs += 5) limit.sample(nowMs, 5, 20, true);
  expect(limit.limit).toBe(policy.limitMin);
});

test("it stays within its bounds, whatever happens, and within new ones at once", () => {
  const limit = new AdaptiveLimit({ ...policy, limitMax: 30 });
  serve(limit, { workers: 1_000, serviceMs: 10, forMs: 20_000 });
  expect(limit.limit).toBe(30);
  limit.change({ ...policy, limitMax: 25 });
  expect(limit.limit).toBe(25);
});
