import { expect, test } from "vitest";
import { seededRandom } from "../../base/random.ts";
import { type Cluster, MeshConfig, MeshDelta } from "../../model/mesh.ts";
import { applyDelta } from "../../model/mesh-delta.ts";
import { type RawClient, answering, cluster, ok, rawServer, rig } from "./kit.ts";

const CLUSTERS = 1_000;
const ENDPOINTS = 5;
const SWAPS = 40;
const CLIENTS = 8;

/** One cluster whose instances are all new in each `generation`. */
function service(index: number, ports: readonly number[], generation: number): Cluster {
  return cluster(`s${index}.load`, [], {
    endpoints: Array.from({ length: ENDPOINTS }, (_, each) => ({
      id: `s${index}-${each}-g${generation}`,
      host: "127.0.0.1",
      port: ports[each % ports.length]!,
      release: generation,
    })),
  });
}

function whole(epoch: number, ports: readonly number[]): MeshConfig {
  return MeshConfig.parse({
    epoch,
    clusters: Array.from({ length: CLUSTERS }, (_, index) => service(index, ports, epoch)),
    edges: [],
    routes: Array.from({ length: CLUSTERS }, (_, index) => ({
      id: `r${index}`,
      host: `h${index}.test`,
      path: "/",
      cluster: `s${index}.load`,
    })),
  });
}

/** Some services get new instances; one is gone, and the one gone before is back. */
function delta(base: MeshConfig, ports: readonly number[]): MeshDelta {
  const { epoch } = base;
  const changed = Array.from({ length: 20 }, (_, each) =>
    service((epoch * 37 + each) % (CLUSTERS - 2), ports, epoch + 1),
  );
  const gone = CLUSTERS - 2 + (epoch % 2);
  const back = CLUSTERS - 2 + ((epoch + 1) % 2);
  const route = { id: `r${back}`, host: `h${back}.test`, path: "/", cluster: `s${back}.load` };
  return MeshDelta.parse({
    epoch: epoch + 1,
    base: epoch,
    set: { clusters: [...changed, service(back, ports, epoch + 1)], edges: [], routes: [route] },
    remove: { clusters: [`s${gone}.load`], edges: [], routes: [`r${gone}`] },
  });
}

/** Asks for one service after the other over one connection, until told to stop; how many answers were not 200. */
async function load(client: RawClient, seed: number, going: () => boolean): Promise<[number, number]> {
  const random = seededRandom(seed);
  let [sent, failed] = [0, 0];
  while (going()) {
    const index = Math.floor(random() * (CLUSTERS - 2));
    client.text = "";
    client.write(`GET /${index} HTTP/1.1\r\nHost: h${index}.test\r\n\r\n`);
    await client.until(({ text, closed }) => closed || text.endsWith("answer"), "an answer");
    sent += 1;
    if (client.closed || !client.text.startsWith("HTTP/1.1 200 ")) failed += 1;
    if (client.closed) break;
  }
  return [sent, failed];
}

test("1,000 routes to 5,000 endpoints are replaced under load, whole and by deltas, without one error", async () => {
  await using first = await rawServer(answering(() => ok("answer")));
  await using second = await rawServer(answering(() => ok("answer")));
  const ports = [first.port, second.port];
  let config = whole(1, ports);
  await using edge = await rig([], { clusters: config.clusters, routes: config.routes });
  let going = true;
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => edge.client()));
  const loads = clients.map((client, index) => load(client, index + 1, () => going));
  let meanwhile = 0;
  for (let swap = 1; swap <= SWAPS; swap += 1) {
    config = swap % 8 === 0 ? whole(config.epoch + 1, ports) : applyDelta(config, delta(config, ports))!;
    const served = edge.events.length;
    const sliced = swap % 16 !== 0;
    expect(sliced ? await edge.engine.applySliced(config) : edge.engine.apply(config)).toEqual({ ok: true });
    meanwhile += edge.events.length - served;
    const before = edge.events.length;
    while (edge.events.length < before + CLIENTS) await new Promise(setImmediate);
  }
  going = false;
  const outcomes = await Promise.all(loads);
  for (const client of clients) client.socket.destroy();
  expect(edge.engine.epoch).toBe(SWAPS + 1);
  expect(outcomes.map(([, failed]) => failed)).toEqual(clients.map(() => 0));
  expect(edge.events.filter(({ status }) => status !== 200)).toEqual([]);
  expect(edge.engine.report().busy).toEqual({});
  // Requests were served while configurations were being prepared.
  expect(meanwhile).toBeGreaterThan(SWAPS);
  // The load met the instances of many generations, so it did run between the swaps.
  const generations = new Set(edge.events.map(({ release }) => release));
  expect(generations.size).toBeGreaterThan(SWAPS / 2);
});

test("an object that stays the same in the next configuration is not looked at again", async () => {
  await using server = await rawServer(answering(() => ok("answer")));
  const config = MeshConfig.parse({
    epoch: 1,
    clusters: [cluster("web.shop", [server.port])],
    edges: [],
    routes: [],
  });
  await using edge = await rig([], { clusters: config.clusters });
  const [same] = config.clusters;
  expect(edge.engine.apply(config)).toEqual({ ok: true });
  let looked = 0;
  Object.defineProperty(same!, "endpoints", {
    get: () => {
      looked += 1;
      return [];
    },
  });
  expect(edge.engine.apply({ ...config, epoch: 2 })).toEqual({ ok: true });
  expect(edge.engine.epoch).toBe(2);
  expect(looked).toBe(0);
});

test("of configurations put in force in slices each waits for the one before; until its own turn nothing of it shows", async () => {
  await using server = await rawServer(answering(() => ok("answer")));
  const ports = [server.port];
  await using edge = await rig([], { clusters: whole(1, ports).clusters, routes: [] });
  const seen = new Set<number>();
  let going = true;
  const look = () => {
    seen.add(edge.engine.epoch);
    if (going) setImmediate(look);
  };
  look();
  const bad = { ...whole(3, ports), clusters: [] };
  const outcomes = await Promise.all([
    edge.engine.applySliced(whole(2, ports)),
    edge.engine.applySliced(bad),
    edge.engine.applySliced(whole(4, ports)),
  ]);
  going = false;
  expect(outcomes.map(({ ok: fine }) => fine)).toEqual([true, false, true]);
  expect(seen.add(edge.engine.epoch)).toEqual(new Set([1, 2, 4]));
});

test("a configuration put in force at once takes the place of one that is being prepared", async () => {
  await using server = await rawServer(answering(() => ok("answer")));
  const ports = [server.port];
  await using edge = await rig([], { clusters: whole(1, ports).clusters, routes: [] });
  const slow = edge.engine.applySliced(whole(2, ports));
  await new Promise(setImmediate);
  expect(edge.engine.apply(whole(3, ports))).toEqual({ ok: true });
  expect(await slow).toEqual({ ok: false, reason: "another configuration was put in force meanwhile" });
  expect(edge.engine.epoch).toBe(3);
});
