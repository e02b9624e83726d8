import { chownSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { UserError, errnoOf, messageOf } from "../base/errors.ts";
import { BootManifest, type BootInstance } from "../model/boot.ts";
import { isDeepStrictEqual } from "node:util";
import type { Remembered } from "./memory.ts";

/** The boot manifest, read once at the start. Undefined when there is none: this host runs no part of the platform. */
export function readBootManifest(path: string): BootManifest | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw badManifest(path, [messageOf(error)], error);
  }
  const parsed = BootManifest.safeParse(value);
  if (parsed.success) return parsed.data;
  throw badManifest(path, z.prettifyError(parsed.error).split("\n"), parsed.error);
}

function badManifest(path: string, problems: string[], cause: unknown): UserError {
  return new UserError(`The boot manifest ${path} cannot be used`, {
    code: "bad_boot_manifest",
    problems,
    next: "Run ./bootstrap/up again: it writes the file anew.",
    cause,
  });
}

export interface BootPlan {
  /** Adopted if they run, started if not. */
  readonly run: readonly BootInstance[];
  /** As remembered: replaced by another spec, or no longer in the manifest. */
  readonly stop: readonly Remembered[];
}

/** Pure: what a boot manifest asks for, given what an earlier executor ran. No manifest changes nothing. */
export function planBoot(manifest: BootManifest | undefined, remembered: readonly Remembered[]): BootPlan {
  const booted = remembered.filter(({ boot }) => boot !== undefined);
  if (manifest === undefined) {
    const run = booted.map(({ instanceId, spec, boot = "none" }) => ({ instanceId, spec, privileges: boot }));
    return { run, stop: [] };
  }
  const stop = booted.filter((old) => {
    const wanted = manifest.instances.find(({ instanceId }) => instanceId === old.instanceId);
    return wanted?.privileges !== old.boot || !isDeepStrictEqual(wanted?.spec, old.spec);
  });
  return { run: manifest.instances, stop };
}

/** As root the parts run as the platform's user: the folders and tokens that are theirs must belong to it. */
export function givePlatformItsFolders(stateFolder: string, uid: number): void {
  for (const name of ["control", "edge", "sidecar", "run"]) {
    const path = join(stateFolder, name);
    mkdirSync(path, { recursive: true, mode: 0o700 });
    chownSync(path, uid, uid);
  }
  for (const name of ["token", "host-token"]) {
    const path = join(stateFolder, name);
    if (existsSync(path)) chownSync(path, uid, uid);
  }
}
