import * as fc from "fast-check";
import { expect, test } from "vitest";
import { applyDelta, deltaBetween } from "./mesh-delta.ts";
import { Cluster, type MeshConfig } from "./mesh.ts";

const names = fc.uniqueArray(fc.constantFrom("a", "b", "c", "d", "e"));

/** Few names and values, so that two drawn at random share items, equal and changed. */
const configs = (epoch: number): fc.Arbitrary<MeshConfig> =>
  fc
    .record({
      clusters: names,
      edges: names,
      routes: names,
      release: fc.nat(2),
      port: fc.integer({ min: 1, max: 3 }),
    })
    .map(({ clusters, edges, routes, release, port }) => ({
      epoch,
      clusters: clusters.map((name, index) =>
        Cluster.parse({
          name,
          protocol: "http",
          endpoints: [
            { id: `${name}-1`, host: "10.0.0.1", port: 80, release: index % 2 === 0 ? release : 1 },
          ],
        }),
      ),
      edges: edges.map((from) => ({
        id: `${from}/x`,
        from,
        dependency: "x",
        port,
        protocol: "http" as const,
        cluster: "x",
      })),
      routes: routes.map((host) => ({ id: `${host}/`, host, path: "/", cluster: `c${String(port)}` })),
    }));

const sorted = (config: MeshConfig) => ({
  epoch: config.epoch,
  clusters: config.clusters.toSorted((a, b) => a.name.localeCompare(b.name)),
  edges: config.edges.toSorted((a, b) => a.id.localeCompare(b.id)),
  routes: config.routes.toSorted((a, b) => a.id.localeCompare(b.id)),
});

test("a configuration and the delta to the next give the next", () => {
  fc.assert(
    fc.property(configs(1), configs(2), (from, to) => {
      const delta = deltaBetween(from, to);
      const next = delta === undefined ? { ...from, epoch: 2 } : applyDelta(from, delta);
      expect(next).toBeDefined();
      expect(sorted(next!)).toEqual(sorted(to));
    }),
  );
});

test("nothing to send when only the epoch differs", () => {
  fc.assert(
    fc.property(configs(1), (config) => {
      expect(deltaBetween(config, { ...structuredClone(config), epoch: 2 })).toBeUndefined();
    }),
  );
});

test("a delta for another base is not applied", () => {
  const empty: MeshConfig = { epoch: 3, clusters: [], edges: [], routes: [] };
  const remove = { clusters: [], edges: [], routes: [] };
  expect(applyDelta(empty, { epoch: 5, base: 4, set: remove, remove })).toBeUndefined();
});
