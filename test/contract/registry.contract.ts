import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Listing, Lock, Registry } from "../../control/registry/registry.ts";

/** What an adapter brings so that it can be held to the promises of control/registry/registry.ts. */
export interface RegistryUnderTest {
  registry: Registry;
  /** Lets time pass for registrations: winds a manual clock, or waits where the store has its own. */
  advance(byMs: number): Promise<void>;
  /** What takes a lock from a leader who was paused for too long, however this store does it. */
  loseLock(lock: Lock): Promise<Registry>;
  /** The same state through a new connection, as after a restart of control. */
  reopen(): Promise<Registry>;
  cleanUp(): Promise<void>;
  /** A TTL the store allows, and how late it may notice that one ran out. */
  ttlMs: number;
  ttlSlackMs: number;
}

const quick = { timeoutMs: 50, signal: new AbortController().signal };
const patient = { timeoutMs: 10_000, signal: new AbortController().signal };

function keys(listing: Listing): string[] {
  return listing.entries.map(({ key }) => key);
}

export function describeRegistry(name: string, open: () => Promise<RegistryUnderTest>): void {
  describe(`registry: ${name}`, () => {
    let under: RegistryUnderTest;
    let registry: Registry;
    beforeEach(async () => {
      under = await open();
      ({ registry } = under);
    });
    afterEach(() => under.cleanUp());

    describe("entries", () => {
      test("what was written is read, after a restart too", async () => {
        const value = { text: 'ü \u0000 " \\', list: [1, null, true], deep: { a: { b: 0.1 } } };
        const result = await registry.write([{ kind: "set", key: "a/b", value }]);
        expect(result.ok).toBe(true);
        expect((await registry.get("a/b"))?.value).toEqual(value);
        registry = await under.reopen();
        expect((await registry.get("a/b"))?.value).toEqual(value);
      });

      test("a key never written is undefined", async () => {
        expect(await registry.get("a/b")).toBeUndefined();
      });

      test("a revision grows with every write of its key, also over a deletion", async () => {
        const seen: number[] = [];
        for (const value of [1, 2, 3]) {
          await registry.write([{ kind: "set", key: "a", value }]);
          seen.push((await registry.get("a"))?.revision ?? 0);
          if (value === 2) await registry.write([{ kind: "delete", key: "a" }]);
        }
        expect(seen[0]).toBeGreaterThanOrEqual(1);
        expect(seen).toEqual(seen.toSorted((a, b) => a - b));
        expect(new Set(seen).size).toBe(3);
      });

      test("a write says the revision its keys have now", async () => {
        const result = await registry.write([
          { kind: "set", key: "a", value: 1 },
          { kind: "set", key: "b", value: 2 },
        ]);
        const { entries } = await registry.list("");
        expect(entries.map(({ revision }) => ({ ok: true, revision }))).toEqual([result, result]);
      });

      test("a listing holds what is below its prefix, sorted, and nothing beside it", async () => {
        const names = ["a/2", "a/1", "a/1/x", "ab", "b/1"];
        await registry.write(names.map((key) => ({ kind: "set", key, value: key })));
        expect(keys(await registry.list("a/"))).toEqual(["a/1", "a/1/x", "a/2"]);
        expect(keys(await registry.list("a"))).toEqual(["a/1", "a/1/x", "a/2", "ab"]);
        expect(keys(await registry.list(""))).toEqual(names.toSorted());
        expect((await registry.list("c/")).entries).toEqual([]);
      });
    });

    describe("check-and-set", () => {
      test("revision 0 only creates", async () => {
        const create = { kind: "set", key: "a", value: 1, ifRevision: 0 } as const;
        expect((await registry.write([create])).ok).toBe(true);
        expect(await registry.write([{ ...create, value: 2 }])).toEqual({ ok: false, key: "a" });
        expect((await registry.get("a"))?.value).toBe(1);
      });

      test("a number only replaces or deletes that revision", async () => {
        await registry.write([{ kind: "set", key: "a", value: 1 }]);
        const ifRevision = (await registry.get("a"))?.revision ?? -1;
        expect((await registry.write([{ kind: "set", key: "a", value: 2, ifRevision }])).ok).toBe(true);
        expect((await registry.write([{ kind: "set", key: "a", value: 3, ifRevision }])).ok).toBe(false);
        expect((await registry.write([{ kind: "delete", key: "a", ifRevision }])).ok).toBe(false);
        expect((await registry.get("a"))?.value).toBe(2);
      });

      test("one that does not match leaves the whole transaction unwritten and is named", async () => {
        await registry.write([{ kind: "set", key: "b", value: "old" }]);
        const before = (await registry.list("")).entries;
        const result = await registry.write([
          { kind: "set", key: "a", value: 1, ifRevision: 0 },
          { kind: "set", key: "b", value: "new", ifRevision: 0 },
          { kind: "delete", key: "c" },
        ]);
        expect(result).toEqual({ ok: false, key: "b" });
        expect((await registry.list("")).entries).toEqual(before);
      });

      test("of many who create the same key at once, one wins", async () => {
        const results = await Promise.all(
          Array.from({ length: 8 }, (_, value) =>
            registry.write([{ kind: "set", key: "leader", value, ifRevision: 0 }]),
          ),
        );
        const winners = results.flatMap(({ ok }, value) => (ok ? [value] : []));
        expect(winners).toHaveLength(1);
        expect((await registry.get("leader"))?.value).toBe(winners[0]);
      });
    });

    describe("limits", () => {
      test.for(["", "/a", "a/", "a//b", "A", "a b", "ä", "a:b", "x".repeat(251)])(
        "the key %j is refused",
        async (key) => {
          await expect(registry.write([{ kind: "set", key, value: 1 }])).rejects.toMatchObject({
            code: "bad_key",
          });
        },
      );

      test("the longest key and the largest value are held, one byte more is not", async () => {
        const key = `${"k/".repeat(120)}${"x".repeat(10)}`;
        const value = "v".repeat(512_000 - 2); // JSON adds two quotation marks.
        expect(key).toHaveLength(250);
        expect((await registry.write([{ kind: "set", key, value }])).ok).toBe(true);
        expect((await registry.get(key))?.value).toBe(value);
        await expect(registry.write([{ kind: "set", key, value: `${value}v` }])).rejects.toMatchObject({
          code: "value_too_large",
        });
      });

      test("63 writes are one transaction, 64 are refused whole", async () => {
        const writes = Array.from({ length: 64 }, (_, at) => ({
          kind: "set" as const,
          key: `many/${at}`,
          value: at,
        }));
        await expect(registry.write(writes)).rejects.toMatchObject({ code: "too_many_writes" });
        expect((await registry.list("many/")).entries).toEqual([]);
        expect((await registry.write(writes.slice(1))).ok).toBe(true);
        expect((await registry.list("many/")).entries).toHaveLength(63);
      });

      test("a key named twice in one transaction is refused", async () => {
        const write = { kind: "set", key: "a", value: 1 } as const;
        await expect(registry.write([write, write])).rejects.toMatchObject({ code: "bad_key" });
      });
    });

    describe("watch", () => {
      test("a change after the listing is heard", async () => {
        const { revision } = await registry.list("w/");
        const heard = registry.watch("w/", revision, patient);
        await registry.write([{ kind: "set", key: "w/a", value: 1 }]);
        expect(keys(await heard)).toEqual(["w/a"]);
      });

      test("a change between the listing and the watch is heard at once", async () => {
        const { revision } = await registry.list("w/");
        await registry.write([{ kind: "set", key: "w/a", value: 1 }]);
        expect(keys(await registry.watch("w/", revision, patient))).toEqual(["w/a"]);
      });

      test("a deletion is heard, while watching and in between", async () => {
        await registry.write([
          { kind: "set", key: "w/a", value: 1 },
          { kind: "set", key: "w/b", value: 1 },
        ]);
        const { revision } = await registry.list("w/");
        const heard = registry.watch("w/", revision, patient);
        await registry.write([{ kind: "delete", key: "w/a" }]);
        expect(keys(await heard)).toEqual(["w/b"]);
        expect(keys(await registry.watch("w/", revision, patient))).toEqual(["w/b"]);
      });

      test("without a change it answers after the timeout with the same content", async () => {
        await registry.write([{ kind: "set", key: "w/a", value: 1 }]);
        const listing = await registry.list("w/");
        const waiting = registry.watch("w/", listing.revision, quick);
        await under.advance(50);
        expect(await waiting).toEqual(listing);
      });

      test("following watch after watch, the last state arrives whatever was missed", async () => {
        let { revision } = await registry.list("w/");
        let last: unknown;
        const following = (async () => {
          while (last !== 20) {
            const listing = await registry.watch("w/", revision, patient);
            ({ revision } = listing);
            last = listing.entries.find(({ key }) => key === "w/a")?.value;
          }
        })();
        for (let value = 1; value <= 20; value++) {
          await registry.write([{ kind: "set", key: "w/a", value }]);
        }
        await following;
        expect(last).toBe(20);
      });

      test("an aborted watch rejects with its reason", async () => {
        const stop = new AbortController();
        const { revision } = await registry.list("w/");
        const waiting = registry.watch("w/", revision, { timeoutMs: 10_000, signal: stop.signal });
        stop.abort(new Error("enough"));
        await expect(waiting).rejects.toThrow("enough");
      });

      test("a revision from another history answers at once", async () => {
        await registry.write([{ kind: "set", key: "w/a", value: 1 }]);
        expect(keys(await registry.watch("w/", 1e9, patient))).toEqual(["w/a"]);
      });
    });

    describe("registrations", () => {
      const host = { kind: "host", id: "h1", value: { cpu: 2 } } as const;

      test("one is listed under its kind until it expires, and is then gone", async () => {
        await registry.register(host, under.ttlMs);
        await registry.register({ kind: "proxy", id: "h1", value: null }, under.ttlMs);
        expect(await registry.registrations("host")).toEqual([host]);
        expect(await registry.registrations("control")).toEqual([]);
        await under.advance(under.ttlMs + under.ttlSlackMs);
        expect(await registry.registrations("host")).toEqual([]);
      });

      test("registering again replaces the value and starts the time anew", async () => {
        await registry.register(host, under.ttlMs);
        await under.advance(under.ttlMs * 0.7);
        await registry.register({ ...host, value: { cpu: 4 } }, under.ttlMs);
        await under.advance(under.ttlMs * 0.7);
        expect(await registry.registrations("host")).toEqual([{ ...host, value: { cpu: 4 } }]);
      });

      test("a restart of control forgets none that is alive", async () => {
        await registry.register(host, under.ttlMs);
        registry = await under.reopen();
        expect(await registry.registrations("host")).toEqual([host]);
        await under.advance(under.ttlMs + under.ttlSlackMs);
        expect(await registry.registrations("host")).toEqual([]);
      });

      test("one deregistered is gone at once, and twice is no error", async () => {
        await registry.register(host, under.ttlMs);
        await registry.deregister("host", "h1");
        await registry.deregister("host", "h1");
        expect(await registry.registrations("host")).toEqual([]);
      });

      test("a value over 64 kB and an id with a slash are refused", async () => {
        await expect(
          registry.register({ ...host, value: "x".repeat(64_001) }, under.ttlMs),
        ).rejects.toMatchObject({ code: "value_too_large" });
        await expect(registry.register({ ...host, id: "a/b" }, under.ttlMs)).rejects.toMatchObject({
          code: "bad_key",
        });
      });
    });

    describe("locks", () => {
      const acquire = (value: unknown, above?: number) =>
        registry.acquireLock("leader", {
          value,
          ttlMs: under.ttlMs,
          signal: patient.signal,
          ...(above === undefined ? {} : { above }),
        });
      const write = (value: unknown) => [{ kind: "set", key: "led", value }] as const;

      test("one holds it, the next gets it when it is released, with a greater token", async () => {
        expect(await registry.lockHolder("leader")).toBeUndefined();
        const first = await acquire({ url: "http://a" });
        expect(await registry.lockHolder("leader")).toEqual({
          token: first.fence.token,
          value: { url: "http://a" },
        });
        let got = false;
        const second = acquire({ url: "http://b" }).then((lock) => {
          got = true;
          return lock;
        });
        await registry.write([{ kind: "set", key: "between", value: 1 }]);
        expect(got).toBe(false);
        await first.release();
        await first.release();
        expect(first.lost.aborted).toBe(true);
        const { fence, release } = await second;
        expect(fence.token).toBeGreaterThan(first.fence.token);
        expect((await registry.lockHolder("leader"))?.value).toEqual({ url: "http://b" });
        await release();
        expect(await registry.lockHolder("leader")).toBeUndefined();
      });

      test("two locks do not wait for each other", async () => {
        const leader = await acquire(1);
        const other = await registry.acquireLock("other", { ...patient, value: 2, ttlMs: under.ttlMs });
        await Promise.all([leader.release(), other.release()]);
      });

      test("an aborted wait rejects with its reason and takes nothing", async () => {
        const lock = await acquire(1);
        const stop = new AbortController();
        const waiting = registry.acquireLock("leader", {
          value: 2,
          ttlMs: under.ttlMs,
          signal: stop.signal,
        });
        stop.abort(new Error("enough"));
        await expect(waiting).rejects.toThrow("enough");
        await lock.release();
        await (await acquire(3)).release();
      });

      test("a leader's writes are written, all or nothing as ever", async () => {
        const { fence, release } = await acquire(1);
        expect((await registry.write(write("a"), fence)).ok).toBe(true);
        const stale = { kind: "set", key: "led", value: "b", ifRevision: 0 } as const;
        expect(await registry.write([stale], fence)).toEqual({ ok: false, key: "led" });
        const many = Array.from({ length: 63 }, (_, at) => ({
          kind: "set" as const,
          key: `many/${at}`,
          value: at,
        }));
        expect((await registry.write(many, fence)).ok).toBe(true);
        await release();
      });

      test("a paused leader's writes are refused whole, before and after somebody else leads", async () => {
        const old = await acquire("old");
        await registry.write(write("by the old one"), old.fence);
        registry = await under.loseLock(old);
        const late = [...write("too late"), { kind: "set", key: "other", value: 1 } as const];
        await expect(registry.write(late, old.fence)).rejects.toMatchObject({ code: "fenced" });
        const fresh = await acquire("new");
        expect(fresh.fence.token).toBeGreaterThan(old.fence.token);
        await expect(registry.write(late, old.fence)).rejects.toMatchObject({ code: "fenced" });
        expect((await registry.get("led"))?.value).toBe("by the old one");
        expect(await registry.get("other")).toBeUndefined();
        expect((await registry.write(write("by the new one"), fresh.fence)).ok).toBe(true);
        await fresh.release();
        await expect(registry.write(late, fresh.fence)).rejects.toMatchObject({ code: "fenced" });
      });

      test("a leader that lost its lock is told", async () => {
        const { lost } = await (async () => {
          const lock = await acquire(1);
          registry = await under.loseLock(lock);
          return lock;
        })();
        if (!lost.aborted) {
          await new Promise((resolve) => lost.addEventListener("abort", resolve, { once: true }));
        }
        expect(lost.aborted).toBe(true);
      });

      test("a token is above what the caller knows of", async () => {
        const { fence, release } = await acquire(1, 1_000);
        expect(fence.token).toBeGreaterThan(1_000);
        await release();
        const next = await acquire(1, 5);
        expect(next.fence.token).toBeGreaterThan(fence.token);
        await next.release();
      });
    });

    test("once closed, it says so instead of answering empty", async () => {
      await registry.write([{ kind: "set", key: "a", value: 1 }]);
      await registry.close();
      await expect(registry.list("")).rejects.toMatchObject({ code: "registry_unavailable" });
      await expect(registry.registrations("host")).rejects.toMatchObject({ code: "registry_unavailable" });
      await expect(registry.write([])).rejects.toMatchObject({ code: "registry_unavailable" });
    });
  });
}
