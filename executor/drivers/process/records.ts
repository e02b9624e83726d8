import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";
import { readDurable, writeDurable } from "../../../base/durable-file.ts";
import { UserError } from "../../../base/errors.ts";
import { ContainerNeeds, Resources } from "../../../model/run-spec.ts";
import { SLOT_MAX } from "./subnet.ts";

/** The folders of instances and volumes, and the number (slot) that gives an instance its user and its address. */

const Record = z.object({
  slot: z.int(),
  /** Undefined: the executor's own user. */
  uid: z.int().optional(),
  network: z.enum(["own", "host"]),
  privileges: z.enum(["none", "platform", "sidecar"]),
  port: z.int().optional(),
  /** What it was given: equal to `port`, except on a shared loopback. */
  actualPort: z.int().optional(),
  volume: z.string().optional(),
  /** The next two only of containers. */
  resources: Resources.optional(),
  container: z
    .object({ needs: ContainerNeeds, hosts: z.array(z.string()), imageHealthCheck: z.boolean() })
    .optional(),
});
export type InstanceRecord = z.infer<typeof Record>;

/** First user id of instances without a volume; the next half of the range is for owners of volumes. */
const INSTANCE_UID_BASE = 200_000;
/** The same for containers, which have slots of their own. */
export const CONTAINER_UID_BASE = 204_096;
const VOLUME_UID_BASE = 232_768;
export const PLATFORM_UID = 199_999;
export const BUILD_UID = 199_998;

export class Records {
  readonly instancesFolder: string;
  readonly #volumesFolder: string;
  readonly #root: boolean;
  readonly #uidBase: number;
  readonly #records = new Map<string, InstanceRecord>();
  #lastSlot = 0;

  /** Reads what earlier executors prepared. A record that cannot be read is left alone and named. */
  constructor(options: {
    instancesFolder: string;
    volumesFolder: string;
    root: boolean;
    /** User id of slot 0. */
    uidBase?: number;
    onDamaged: (id: string) => void;
  }) {
    this.instancesFolder = options.instancesFolder;
    this.#volumesFolder = options.volumesFolder;
    this.#root = options.root;
    this.#uidBase = options.uidBase ?? INSTANCE_UID_BASE;
    mkdirSync(this.instancesFolder, { recursive: true, mode: 0o711 });
    mkdirSync(this.#volumesFolder, { recursive: true, mode: 0o711 });
    for (const id of readdirSync(this.instancesFolder)) {
      const read = readDurable(this.#file(id));
      const record = read.kind === "read" ? Record.safeParse(read.value) : undefined;
      if (record?.success === true) this.#records.set(id, record.data);
      else if (read.kind !== "missing") options.onDamaged(id);
    }
    this.#lastSlot = Math.max(0, ...[...this.#records.values()].map(({ slot }) => slot));
  }

  get(id: string): InstanceRecord | undefined {
    return this.#records.get(id);
  }

  ids(): string[] {
    return [...this.#records.keys()];
  }

  slots(): Set<number> {
    return new Set([...this.#records.values()].map(({ slot }) => slot));
  }

  save(id: string, record: InstanceRecord): void {
    mkdirSync(this.folder(id), { recursive: true, mode: 0o711 });
    writeDurable(this.#file(id), record);
    this.#records.set(id, record);
  }

  delete(id: string): void {
    this.#records.delete(id);
    rmSync(this.folder(id), { recursive: true, force: true });
  }

  /** Never the slot that was freed last: a reused address would meet connections meant for its former owner. */
  nextSlot(): number {
    const used = this.slots();
    for (let step = 1; step <= SLOT_MAX; step += 1) {
      const slot = ((this.#lastSlot + step - 1) % SLOT_MAX) + 1;
      if (!used.has(slot)) {
        this.#lastSlot = slot;
        return slot;
      }
    }
    throw new UserError(`This host runs ${SLOT_MAX} instances already, the most it can`, {
      code: "host_full",
      status: 503,
    });
  }

  folder(id: string): string {
    // Ids come over the network; none may name another folder.
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(id)) {
      throw new UserError(`"${id}" cannot be an instance id: letters, digits, dots and dashes only`, {
        code: "bad_instance_id",
      });
    }
    return join(this.instancesFolder, id);
  }

  /** Makes home, tmp and run; home and tmp belong to the instance. */
  makeFolders(id: string, uid: number | undefined): void {
    for (const name of ["home", "tmp", "run"]) {
      const path = join(this.folder(id), name);
      mkdirSync(path, { recursive: true, mode: 0o700 });
      if (this.#root && uid !== undefined && name !== "run") chownSync(path, uid, uid);
    }
  }

  /** The user of a new instance. The owner of its volume, if it has one: the files there stay readable to it. */
  chooseUid(slot: number, privileges: InstanceRecord["privileges"], volume: string | undefined) {
    if (!this.#root) return undefined;
    if (privileges !== "none") return PLATFORM_UID;
    return volume === undefined ? this.#uidBase + slot : this.#volumeOwner(volume);
  }

  /** Makes the volume when it is new; a volume is never emptied, moved or given away. */
  openVolume(volume: string, uid: number | undefined): string {
    const path = join(this.#volumesFolder, volume);
    if (existsSync(path)) return path;
    mkdirSync(path, { mode: 0o700 });
    if (this.#root && uid !== undefined) chownSync(path, uid, uid);
    return path;
  }

  #volumeOwner(volume: string): number {
    const path = join(this.#volumesFolder, volume);
    if (existsSync(path)) {
      const owner = statSync(path).uid;
      if (owner >= VOLUME_UID_BASE) return owner;
    }
    const owners = readdirSync(this.#volumesFolder).map(
      (name) => statSync(join(this.#volumesFolder, name)).uid,
    );
    const uid = Math.max(VOLUME_UID_BASE - 1, ...owners) + 1;
    if (existsSync(path)) chownSync(path, uid, uid); // Made by hand, by root: only the folder itself is given away.
    return uid;
  }

  #file(id: string): string {
    return join(this.folder(id), "driver.json");
  }
}

/** Throws unless every unprivileged user can walk down to `path`. */
export function checkReachable(path: string): void {
  for (let at = path; at !== dirname(at); at = dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) {
      throw new UserError(
        `Instances run as users of their own and cannot reach ${path}: ${at} is closed to them`,
        {
          code: "state_unreachable",
          status: 500,
          next: `Run "chmod o+x ${at}", or choose another state folder.`,
        },
      );
    }
  }
}

/** Folder that others may walk through but not list. */
export function makePassable(path: string): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, 0o711);
}
