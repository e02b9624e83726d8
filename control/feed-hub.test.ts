import { describe, expect, test } from "vitest";
import { ManualClock } from "../base/manual-clock.ts";
import { applyDelta } from "../model/mesh-delta.ts";
import type { FeedMessage, MeshConfig, ProxyReport } from "../model/mesh.ts";
import { formation, host, instance, release, world } from "../test/fixtures/world.ts";
import { FeedHub } from "./feed-hub.ts";
import type { InstanceRecord, World } from "./world.ts";

const EDGE = { id: "edge-1", kind: "edge" as const, hostId: "a" };
const SHOP = release(1, {
  web: { edge: [{ host: "shop.localhost", path: "/" }], dependencies: { api: 7001 } },
  api: {},
});

/** A hub, and proxies that apply what they are sent only when told to. */
class Bench {
  readonly clock = new ManualClock(1_000_000);
  hub = new FeedHub({ clock: this.clock });
  readonly sent: FeedMessage[] = [];
  config: MeshConfig | undefined;

  world(instances: readonly InstanceRecord[], more: Partial<World> = {}): World {
    const nowMs = this.clock.wallMs();
    return world({
      nowMs,
      formations: [formation({ web: { release: 1 }, api: { release: 1 } })],
      instances,
      hosts: [host("a", { lastSeenMs: nowMs })],
      ...more,
      releases: [SHOP],
    });
  }

  connect(epoch = this.config?.epoch ?? 0, proxy: typeof EDGE = EDGE): Disposable {
    return this.hub.connect({ ...proxy, epoch }, (message) => this.sent.push(message));
  }

  /** What was sent since the last call, in short. */
  take(): string[] {
    return this.sent.splice(0).map((message) => {
      this.#apply(message);
      if (message.kind === "alive") return "alive";
      if (message.kind === "config") return `config ${message.config.epoch}`;
      const { base, epoch, set, remove } = message.delta;
      const changed = [...set.clusters, ...set.edges, ...set.routes].length;
      const removed = [...remove.clusters, ...remove.edges, ...remove.routes].length;
      return `delta ${base}→${epoch} +${changed} -${removed}`;
    });
  }

  report(more: Partial<ProxyReport> = {}): void {
    const whole = {
      bootId: "boot-1",
      epoch: this.config?.epoch ?? 0,
      busy: {},
      ejected: {},
      traffic: [],
      metricsUrl: "",
    };
    this.hub.report(EDGE.id, { ...EDGE, ...whole, ...more }, this.clock.wallMs());
  }

  #apply(message: FeedMessage): void {
    if (message.kind === "config") this.config = message.config;
    if (message.kind === "delta") this.config = applyDelta(this.config!, message.delta);
  }
}

const web = (id: string) => instance(id, { phase: "ready" });
const api = (id: string) => instance(id, { phase: "ready", service: "api" });

describe("what is sent", () => {
  test("the whole first, then differences, and nothing when nothing that concerns it changed", () => {
    const bench = new Bench();
    bench.connect();
    expect(bench.take()).toEqual([]); // Nothing is known yet, which is not the same as an empty mesh.
    expect(bench.hub.update(bench.world([web("w1")]))).toBe(true);
    expect(bench.take()).toEqual(["config 1"]);
    bench.report();
    expect(bench.hub.update(bench.world([web("w1"), api("a1")]))).toBe(false); // The edge does not call api.
    expect(bench.take()).toEqual([]);
    expect(bench.hub.epoch).toBe(1);
    bench.hub.update(bench.world([web("w1"), web("w2")]));
    expect(bench.take()).toEqual(["delta 1→2 +1 -0"]);
    expect(bench.config?.clusters[0]?.endpoints.map(({ id }) => id)).toEqual(["w1", "w2"]);
  });

  test("changes that come while one is unanswered go together", () => {
    const bench = new Bench();
    bench.connect();
    for (const count of [1, 2, 3, 4]) {
      bench.hub.update(bench.world(Array.from({ length: count }, (_, index) => web(`w${index}`))));
    }
    expect(bench.take()).toEqual(["config 1"]);
    bench.report();
    expect(bench.take()).toEqual(["delta 1→4 +1 -0"]);
    bench.report();
    expect(bench.take()).toEqual([]);
  });

  test("a change that was taken back meanwhile is not sent at all", () => {
    const bench = new Bench();
    bench.connect();
    const [first, second] = [web("w1"), web("w2")];
    bench.hub.update(bench.world([first]));
    bench.hub.update(bench.world([first, second]));
    bench.hub.update(bench.world([first]));
    bench.take();
    bench.report();
    expect(bench.take()).toEqual([]);
    expect(bench.hub.proxies()[0]).toMatchObject({ epoch: 1, wantedEpoch: 1 });
  });

  test("alive only to those that heard nothing since the last beat", () => {
    const bench = new Bench();
    bench.connect();
    bench.hub.update(bench.world([web("w1")]));
    bench.hub.beat();
    expect(bench.take()).toEqual(["config 1"]);
    bench.hub.beat();
    expect(bench.take()).toEqual(["alive"]);
  });
});

describe("reconnecting", () => {
  const settled = () => {
    const bench = new Bench();
    const stream = bench.connect();
    bench.hub.update(bench.world([web("w1")]));
    bench.take();
    bench.report();
    return { bench, stream };
  };

  test("with the epoch it has: nothing, or only what changed meanwhile", () => {
    const { bench, stream } = settled();
    stream[Symbol.dispose]();
    bench.connect();
    expect(bench.take()).toEqual([]);
    bench.connect()[Symbol.dispose]();
    bench.hub.update(bench.world([web("w1"), web("w2")]));
    bench.connect();
    expect(bench.take()).toEqual(["delta 1→2 +1 -0"]);
  });

  test("what was under way when the stream broke counts only if it arrived", () => {
    const { bench, stream } = settled();
    bench.hub.update(bench.world([web("w1"), web("w2")]));
    stream[Symbol.dispose]();
    expect(bench.hub.proxies()[0]?.sentEndpoints?.has("w2")).toBe(true);
    bench.sent.length = 0; // Lost.
    bench.connect(1);
    expect(bench.take()).toEqual(["delta 1→2 +1 -0"]);
    bench.connect(2); // Arrived, though no report said so.
    expect(bench.take()).toEqual([]);
    expect(bench.hub.inTraffic("w2")).toBe(true);
  });

  test("an older stream that ends does not cut off the newer one", () => {
    const { bench, stream } = settled();
    bench.connect();
    stream[Symbol.dispose]();
    expect(bench.hub.proxies()[0]?.connected).toBe(true);
  });

  test("a number this control gave out is unknown all the same when another control gave it to the proxy", () => {
    const bench = new Bench();
    bench.hub.update(bench.world([web("w1")]));
    bench.connect(0, { ...EDGE, id: "edge-2" });
    expect(bench.take()).toEqual(["config 1"]);
    bench.connect(1);
    expect(bench.take()).toEqual(["config 2"]); // Higher than what it has.
  });

  test("after a restart of control a proxy keeps what it has until there is something to tell", () => {
    const { bench } = settled();
    const startedAtMs = bench.clock.wallMs();
    bench.hub = new FeedHub({ clock: bench.clock });
    bench.connect(57);
    const unheard = [host("a", { lastSeenMs: startedAtMs - 1 })];
    bench.hub.update(bench.world([web("w1")], { startedAtMs, hosts: unheard }));
    expect(bench.take()).toEqual([]);
    bench.hub.update(bench.world([web("w1")]));
    expect(bench.take()).toEqual(["config 58"]);
    expect(bench.hub.proxies()[0]?.acknowledgedEndpoints).toBeUndefined();
    bench.report({ epoch: 57 }); // Sent before it had applied the new one.
    expect(bench.take()).toEqual([]);
    bench.report({ epoch: 58 });
    expect(bench.hub.inTraffic("w1")).toBe(true);
    bench.report({ epoch: 57 }); // Overtaken on the way; nothing goes back.
    expect(bench.hub.proxies()[0]).toMatchObject({ epoch: 58 });
    expect(bench.take()).toEqual([]);
  });

  test("a proxy that restarts with an older epoch gets the whole", () => {
    const { bench } = settled();
    bench.hub.update(bench.world([web("w1"), web("w2")]));
    bench.take();
    bench.report();
    bench.connect(1);
    expect(bench.take()).toEqual(["config 2"]);
  });
});

describe("refusing", () => {
  test("a refused difference is sent as a whole, a refused whole again only after a change, and an alarm stays", () => {
    const bench = new Bench();
    bench.connect();
    bench.hub.update(bench.world([web("w1")]));
    bench.take();
    bench.report();
    bench.hub.update(bench.world([web("w1"), web("w2")]));
    expect(bench.take()).toEqual(["delta 1→2 +1 -0"]);
    const refused = { epoch: 2, reason: "port 0" };
    bench.report({ epoch: 1, refused });
    expect(bench.take()).toEqual(["config 3"]);
    bench.report({ epoch: 1, refused }); // An old one, on the way when the whole was sent.
    bench.report({ epoch: 1, refused: { ...refused, epoch: 3 } });
    expect(bench.take()).toEqual([]);
    expect(bench.hub.alarms()).toEqual(["edge-1 refused epoch 3 and serves the one before: port 0"]);
    expect(bench.hub.inTraffic("w1")).toBe(true);
    bench.hub.update(bench.world([web("w1")]));
    expect(bench.take()).toEqual(["config 4"]);
    bench.report({ epoch: 4, refused });
    expect(bench.hub.alarms()).toEqual([]);
  });

  test("a refused whole is tried again after half a minute", async () => {
    const bench = new Bench();
    bench.connect();
    bench.hub.update(bench.world([web("w1")]));
    bench.sent.length = 0;
    bench.report({ epoch: 0, refused: { epoch: 1, reason: "out of memory" } });
    await bench.clock.advance(29_999);
    bench.report({ epoch: 0 });
    expect(bench.sent).toEqual([]);
    await bench.clock.advance(1);
    bench.report({ epoch: 0 });
    expect(bench.take()).toEqual(["config 2"]);
  });
});

describe("acknowledgements", () => {
  test("in traffic when acknowledged, released when acknowledged without it and nothing is in flight", () => {
    const bench = new Bench();
    bench.connect();
    bench.hub.update(bench.world([web("w1")]));
    bench.take();
    expect(bench.hub.inTraffic("w1")).toBe(false);
    bench.report();
    expect(bench.hub.inTraffic("w1")).toBe(true);
    bench.hub.update(bench.world([]));
    bench.take();
    expect(bench.hub.released("w1")).toBe(false);
    bench.report({ busy: { w1: 3 } });
    expect(bench.hub.released("w1")).toBe(false);
    bench.report();
    expect(bench.hub.released("w1")).toBe(true);
  });

  test("a proxy known from before that has not called is waited for until it is gone", async () => {
    const bench = new Bench();
    bench.hub.expect(EDGE);
    bench.hub.update(bench.world([]));
    expect(bench.hub.released("w1")).toBe(false);
    await bench.clock.advance(15_000);
    expect(bench.hub.released("w1")).toBe(true);
  });

  test("proxies of one scope share one configuration", () => {
    const bench = new Bench();
    bench.connect();
    bench.connect(0, { ...EDGE, id: "edge-2" });
    bench.hub.update(bench.world([web("w1")]));
    const [first, second] = bench.sent;
    expect(first).toEqual(second);
    expect(first?.kind === "config" && second?.kind === "config" && first.config === second.config).toBe(
      true,
    );
  });
});
