import { expect, test } from "vitest";
import { explain } from "../../control/explain.ts";
import { scopeOf } from "../../control/mesh.ts";
import { unsafeActions } from "./safety.ts";
import { Script } from "./script.ts";
import { SimPlatform, TICK_MS } from "./sim-platform.ts";

const SEEDS = Array.from({ length: 200 }, (_, index) => index + 1);
const TROUBLED_TICKS = 120;
/** Two drain timeouts, a host's replacement and some starts: after that, nothing is left to wait for. */
const CALM_TICKS_MAX = 120_000 / TICK_MS;

test.for(SEEDS)("whatever fails on the way, nothing is cut off and all arrives (SEED=%i)", (seed) => {
  const wrong: string[] = [];
  const platform = new SimPlatform(seed, 1 + (seed % 3), (world, actions) => {
    wrong.push(...unsafeActions(platform, world, actions).map((what) => `at ${world.nowMs}: ${what}`));
  });
  const script = new Script(platform);
  script.deploy("good");
  platform.faults = { loss: 0.2, break: 0.015, refuse: 0.05 };
  for (let tick = 0; tick < TROUBLED_TICKS; tick += 1) {
    if (platform.random() < 0.12) script.move();
    platform.tick();
    expect(wrong).toEqual([]);
  }
  platform.heal();
  script.finish();
  let ticks = 0;
  const settled = () => {
    const world = platform.world();
    const acknowledged = world.proxies.every((proxy) => proxy.epoch === proxy.wantedEpoch);
    return acknowledged && world.formations.every((formation) => explain(world, formation).settled);
  };
  do {
    platform.tick();
    ticks += 1;
    expect(wrong).toEqual([]);
  } while ((ticks < 20 || !settled()) && ticks < CALM_TICKS_MAX);

  const world = platform.world();
  expect(
    world.formations.map((formation) => explain(world, formation)).filter(({ settled }) => !settled),
  ).toEqual([]);
  const counts: Record<string, number> = {};
  for (const record of world.instances) {
    const key = `${record.service} r${record.release} ${record.want} ${record.status?.phase ?? "unheard"}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  const formation = platform.formations.get("shop")!;
  const wanted = Object.entries(formation.services).flatMap(([name, { release, count }]) => {
    const service = world.releases.get(`shop/${release}`)?.services[name];
    const number = count ?? service?.instances ?? 0;
    return number === 0 ? [] : [[`${name} r${service?.spec.release} run ready`, number]];
  });
  expect(counts).toEqual(Object.fromEntries(wanted));
  for (const proxy of platform.proxies) {
    const { clusters, edges, routes } = scopeOf(platform.hub.mesh!, proxy);
    const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
    expect(proxy.config.clusters.toSorted(byName)).toEqual(clusters.toSorted(byName));
    expect(proxy.config.edges).toHaveLength(edges.length);
    expect(proxy.config.routes).toEqual(routes);
  }
});
