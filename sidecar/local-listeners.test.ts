import { expect, test, vi } from "vitest";
import type { Edge } from "../model/mesh.ts";
import type { LocalPlan } from "../proxy/agent/messages.ts";
import type { Engine, ListenerSpec } from "../proxy/engine.ts";
import { LocalListeners } from "./local-listeners.ts";

const plan: LocalPlan = {
  kind: "local",
  id: "shop-web-r1-abcde/api/4",
  instanceId: "shop-web-r1-abcde",
  from: "web.shop",
  dependency: "api",
  cluster: "api.shop",
  protocol: "http",
};
const edge = (cluster: string): Edge => ({
  id: "web.shop/api",
  from: "web.shop",
  dependency: "api",
  port: 7001,
  protocol: "http",
  cluster,
});

/** An engine that only remembers what it listens on. */
function paperEngine() {
  const open: ListenerSpec[] = [];
  const engine: Pick<Engine, "listen"> = {
    listen: (spec) => {
      open.push(spec);
      const close = () => Promise.resolve(void open.splice(open.indexOf(spec), 1));
      const resume = (): Promise<void> => Promise.resolve();
      const address = { host: "127.0.0.1", port: 7001 };
      return Promise.resolve({ address, close, leave: () => undefined, paused: false, resume });
    },
  };
  const again = vi.fn();
  return { again, listeners: new LocalListeners(engine, again), open };
}

const clusters = (open: readonly ListenerSpec[]) =>
  open.map((spec) => (spec.kind === "local" ? spec.cluster : ""));

test("before its edge is told, a listener leads where the dependency's name says", async () => {
  const { again, listeners, open } = paperEngine();
  await listeners.listen(plan, "handle");
  expect(clusters(open)).toEqual(["api.shop"]);
  expect(listeners.view()).toMatchObject([{ cluster: "api.shop", declared: false }]);
  listeners.follow({ edges: [edge("api.shop")] });
  expect(again).not.toHaveBeenCalled();
  expect(listeners.view()).toMatchObject([{ declared: true }]);
});

test("an edge that leads elsewhere moves the listener, without a moment in which nobody listens", async () => {
  const { again, listeners, open } = paperEngine();
  listeners.follow({ edges: [edge("api.shop")] });
  await listeners.listen(plan, "handle");
  listeners.follow({ edges: [edge("egress.api.shop")] });
  expect(again).toHaveBeenCalledWith(plan.id);
  expect(open).toHaveLength(1);
  await listeners.listen(plan, "same handle once more");
  expect(clusters(open)).toEqual(["egress.api.shop"]);
});

test("a closed listener is gone, and is not asked for again", async () => {
  const { again, listeners, open } = paperEngine();
  await listeners.listen(plan, "handle");
  expect(listeners.unlisten(plan.id)).toBe(true);
  expect(listeners.unlisten(plan.id)).toBe(false);
  listeners.follow({ edges: [edge("elsewhere")] });
  expect(open).toEqual([]);
  expect(again).not.toHaveBeenCalled();
});
