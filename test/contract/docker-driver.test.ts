import { afterAll, beforeAll, describe } from "vitest";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { DockerDriver } from "../../executor/drivers/docker/docker-driver.ts";
import { type TestEngine, startTestEngine } from "../tools/docker.ts";
import { describeDriver } from "./driver.contract.ts";

/** A real engine: it needs root, as the driver does. */
describe.skipIf(process.getuid?.() !== 0)("with a Docker Engine", () => {
  let docker: TestEngine;
  beforeAll(async () => {
    docker = await startTestEngine();
  }, 120_000);
  afterAll(() => docker.remove(), 60_000);

  describeDriver(
    "docker",
    (stateFolder) =>
      DockerDriver.open({
        stateFolder,
        engine: docker.engine,
        clock: systemClock,
        random: systemRandom,
        log: silentLog,
        spareNetworks: 0,
      }),
    () => ({ node: "/usr/local/bin/node", image: docker.base }),
  );
});
