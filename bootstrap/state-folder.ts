import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { openSync, writeSync, fsyncSync, closeSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";
import { errnoOf, messageOf, UserError } from "../base/errors.ts";
import { CONSUL_FILES, PORTS, type ConsulFlags, type PortName } from "./options.ts";

/** Raised when older platforms cannot read what newer ones write, or the other way round. */
const STATE_VERSION = 1;
const VERSION_LINE = /^gilliam state (\d{1,9})$/;

/** Whom control, edge and sidecar run as when the executor is root. Files that they read or write are theirs. */
export const PLATFORM_UID = 199_999;

/** `platform.json`: where everything is; anybody may read it, so no secrets. */
const PlatformFile = z.looseObject({
  version: z.string(),
  /** Name of the platform's copy below `platform/`. */
  platform: z.string(),
  hostId: z.string(),
  controlUrl: z.string(),
  edgeUrl: z.string(),
  executorUrl: z.string(),
  metricsUrls: z.record(z.string(), z.string()),
  isPublic: z.boolean(),
  /** The edge's, where it terminates TLS. */
  tls: z.object({ port: z.int(), dir: z.string(), isSelfSigned: z.boolean() }).optional(),
  /** The edge's; absent: one. */
  edgeWorkers: z.union([z.int(), z.literal("auto")]).optional(),
  network: z.enum(["auto", "namespace", "shared"]),
  /** Absent in states of before there was a choice: process. */
  driver: z.enum(["process", "docker"]).optional(),
  dockerSocket: z.string().optional(),
  /** Where the registry is; absent: on this machine. The files are those below `consul/`. */
  consul: z
    .object({
      url: z.string(),
      datacenter: z.string(),
      prefix: z.string(),
      files: z.array(z.enum(CONSUL_FILES)),
    })
    .optional(),
  ports: z.object(
    Object.fromEntries(Object.keys(PORTS).map((name) => [name, z.int()])) as Record<PortName, z.ZodInt>,
  ),
});
export type PlatformFile = z.infer<typeof PlatformFile>;

/**
 * What there is to know of a state folder without touching it.
 * @throws UserError "state_version" or "not_state" for a folder that must not be touched at all.
 */
export function inspectState(state: string): {
  readonly exists: boolean;
  readonly platform: PlatformFile | undefined;
} {
  let entries: string[];
  try {
    entries = readdirSync(state);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return { exists: false, platform: undefined };
    throw new UserError(`Cannot read the state folder ${state}: ${messageOf(error)}`, {
      code: "state_folder",
      next: "Run this as the user who brought Gilliam up, or name another folder with --state",
    });
  }
  if (entries.length === 0) return { exists: false, platform: undefined };
  checkVersion(state, entries);
  const path = join(state, "platform.json");
  if (!existsSync(path)) return { exists: true, platform: undefined };
  try {
    return { exists: true, platform: PlatformFile.parse(JSON.parse(readFileSync(path, "utf8"))) };
  } catch (error) {
    throw new UserError(`${path} is damaged: ${messageOf(error)}`, {
      code: "bad_state",
      next: "Delete this one file and run bootstrap/up again: it is written anew, and nothing else is in it",
    });
  }
}

function checkVersion(state: string, entries: readonly string[]): void {
  const line = entries.includes("version") ? readFileSync(join(state, "version"), "utf8").trim() : "";
  const found = VERSION_LINE.exec(line)?.[1];
  if (found === undefined) {
    throw new UserError(`${state} is not empty and not a state folder of Gilliam`, {
      code: "not_state",
      next: "Name another folder with --state. Nothing in it was changed",
    });
  }
  const version = Number(found);
  if (version === STATE_VERSION) return;
  const age = version < STATE_VERSION ? "an older" : "a newer";
  throw new UserError(
    `The state folder ${state} was written by ${age} Gilliam (format ${version}; this one reads ${STATE_VERSION})`,
    {
      code: "state_version",
      next:
        version < STATE_VERSION
          ? "Run that older Gilliam, or start afresh with another --state. Nothing in the folder was changed"
          : "Update this clone to the newer Gilliam, or start afresh with another --state. Nothing in the folder was changed",
    },
  );
}

/** Makes the folder and all that the parts expect in it. Idempotent; existing tokens stay. */
export function prepareState(state: string, randomToken: () => string): void {
  const isRoot = process.getuid?.() === 0;
  try {
    mkdirSync(state, { recursive: true, mode: 0o755 });
    if (!existsSync(join(state, "version")))
      writeWhole(join(state, "version"), `gilliam state ${STATE_VERSION}\n`, 0o644);
    for (const name of ["run", "control", "edge", "sidecar"]) {
      mkdirSync(join(state, name), { recursive: true, mode: name === "run" ? 0o711 : 0o700 });
      if (isRoot) chownSync(join(state, name), PLATFORM_UID, PLATFORM_UID);
    }
    mkdirSync(join(state, "platform"), { recursive: true, mode: 0o755 });
    mkdirSync(join(state, "supervise"), { recursive: true, mode: 0o700 }); // Locks and the log of the root process.
    for (const name of ["token", "host-token"]) {
      const path = join(state, name);
      if (!existsSync(path)) writeWhole(path, `${randomToken()}\n`, 0o600);
      if (isRoot) chownSync(path, PLATFORM_UID, PLATFORM_UID);
    }
  } catch (error) {
    throw new UserError(`Cannot prepare the state folder ${state}: ${messageOf(error)}`, {
      code: "state_folder",
      next: "Name a folder that you may write to with --state",
    });
  }
  if (isRoot) checkReachable(state);
}

/** Copies token and certificates to where control may read them. @throws UserError "consul_file" naming each. */
export function keepConsulFiles(state: string, { files }: ConsulFlags): void {
  const isRoot = process.getuid?.() === 0;
  const folder = join(state, "consul");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (isRoot) chownSync(folder, PLATFORM_UID, PLATFORM_UID);
  const problems: string[] = [];
  for (const [name, from] of Object.entries(files)) {
    try {
      writeWhole(join(folder, name), readFileSync(from, "utf8"), 0o600);
      if (isRoot) chownSync(join(folder, name), PLATFORM_UID, PLATFORM_UID);
    } catch (error) {
      problems.push(`${from}: ${errnoOf(error) ?? messageOf(error)}`);
    }
  }
  if (problems.length > 0)
    throw new UserError("Files for Consul cannot be read", { code: "consul_file", problems });
}

/** As root, instances and platform parts run as other users and must get through to their folders. */
function checkReachable(state: string): void {
  for (let folder = state; folder !== dirname(folder); folder = dirname(folder)) {
    if ((statSync(folder).mode & 0o001) === 0) {
      throw new UserError(`${folder} is closed to other users, so nothing below it can run unprivileged`, {
        code: "state_folder",
        next: `Open it for passing through (chmod o+x ${folder}), or name another folder with --state`,
      });
    }
  }
}

/** The old or the new text, never half of it. */
export function writeWhole(path: string, text: string, mode: number): void {
  const temporary = `${path}.${process.pid}.tmp`;
  const file = openSync(temporary, "w", mode);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  chmodSync(temporary, mode);
  renameSync(temporary, path);
}

export function writePlatformFile(state: string, platform: PlatformFile): void {
  writeWhole(join(state, "platform.json"), `${JSON.stringify(platform, null, 2)}\n`, 0o644);
}

export function readToken(state: string, name: "token" | "host-token"): string {
  return readFileSync(join(state, name), "utf8").trim();
}
