import { expect, test, vi } from "vitest";
import { silentLog } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import type { ProxyReport } from "../../model/mesh.ts";
import { Reporter } from "./reporter.ts";

function start(send: (report: ProxyReport, signal: AbortSignal) => Promise<void>) {
  const clock = new ManualClock();
  let epoch = 0;
  const make = () => ({ epoch: ++epoch }) as ProxyReport;
  const reporter = new Reporter({ send, make, clock, log: silentLog });
  return { clock, reporter };
}

test("reports at once, every 2 s, and when asked", async () => {
  const send = vi.fn(() => Promise.resolve());
  const { clock, reporter } = start(send);
  reporter.now();
  expect(send).not.toHaveBeenCalled(); // Not before it leads.
  reporter.start();
  await clock.advance(1_999);
  expect(send).toHaveBeenCalledTimes(1);
  await clock.advance(1);
  expect(send).toHaveBeenCalledTimes(2);
  reporter.now();
  await clock.advance(0);
  expect(send).toHaveBeenCalledTimes(3);
  await reporter.stop();
  await clock.advance(10_000);
  expect(send).toHaveBeenCalledTimes(3);
  expect(clock.pendingCount).toBe(0);
});

test("one at a time; asked for meanwhile means one more with what is true then", async () => {
  const first = Promise.withResolvers<void>();
  const sent: number[] = [];
  const { clock, reporter } = start((report) => {
    sent.push(report.epoch);
    return sent.length === 1 ? first.promise : Promise.resolve();
  });
  reporter.start();
  reporter.now();
  reporter.now();
  await clock.advance(0);
  expect(sent).toEqual([1]);
  first.resolve();
  await clock.advance(0);
  expect(sent).toEqual([1, 2]);
  await reporter.stop();
});

test("a control that is away costs nothing; one that hangs is given up after 5 s", async () => {
  let calls = 0;
  const { clock, reporter } = start((_, signal) => {
    calls += 1;
    if (calls === 1) return Promise.reject(new Error("ECONNREFUSED"));
    return new Promise((_resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason as Error));
    });
  });
  reporter.start();
  await clock.advance(2_000);
  expect(calls).toBe(2);
  await clock.advance(4_999);
  expect(calls).toBe(2);
  await clock.advance(1);
  expect(calls).toBe(3);
  const stopped = reporter.stop();
  await clock.advance(1_000);
  await stopped;
  expect(clock.pendingCount).toBe(0);
});
