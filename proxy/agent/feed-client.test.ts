import { expect, test, vi } from "vitest";
import { silentLog } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import { Cluster, type FeedMessage, type MeshConfig } from "../../model/mesh.ts";
import { FeedClient, type FeedTransport, emptiedByAmnesia } from "./feed-client.ts";

/** A feed whose streams the test writes by hand. */
class FakeFeed implements FeedTransport {
  readonly asked: number[] = [];
  refuse = false;
  #lines: string[] = [];
  #wake = Promise.withResolvers<void>();
  #ended = false;

  open(epoch: number, signal: AbortSignal): Promise<AsyncGenerator<string>> {
    this.asked.push(epoch);
    if (this.refuse) return Promise.reject(new Error("connect ECONNREFUSED"));
    this.#ended = false;
    return Promise.resolve(this.#stream(signal));
  }

  async *#stream(signal: AbortSignal): AsyncGenerator<string> {
    signal.addEventListener("abort", () => this.#wake.resolve());
    while (true) {
      for (let line = this.#lines.shift(); line !== undefined; line = this.#lines.shift()) yield line;
      if (this.#ended) return;
      await this.#wake.promise;
      signal.throwIfAborted();
      this.#wake = Promise.withResolvers();
    }
  }

  send(...messages: (FeedMessage | string)[]): void {
    this.#lines.push(...messages.map((one) => (typeof one === "string" ? one : JSON.stringify(one))));
    this.#wake.resolve();
  }

  end(): void {
    this.#ended = true;
    this.#wake.resolve();
  }
}

const config = (epoch: number, ...names: string[]): MeshConfig => ({
  epoch,
  clusters: names.map((name) => Cluster.parse({ name, protocol: "http", endpoints: [] })),
  edges: [],
  routes: [],
});
const whole = (epoch: number, ...names: string[]): FeedMessage => ({
  kind: "config",
  config: config(epoch, ...names),
});
const nothing = { clusters: [], edges: [], routes: [] };
const delta = (base: number, epoch: number, ...names: string[]): FeedMessage => ({
  kind: "delta",
  delta: { base, epoch, set: { ...nothing, clusters: config(0, ...names).clusters }, remove: nothing },
});

function follow(current?: MeshConfig) {
  const feed = new FakeFeed();
  const clock = new ManualClock();
  const applied: MeshConfig[] = [];
  const onEpoch = vi.fn();
  let refusal: string | undefined;
  const client = new FeedClient(
    {
      transport: feed,
      apply: (next) => {
        if (refusal !== undefined) return { ok: false, reason: refusal };
        applied.push(next);
        return { ok: true };
      },
      onEpoch,
      clock,
      random: () => 0.5,
      log: silentLog,
    },
    current,
  );
  client.start();
  return { applied, client, clock, feed, onEpoch, refuseWith: (reason?: string) => (refusal = reason) };
}

test("a whole configuration and the deltas on top of it are put in force", async () => {
  const { applied, client, clock, feed, onEpoch } = follow();
  feed.send(whole(3, "a"), { kind: "alive" }, delta(3, 4, "b"));
  await clock.advance(0);
  expect(feed.asked).toEqual([0]);
  expect(applied).toEqual([config(3, "a"), config(4, "a", "b")]);
  expect(onEpoch).toHaveBeenCalledTimes(2);
  expect(client.state).toMatchObject({ connected: true, refused: undefined, reconnects: 0 });
  await client.stop();
  expect(clock.pendingCount).toBe(0);
});

test("after a restart it asks from the epoch it has, and takes deltas for that", async () => {
  const { applied, client, clock, feed } = follow(config(7, "a"));
  feed.send(delta(7, 9, "b"));
  await clock.advance(0);
  expect(feed.asked).toEqual([7]);
  expect(applied).toEqual([config(9, "a", "b")]);
  await client.stop();
});

test("a delta for another base is not applied; it asks for all of it", async () => {
  const { applied, client, clock, feed } = follow(config(7, "a"));
  feed.send(delta(5, 9, "b"));
  await clock.advance(0);
  expect(applied).toEqual([]);
  await clock.advance(250);
  expect(feed.asked).toEqual([7, 0]);
  feed.send(whole(9, "c"));
  await clock.advance(0);
  expect(applied).toEqual([config(9, "c")]);
  feed.end();
  await clock.advance(250);
  expect(feed.asked).toEqual([7, 0, 9]);
  await client.stop();
});

test("a refused epoch is told with its reason, the one in force stays, a later one clears it", async () => {
  const { applied, client, clock, feed, onEpoch, refuseWith } = follow(config(7, "a"));
  refuseWith("cluster b is there twice");
  feed.send(whole(8, "b"));
  await clock.advance(0);
  expect(client.state.refused).toEqual({ epoch: 8, reason: "cluster b is there twice" });
  expect(onEpoch).toHaveBeenCalledTimes(1);
  refuseWith();
  feed.send(whole(9, "c"));
  await clock.advance(0);
  expect(applied).toEqual([config(9, "c")]);
  expect(client.state.refused).toBeUndefined();
  await client.stop();
});

test.for([
  { what: "not JSON", line: "<html>" },
  { what: "of an unknown kind", line: '{"kind":"gossip"}' },
  { what: "of a wrong shape", line: '{"kind":"config","config":{"epoch":-1}}' },
])("a line that is $what ends the stream and changes nothing", async ({ line }) => {
  const { applied, client, clock, feed } = follow(config(7, "a"));
  feed.send(line);
  await clock.advance(300);
  expect(applied).toEqual([]);
  expect(feed.asked).toEqual([7, 7]);
  await client.stop();
});

test("a control that says nothing for 15 s is left and asked again, and not before", async () => {
  const { client, clock, feed } = follow();
  feed.send({ kind: "alive" });
  await clock.advance(14_999);
  expect(client.state.connected).toBe(true);
  expect(feed.asked).toHaveLength(1);
  await clock.advance(1);
  expect(client.state.connected).toBe(false);
  await clock.advance(5_000);
  expect(feed.asked).toHaveLength(2);
  await client.stop();
});

test("while control is away it waits longer and longer, at most 5 s, and starts over once it is back", async () => {
  const { client, clock, feed } = follow();
  feed.refuse = true;
  feed.end();
  await clock.advance(60_000);
  const tries = feed.asked.length;
  expect(tries).toBeGreaterThan(24); // 0.5 × 5 s each, after the first few.
  expect(tries).toBeLessThan(32);
  feed.refuse = false;
  feed.send({ kind: "alive" });
  await clock.advance(2_500);
  expect(client.state.connected).toBe(true);
  feed.end();
  await clock.advance(125);
  expect(feed.asked).toHaveLength(tries + 2);
  await client.stop();
});

test.for([
  { have: config(57, "a"), next: config(1), forgot: true },
  { have: config(57, "a"), next: config(58), forgot: false }, // The last formation was taken away.
  { have: config(57, "a"), next: config(1, "b"), forgot: false }, // Another registry, but one that knows something.
  { have: config(57), next: config(1), forgot: false },
  { have: undefined, next: config(1), forgot: false },
])(
  "epoch $next.epoch with $next.clusters.length clusters over $have.epoch is amnesia: $forgot",
  ({ have, next, forgot }) => {
    expect(emptiedByAmnesia(have, next) !== undefined).toBe(forgot);
  },
);
