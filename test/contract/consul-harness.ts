import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { ConsulClient } from "../../control/registry/consul-client.ts";
import { ConsulRegistry } from "../../control/registry/consul.ts";
import { consulPolicy } from "../../model/consul-policy.ts";
import type { ConsulCluster, ConsulServer } from "../tools/consul.ts";
import type { RegistryUnderTest } from "./registry.contract.ts";

type ConsulToken = Awaited<ReturnType<ConsulCluster["token"]>>;

/** A registry in a cluster of tests, in a place of its own, with exactly the rights that `gilliam consul policy` prints. */
export interface Place {
  readonly prefix: string;
  readonly token: { -readonly [K in keyof ConsulToken]: ConsulToken[K] };
  readonly clients: ConsulClient[];
  /** A new connection, through `server` or the first one. */
  open(options?: { server?: ConsulServer; onNews?: (text: string) => void }): Promise<ConsulRegistry>;
}

export async function newPlace(cluster: ConsulCluster): Promise<Place> {
  const prefix = `test-${randomUUID()}`;
  const token = await cluster.token(consulPolicy({ prefix }));
  const clients: ConsulClient[] = [];
  return {
    prefix,
    token,
    clients,
    open: ({ server = cluster.first, onNews } = {}) => {
      const client = new ConsulClient({ url: server.url, token: () => token.secret });
      clients.push(client);
      return ConsulRegistry.open({
        client,
        prefix,
        clock: systemClock,
        random: systemRandom,
        newId: randomUUID,
        ttlMsMin: 500,
        ...(onNews === undefined ? {} : { onNews }),
      });
    },
  };
}

export async function consulUnderTest(cluster: ConsulCluster): Promise<RegistryUnderTest> {
  const place = await newPlace(cluster);
  // Each new connection goes to another server: nothing may depend on which one is asked.
  let next = 0;
  const open = () => place.open({ server: cluster.servers[next++ % cluster.servers.length]! });
  let registry = await open();
  return {
    registry,
    ttlMs: 700,
    ttlSlackMs: 1_300,
    advance: (byMs) => sleep(byMs),
    reopen: async () => {
      await registry.close();
      registry = await open();
      return registry;
    },
    loseLock: async ({ fence }) => {
      await cluster.first.ask("PUT", `/session/destroy/${fence.session}`);
      return registry;
    },
    cleanUp: async () => {
      await registry.close();
      await cluster.first.ask("DELETE", `/kv/${place.prefix}/?recurse`);
      await place.token.revoke();
    },
  };
}
