import { afterAll, beforeAll } from "vitest";
import { ConsulCluster } from "../tools/consul.ts";
import { consulUnderTest } from "./consul-harness.ts";
import { describeRegistry } from "./registry.contract.ts";

let cluster: ConsulCluster;
beforeAll(async () => {
  cluster = await ConsulCluster.start({ servers: 1, acl: true });
}, 60_000);
afterAll(() => cluster.stop());

describeRegistry("consul, a single server", () => consulUnderTest(cluster));
