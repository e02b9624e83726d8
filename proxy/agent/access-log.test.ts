import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLog } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import type { AccessEvent } from "../engine.ts";
import { AccessLog, createAccessFilter } from "./access-log.ts";

let folder = "";
let path = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "access-"));
  path = join(folder, "access.log");
});
afterEach(() => rmSync(folder, { recursive: true }));

const event = (change: Partial<AccessEvent> = {}): AccessEvent => ({
  listener: "public",
  kind: "http",
  method: "GET",
  path: "/",
  host: "shop.localhost",
  from: "edge",
  client: "192.0.2.1",
  cluster: "web.shop",
  endpoint: "shop-web-r1-abcde",
  release: 1,
  status: 200,
  durationMs: 1.23456,
  bytesIn: 0,
  bytesOut: 5,
  retries: 0,
  reason: "",
  requestId: "r1",
  ...change,
});
const failed = event({ status: 502, reason: "connect_failed" });
const refused = event({ status: 404, reason: "no_route" });

test.for([
  { policy: "off", kept: 0 },
  { policy: "errors", kept: 2 },
  { policy: "sampled", kept: 2 + 10 },
  { policy: "all", kept: 102 },
] as const)("of 100 good requests and 2 bad ones $policy keeps $kept", ({ policy, kept }) => {
  const wanted = createAccessFilter({ policy, oneIn: 10 });
  const events = [...Array.from({ length: 100 }, () => event()), failed, refused];
  expect(events.filter(wanted)).toHaveLength(kept);
});

test("lines are whole JSON, told from the program's own, written in pieces and at the latest at the end", async () => {
  const clock = new ManualClock();
  const log = new AccessLog({ policy: "all", oneIn: 1, path, clock, log: silentLog });
  log.record(event());
  expect(readFileSync(path, "utf8")).toBe("");
  log.record(failed);
  await log.close();
  const lines = readFileSync(path, "utf8").trimEnd().split("\n");
  expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
    { ...event(), kind: "access", type: "http", time: "2026-01-01T00:00:00.000Z", durationMs: 1.235 },
    { ...failed, kind: "access", type: "http", time: "2026-01-01T00:00:00.000Z", durationMs: 1.235 },
  ]);
  expect(clock.pendingCount).toBe(0);
});

test("what a slow disk cannot take is dropped and counted, not kept", async () => {
  const log = new AccessLog({
    policy: "all",
    oneIn: 1,
    path,
    clock: new ManualClock(),
    log: silentLog,
    heldLengthMax: 500,
  });
  for (let count = 0; count < 10; count++) log.record(event());
  expect(log.dropped).toBe(8);
  await log.close();
  expect(readFileSync(path, "utf8").trimEnd().split("\n")).toHaveLength(2);
});
