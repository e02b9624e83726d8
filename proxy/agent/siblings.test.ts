import { expect, test } from "vitest";
import type { EdgeTraffic } from "../../model/mesh.ts";
import { mergeSiblings, sumTraffic, trafficSince } from "./siblings.ts";

const edge = (to: string, requests: number): EdgeTraffic => ({
  from: "edge",
  to,
  release: 1,
  requests,
  failures: 0,
  retries: 0,
  durationMsSum: requests * 2,
});
const alone = { epoch: 5, busy: { a: 1 }, ejected: { x: "status 500" }, traffic: [edge("web.shop", 3)] };

test("alone it reports itself", () => {
  expect(mergeSiblings(alone, [])).toBe(alone);
});

test("an epoch is in force when it is in force in every worker, and what any has in flight is in flight", () => {
  const siblings = [
    { epoch: 4, busy: { a: 2, b: 1 }, ejected: { y: "refused" }, traffic: [edge("web.shop", 4)] },
    { epoch: 6, busy: {}, ejected: { x: "timeout" }, traffic: [edge("api.shop", 1)] },
  ];
  expect(mergeSiblings(alone, siblings)).toEqual({
    epoch: 4,
    busy: { a: 3, b: 1 },
    ejected: { x: "status 500", y: "refused" },
    traffic: [edge("web.shop", 7), edge("api.shop", 1)],
  });
});

test("what an earlier leader has reported is not reported again", () => {
  const before = [edge("web.shop", 10)];
  const now = sumTraffic([before, [edge("web.shop", 2), edge("api.shop", 1)]]);
  expect(trafficSince(now, before)).toEqual([edge("web.shop", 2), edge("api.shop", 1)]);
  expect(trafficSince([], before)).toEqual([edge("web.shop", 0)]);
});
