import type { Clock } from "../../../base/clock.ts";
import type { Log } from "../../../base/log.ts";
import type { Random } from "../../../base/random.ts";
import type { Driver } from "../../driver.ts";
import type { ImagePacker } from "../../image-packer.ts";
import { ensureBaseImage, findNpm } from "./base-image.ts";
import { DockerDriver } from "./docker-driver.ts";
import { Engine } from "./engine.ts";
import { EnginePacker } from "./image-packer.ts";

export interface DockerOptions {
  readonly stateFolder: string;
  readonly socketPath: string;
  /** Where the base image's archive is kept. */
  readonly imageCache: string;
  /** PATH of the executor, where npm is looked for. */
  readonly path: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Between two tries to reach an engine that is still starting, in milliseconds. */
const RETRY_MS = 1_000;

/** All that a host with Docker has more than one without. Loaded only there. */
export async function openDocker(
  options: DockerOptions,
): Promise<{ driver: Driver; packer: ImagePacker; packed: ReadonlySet<string> }> {
  const { socketPath, imageCache, path, clock, log } = options;
  const engine = new Engine({ socketPath });
  await awaitEngine(engine, clock, log);
  const base = () =>
    ensureBaseImage({
      engine,
      cacheFolder: imageCache,
      nodeProgram: process.execPath,
      npmFolder: findNpm(path),
      onProgress: (text) => log.info({}, text),
    });
  const packer = new EnginePacker(engine, base);
  const driver = await DockerDriver.open({ ...options, engine });
  return { driver, packer, packed: await packer.known() };
}

/** After a reboot the executor may be up before the engine is: its instances must not be taken for gone. */
async function awaitEngine(engine: Engine, clock: Clock, log: Log): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const { version } = await engine.version();
      log.info({ version, socket: engine.socketPath }, "Docker Engine found");
      return;
    } catch (error) {
      if (attempt % 30 === 0) log.warn({ err: error }, "the Docker Engine cannot be reached yet");
      await clock.sleep(RETRY_MS);
    }
  }
}
