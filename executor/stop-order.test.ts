import { expect, test } from "vitest";
import { stopOrder, type Stoppable } from "./stop-order.ts";

const instance = (service: string, dependencies: string[] = [], boot?: string): Stoppable => ({
  instanceId: service,
  spec: {
    formation: boot === undefined ? "shop" : "gilliam",
    service,
    dependencies: dependencies.map((name) => ({
      name,
      port: 1,
      protocol: "http",
      optional: false,
      url: "u",
    })),
  },
  boot,
});

test("whoever depends stops before whom it depends on; the platform last, control at the very end", () => {
  const waves = stopOrder([
    instance("control", [], "none"),
    instance("edge", [], "none"),
    instance("sidecar", [], "sidecar"),
    instance("console", [], "none"),
    instance("db"),
    instance("api", ["db"]),
    instance("web", ["api", "db"]),
    instance("worker", ["db.shop"]),
  ]);
  expect(waves).toEqual([
    ["web", "worker"],
    ["api"],
    ["db"],
    ["console"],
    ["edge"],
    ["sidecar"],
    ["control"],
  ]);
});

test("a cycle stops together instead of never", () => {
  expect(stopOrder([instance("a", ["b"]), instance("b", ["a"])])).toEqual([["a", "b"]]);
});
