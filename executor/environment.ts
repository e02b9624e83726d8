import { delimiter, join } from "node:path";
import type { LocalPortsAnswer } from "../model/local-ports.ts";
import { environmentStem } from "../model/names.ts";
import type { RunSpec } from "../model/run-spec.ts";
import type { Prepared } from "./driver.ts";

/** The program search path of the system, after what the image and the platform bring. */
const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export interface EnvironmentFacts {
  readonly instanceId: string;
  readonly spec: RunSpec;
  readonly prepared: Prepared;
  /** Where each dependency is reached; empty when it has none. */
  readonly localPorts: LocalPortsAnswer["ports"];
  /** The image's folder. */
  readonly folder: string;
  /** Folder of the pinned Node.js, first on the PATH. */
  readonly nodeFolder: string;
  /** Folder of Gilliam's own code: gears start from it. */
  readonly platformFolder: string;
}

/**
 * All of an instance's environment; nothing of the executor's own is in it. The manifest may set anything except
 * what tells the instance where it is: HOME, TMPDIR, PORT, HOST, VOLUME, GILLIAM_* and the dependencies' variables.
 */
export function instanceEnvironment(facts: EnvironmentFacts): Record<string, string> {
  const { instanceId, spec, prepared } = facts;
  return {
    // An image from elsewhere has its own, and knows best.
    ...(spec.image.kind === "docker" ? {} : { LANG: "C.UTF-8", PATH: searchPath(facts) }),
    ...spec.environment,
    ...spec.secrets,
    ...spec.dependencies
      .map((dependency) => dependencyVariables(dependency, facts.localPorts))
      .reduce((all, one) => ({ ...all, ...one }), {}),
    HOME: prepared.home,
    TMPDIR: prepared.temporary,
    HOST: prepared.bindHost,
    ...(prepared.address === undefined ? {} : { PORT: String(prepared.address.port) }),
    ...(prepared.volume === undefined ? {} : { VOLUME: prepared.volume }),
    GILLIAM_FORMATION: spec.formation,
    GILLIAM_SERVICE: spec.service,
    GILLIAM_INSTANCE: instanceId,
    GILLIAM_RELEASE: String(spec.release),
  };
}

function searchPath({ folder, nodeFolder, platformFolder, spec }: EnvironmentFacts): string {
  return [
    nodeFolder,
    join(folder, ".venv", "bin"),
    join(folder, "node_modules", ".bin"),
    ...(spec.image.kind === "gear" ? [join(platformFolder, "node_modules", ".bin")] : []),
    SYSTEM_PATH,
  ].join(delimiter);
}

function dependencyVariables(
  { name, port, url }: RunSpec["dependencies"][number],
  localPorts: LocalPortsAnswer["ports"],
): Record<string, string> {
  const open = localPorts.find(({ dependency }) => dependency === name);
  const host = open?.host ?? "127.0.0.1";
  const actualPort = String(open?.port ?? port);
  const stem = environmentStem(name);
  return {
    [`${stem}_URL`]: url.replaceAll("{host}", host).replaceAll("{port}", actualPort),
    [`${stem}_HOST`]: host,
    [`${stem}_PORT`]: actualPort,
  };
}
