import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { ConsulRegistry } from "../../control/registry/consul.ts";
import { ConsulCluster } from "../tools/consul.ts";
import { newPlace, type Place } from "./consul-harness.ts";

/** What a real Consul does when it is in trouble, and what control makes of it. FAULTS rows 9, 10, 12, 13, 14, 18. */
let cluster: ConsulCluster;
let place: Place;
let registry: ConsulRegistry;
const news: string[] = [];

const set = (key: string, value: unknown) => [{ kind: "set", key, value }] as const;

async function within(timeoutMs: number, condition: () => Promise<boolean> | boolean): Promise<void> {
  const untilMs = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > untilMs) throw new Error(`it did not come true within ${timeoutMs} ms`);
    await sleep(50);
  }
}

function describeOn(servers: 1 | 3, title: string, body: () => void): void {
  describe(title, () => {
    beforeAll(async () => {
      cluster = await ConsulCluster.start({ servers, acl: true });
    }, 60_000);
    afterAll(() => cluster.stop());
    beforeEach(async () => {
      news.length = 0;
      place = await newPlace(cluster);
      registry = await place.open({ onNews: (text) => news.push(text) });
      await registry.write(set("kept", 1));
    });
    afterEach(() => registry.close());
    body();
  });
}

describeOn(3, "three servers", () => {
  test("the leader killed: writes resume within 15 s, and a lock is not lost by it", async () => {
    const leader = await cluster.leader();
    const other = cluster.running.find((server) => server !== leader)!;
    await registry.close();
    registry = await place.open({ server: other });
    const lock = await registry.acquireLock("leader", {
      value: 1,
      ttlMs: 20_000,
      signal: AbortSignal.timeout(20_000),
    });
    const killedMs = performance.now();
    await leader.kill();
    let reason = "";
    await within(15_000, () =>
      registry.write(set("after", 2), lock.fence).then(
        ({ ok }) => ok,
        (error: Error) => {
          reason = error.message;
          return false;
        },
      ),
    );
    expect(performance.now() - killedMs).toBeLessThan(15_000);
    if (reason !== "") expect(reason).toMatch(/Consul at .* (has no leader|refused|does not answer)/);
    expect(lock.lost.aborted).toBe(false);
    expect((await registry.get("kept"))?.value).toBe(1);
    await lock.release();
    cluster.start(leader);
    await cluster.ready();
  }, 60_000);

  test("no majority: writes are refused with the reason, watches keep what is known, and it recovers by itself", async () => {
    const { revision, entries } = await registry.list("");
    const [first, second, third] = cluster.servers;
    await second!.kill();
    await third!.kill();
    await expect(registry.write(set("kept", 2))).rejects.toMatchObject({ code: "registry_unavailable" });
    const still = await registry.watch("", revision, { timeoutMs: 500, signal: AbortSignal.timeout(20_000) });
    expect(still.entries).toEqual(entries);
    await within(15_000, () => registry.trouble?.includes("raft list-peers") === true);
    expect(first!.runs).toBe(true);
    cluster.start(second!);
    cluster.start(third!);
    await cluster.ready();
    await within(15_000, () =>
      registry.write(set("kept", 3)).then(
        ({ ok }) => ok,
        () => false,
      ),
    );
    await within(15_000, () => registry.trouble === undefined);
  }, 90_000);
});

describeOn(1, "a single server", () => {
  test("all servers dead: the last listing stands, writes say why, and nothing storms", async () => {
    const { revision, entries } = await registry.list("");
    await cluster.first.kill();
    const [client] = place.clients;
    const before = client!.calls;
    const still = await registry.watch("", revision, {
      timeoutMs: 4_000,
      signal: AbortSignal.timeout(20_000),
    });
    expect(still).toEqual({ entries, revision });
    // 250 ms, 500 ms, 1 s … with jitter, and a probe every 5 s.
    expect(client!.calls - before).toBeLessThanOrEqual(10);
    await expect(registry.write(set("kept", 2))).rejects.toThrow(/cannot be reached: ECONNREFUSED/);
    await expect(registry.list("")).rejects.toMatchObject({ code: "registry_unavailable" });
    await expect(registry.registrations("host")).rejects.toMatchObject({ code: "registry_unavailable" });
    cluster.start(cluster.first);
    await cluster.ready();
    expect((await registry.list("")).entries).toEqual(entries);
  }, 60_000);

  test("frozen: calls end by their own clock, few are sent, and it goes on when it thaws", async () => {
    const { revision } = await registry.list("");
    const [client] = place.clients;
    const watching = registry.watch("", revision, { timeoutMs: 60_000, signal: AbortSignal.timeout(30_000) });
    await sleep(200);
    cluster.first.signal("SIGSTOP");
    const before = client!.calls;
    const frozenMs = performance.now();
    await expect(registry.list("")).rejects.toThrow(/does not answer: nothing came within 10 s/);
    expect(performance.now() - frozenMs).toBeLessThan(14_000);
    expect(client!.calls - before).toBeLessThanOrEqual(4); // The question and the probes, one at a time.
    expect(registry.trouble).toContain("does not answer");
    cluster.first.signal("SIGCONT");
    await within(10_000, () =>
      registry.write(set("thawed", 1)).then(
        ({ ok }) => ok,
        () => false,
      ),
    );
    expect((await watching).entries.map(({ key }) => key)).toContain("thawed");
  }, 60_000);

  test("a token that loses its rights never makes entries or registrations vanish", async () => {
    await registry.register({ kind: "host", id: "h1", value: 1 }, 30_000);
    const { revision, entries } = await registry.list("");
    const rules = `key_prefix "${place.prefix}/" { policy = "deny" }`;
    await place.token.setRules(rules);
    await expect(registry.list("")).rejects.toMatchObject({ code: "registry_unavailable" });
    await expect(registry.registrations("host")).rejects.toMatchObject({ code: "registry_unavailable" });
    await expect(registry.get("kept")).rejects.toMatchObject({ code: "registry_unavailable" });
    await expect(registry.write(set("kept", 2))).rejects.toThrow(/does not accept the token/);
    const still = await registry.watch("", revision, { timeoutMs: 500, signal: AbortSignal.timeout(20_000) });
    expect(still.entries).toEqual(entries);
    await place.token.revoke();
    await expect(registry.list("")).rejects.toThrow(/403 ACL not found/);
    expect(registry.trouble).toContain("gilliam consul policy");
  });

  test("a registry that is new and empty is told from one that may not be read", async () => {
    const other = await newPlace(cluster);
    await other.token.setRules(`key_prefix "elsewhere/" { policy = "write" }`);
    await expect(other.open()).rejects.toMatchObject({ code: "registry_unavailable", trouble: "forbidden" });
  });

  test("wiped: what was known is written again under revisions that go on, and locks are taken anew", async () => {
    await registry.write([
      { kind: "set", key: "long", value: "x".repeat(500_000) },
      { kind: "set", key: "longer", value: "y".repeat(500_000) },
    ]);
    const before = await registry.list("");
    const lock = await registry.acquireLock("leader", {
      value: 1,
      ttlMs: 1_000,
      signal: AbortSignal.timeout(20_000),
    });
    await cluster.first.kill();
    cluster.first.wipe();
    cluster.start(cluster.first);
    await cluster.ready();
    const token = await cluster.token(
      `key_prefix "" { policy = "write" } session_prefix "" { policy = "write" }`,
    );
    place.token.secret = token.secret;
    const after = await registry.list("");
    expect(after.entries.map(({ key, value }) => [key, value])).toEqual(
      before.entries.map(({ key, value }) => [key, value]),
    );
    expect(after.revision).toBeGreaterThan(before.revision);
    expect(news.join()).toContain("3 entries are written again");
    const stale = before.entries.find(({ key }) => key === "kept")!.revision;
    expect(await registry.write([{ kind: "set", key: "kept", value: 2, ifRevision: stale }])).toEqual({
      ok: false,
      key: "kept",
    });
    const fresh = after.entries.find(({ key }) => key === "kept")!.revision;
    expect((await registry.write([{ kind: "set", key: "kept", value: 2, ifRevision: fresh }])).ok).toBe(true);
    await expect(registry.write(set("kept", 3), lock.fence)).rejects.toMatchObject({ code: "fenced" });
    await within(5_000, () => lock.lost.aborted);
    const next = await registry.acquireLock("leader", {
      value: 2,
      ttlMs: 1_000,
      above: lock.fence.token,
      signal: AbortSignal.timeout(20_000),
    });
    expect(next.fence.token).toBeGreaterThan(lock.fence.token);
    await next.release();
  }, 60_000);

  test("a holder that cannot reach Consul knows within its TTL that it may have lost the lock", async () => {
    const lock = await registry.acquireLock("leader", {
      value: 1,
      ttlMs: 1_000,
      signal: AbortSignal.timeout(20_000),
    });
    cluster.first.signal("SIGSTOP");
    const frozenMs = performance.now();
    await within(5_000, () => lock.lost.aborted);
    expect(performance.now() - frozenMs).toBeLessThan(3_000);
    expect(String(lock.lost.reason)).toContain("could not be renewed");
    cluster.first.signal("SIGCONT");
  }, 30_000);
});
