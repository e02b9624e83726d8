import { UserError } from "../base/errors.ts";
import type { RunSpec } from "../model/run-spec.ts";
import { ONE_OFF_MARK } from "./agent.ts";
import { instanceEnvironment } from "./environment.ts";
import { containerRequest, type RunnerParts } from "./runner.ts";

export interface OneOffRequest {
  readonly spec: RunSpec;
  /** Program and arguments, no shell. */
  readonly command: readonly string[];
  /** Makes the instance's id unique. */
  readonly suffix: string;
  readonly stdin: Uint8Array | undefined;
  readonly onOutput: (stream: "stdout" | "stderr", bytes: Buffer) => void;
  readonly signal: AbortSignal;
}

/** Runs a command once in a fresh instance, with local ports of its own, and removes all of it. Returns the exit code. */
export async function runOneOff(parts: RunnerParts, request: OneOffRequest): Promise<number> {
  const { spec, suffix } = request;
  const { driver, images, localPorts, nodeFolder, platformFolder } = parts;
  const image = images.resolve(spec.image);
  if (image.kind !== "ready") throw new UserError(image.reason, { code: "image_not_ready", status: 409 });
  const instanceId = `${spec.formation}-${spec.service}${ONE_OFF_MARK}${suffix}`;
  const prepared = await driver.prepare({
    instanceId,
    network: "own",
    port: spec.port,
    volume: spec.volume,
    privileges: "none",
    resources: spec.resources,
    container: containerRequest(spec),
  });
  try {
    const { formation, service, release, dependencies } = spec;
    const ports = dependencies.map(({ name, port, protocol }) => ({ dependency: name, port, protocol }));
    const { namespace } = prepared;
    const opened =
      ports.length === 0
        ? []
        : (await localPorts.open({ instanceId, formation, service, release, namespace, ports })).ports;
    const environment = instanceEnvironment({
      instanceId,
      spec,
      prepared,
      localPorts: opened,
      folder: image.folder,
      nodeFolder,
      platformFolder,
    });
    return await driver.exec({
      instanceId,
      folder: image.folder,
      image: image.reference,
      environment,
      command: request.command,
      stdin: request.stdin,
      onOutput: request.onOutput,
      signal: request.signal,
    });
  } finally {
    if (spec.dependencies.length > 0) await localPorts.close(instanceId).catch(() => undefined);
    await driver.remove(instanceId);
  }
}
