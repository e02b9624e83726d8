import * as fc from "fast-check";
import { expect, test } from "vitest";
import { seededRandom } from "../base/random.ts";
import { host, instance, NOW_MS, runSpec, SETTINGS, world } from "../test/fixtures/world.ts";
import { HostIndex, placeInstance } from "./scheduler.ts";
import type { HostState } from "./world.ts";

const GIB = 1024 ** 3;

const hosts = fc
  .array(
    fc.record({
      cpu: fc.integer({ min: 1, max: 8 }),
      memory: fc.integer({ min: 1, max: 16 }),
      draining: fc.boolean(),
      silent: fc.boolean(),
    }),
    { maxLength: 60 },
  )
  .map((all) =>
    all.map(({ cpu, memory, draining, silent }, index) =>
      host(`h${index}`, {
        capacity: { cpu, memoryBytes: memory * GIB },
        draining,
        lastSeenMs: silent ? NOW_MS - SETTINGS.silentMs - 1 : NOW_MS,
      }),
    ),
  );

const requests = fc.array(
  fc.record({
    service: fc.constantFrom("web", "api", "db"),
    cpu: fc.constantFrom(undefined, 0.1, 0.5, 2),
    memory: fc.constantFrom(undefined, 1, 3),
  }),
  { maxLength: 80 },
);

type Request = { service: string; cpu: number | undefined; memory: number | undefined };

function specOf({ service, cpu, memory }: Request) {
  return runSpec({
    service,
    resources: {
      ...(cpu === undefined ? {} : { cpu }),
      ...(memory === undefined ? {} : { memoryBytes: memory * GIB }),
    },
  });
}

/** Places one after the other; the host of each, or why not. */
function placeAll(all: readonly HostState[], wanted: readonly Request[], seed: number): string[] {
  const index = new HostIndex(world({ hosts: all }));
  const random = seededRandom(seed);
  return wanted.map((request) => {
    const spec = specOf(request);
    const placement = placeInstance(index, spec, random);
    if (placement.kind === "impossible") return `impossible: ${placement.reason}`;
    index.add({ hostId: placement.hostId, spec });
    return placement.hostId;
  });
}

test("never on a draining or silent host, never beyond what a host has", () => {
  fc.assert(
    fc.property(hosts, requests, fc.nat(), (all, wanted, seed) => {
      const placed = placeAll(all, wanted, seed);
      for (const one of all) {
        const here = wanted.filter((_, index) => placed[index] === one.id);
        if (one.draining || one.lastSeenMs < NOW_MS) expect(here).toEqual([]);
        const cpu = here.reduce((sum, request) => sum + (request.cpu ?? 0), 0);
        const memory = here.reduce((sum, request) => sum + (request.memory ?? 0), 0);
        expect(cpu).toBeLessThanOrEqual(one.capacity.cpu + 1e-6);
        expect(memory * GIB).toBeLessThanOrEqual(one.capacity.memoryBytes);
      }
    }),
  );
});

test("what fits somewhere is placed, however many hosts there are", () => {
  fc.assert(
    fc.property(hosts, requests, fc.nat(), (all, wanted, seed) => {
      const index = new HostIndex(world({ hosts: all }));
      const random = seededRandom(seed);
      for (const request of wanted) {
        const spec = specOf(request);
        const { cpu = 0, memoryBytes = 0 } = spec.resources;
        const fits = index.open.some((position) => index.fits(position, cpu, memoryBytes));
        const placement = placeInstance(index, spec, random);
        expect(placement.kind).toBe(fits ? "placed" : "impossible");
        if (placement.kind === "placed") index.add({ hostId: placement.hostId, spec });
      }
    }),
  );
});

test("the same seed places the same", () => {
  fc.assert(
    fc.property(hosts, requests, fc.nat(), (all, wanted, seed) => {
      expect(placeAll(all, wanted, seed)).toEqual(placeAll(all, wanted, seed));
    }),
  );
});

test("copies of a service spread over hosts before any host gets a second", () => {
  const all = ["a", "b", "c"].map((id) => host(id));
  const web = { service: "web", cpu: undefined, memory: undefined };
  expect(placeAll(all, [web, web, web], 7).toSorted()).toEqual(["a", "b", "c"]);
});

test("different services fill one host before they take the next", () => {
  const index = new HostIndex(
    world({
      hosts: ["a", "b", "c"].map((id) => host(id)),
      instances: [instance("api-1", { service: "api", hostId: "b", spec: { resources: { cpu: 1 } } })],
    }),
  );
  const spec = runSpec({ service: "web", resources: { cpu: 1 } });
  expect(placeInstance(index, spec, seededRandom(1))).toEqual({ kind: "placed", hostId: "b" });
});

test.for([
  { hosts: [], rules: {}, reason: "no host has joined" },
  { hosts: [host("a", { draining: true })], rules: {}, reason: "host a is draining" },
  {
    hosts: [host("a", { lastSeenMs: NOW_MS - 12_000 })],
    rules: {},
    reason: "host a has been silent for 12s",
  },
  { hosts: [host("a")], rules: {}, reason: "100 cpu and 0 B are asked for, host a has 4 cpu and 8 GiB left" },
  { hosts: [host("a")], rules: { onlyHost: "b" }, reason: "is on host b, which is not known now" },
  { hosts: [host("a", { draining: true })], rules: { onlyHost: "a" }, reason: "which is draining" },
])("says why nothing can be placed: $reason", ({ hosts, rules, reason }) => {
  const spec = runSpec({ resources: { cpu: 100 } });
  const placement = placeInstance(new HostIndex(world({ hosts })), spec, seededRandom(1), rules);
  expect(placement).toEqual({ kind: "impossible", reason: expect.stringContaining(reason) as string });
});

test("a refused host is passed over, and its reason given when there is no other", () => {
  const refusal = (id: string) => (id === "a" ? "the build failed on host a" : undefined);
  const place = (ids: string[]) =>
    placeInstance(new HostIndex(world({ hosts: ids.map((id) => host(id)) })), runSpec(), seededRandom(1), {
      refusal,
    });
  expect(place(["a", "b"])).toEqual({ kind: "placed", hostId: "b" });
  expect(place(["a"])).toEqual({ kind: "impossible", reason: "the build failed on host a" });
});
