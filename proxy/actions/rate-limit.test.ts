import * as fc from "fast-check";
import { expect, test } from "vitest";
import { RateLimiter, addressKey, rateLimitFields, rateLimitKey, wholeSeconds } from "./rate-limit.ts";

const spec = { requests: 10, windowMs: 1000, burst: 3, key: "address" as const };

test("a burst, then one each interval, and everything again after a rest", () => {
  const limiter = new RateLimiter(spec, 10);
  expect([0, 0, 0].map((nowMs) => limiter.take("a", nowMs).remaining)).toEqual([2, 1, 0]);
  expect(limiter.take("a", 0)).toEqual({ allowed: false, remaining: 0, resetMs: 300, retryAfterMs: 100 });
  expect(limiter.take("a", 99).allowed).toBe(false);
  expect(limiter.take("a", 100).allowed).toBe(true);
  expect(limiter.take("b", 100).remaining).toBe(2);
  expect(limiter.take("a", 400).remaining).toBe(2);
});

test("whatever comes when, no window holds more than its share and the burst, and what is even is never refused", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 200 }),
      (requests, burst, gaps) => {
        const limiter = new RateLimiter({ requests, windowMs: 1000, burst }, 10);
        let nowMs = 0;
        const allowed: number[] = [];
        for (const gap of gaps) {
          nowMs += gap;
          if (limiter.take("", nowMs).allowed) allowed.push(nowMs);
        }
        for (const from of allowed) {
          const within = allowed.filter((at) => at >= from && at <= from + 1000).length;
          expect(within).toBeLessThanOrEqual(requests + burst);
        }
        const even = new RateLimiter({ requests, windowMs: 1000, burst: 1 }, 10);
        for (let count = 0; count < 100; count += 1) {
          expect(even.take("", (count * 1000) / requests).allowed).toBe(true);
        }
      },
    ),
  );
});

test("a flood of keys takes a bounded table, and who came last is remembered", () => {
  const limiter = new RateLimiter({ requests: 1, windowMs: 60_000, burst: 1 }, 100);
  for (let count = 0; count < 100_000; count += 1) limiter.take(`k${count}`, 0);
  expect(limiter.keyCount).toBe(100);
  expect(limiter.take("k99999", 0).allowed).toBe(false);
  expect(limiter.take("k0", 0).allowed).toBe(true);
});

test.for([
  ["10.0.0.1", "10.0.0.1"],
  ["::ffff:10.0.0.1", "10.0.0.1"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
  ["2001:db8::6", "2001:db8:0:0"],
  ["::1", "0:0:0:0"],
  ["fe80::1%eth0", "fe80:0:0:0"],
])("%s counts as %s", ([address, key]) => {
  expect(addressKey(address!)).toBe(key);
});

test("keys come from the address, a field or the caller; fields are those of the draft", () => {
  const request = { fields: "X-Api-Key: k1\r\n" };
  expect(rateLimitKey({ header: "x-api-key" }, request, "web.shop", "10.0.0.1")).toBe("k1");
  expect(rateLimitKey({ header: "x-other" }, request, "web.shop", "10.0.0.1")).toBe("");
  expect(rateLimitKey("service", request, "web.shop", "10.0.0.1")).toBe("web.shop");
  expect(rateLimitKey("route", request, "web.shop", "10.0.0.1")).toBe("");
  expect(rateLimitFields(spec, { allowed: true, remaining: 2, resetMs: 1001, retryAfterMs: 0 })).toBe(
    'ratelimit-policy: "default";q=10;w=1\r\nratelimit: "default";r=2;t=2\r\n',
  );
});

test("seconds are rounded up, but not for what adding fractions gets wrong", () => {
  expect([0.0004, 1, 1000, 30_000.000_000_1, 30_001].map(wholeSeconds)).toEqual([0, 1, 1, 30, 31]);
});
