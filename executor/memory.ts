import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { readDurable, writeDurable } from "../base/durable-file.ts";
import { BuildOrder } from "../model/host.ts";
import { LocalPortsAnswer } from "../model/local-ports.ts";
import { Digest } from "../model/names.ts";
import { RunSpec } from "../model/run-spec.ts";

/** What the executor knows about its instances when it starts again: one durable file each, secrets inside, 0600. */

const Exit = z.object({
  code: z.int().nullable(),
  signal: z.string().nullable(),
  atMs: z.number(),
  outOfMemory: z.boolean(),
});

const Remembered = z.object({
  instanceId: z.string(),
  spec: RunSpec,
  want: z.enum(["run", "stop"]),
  boot: z.enum(["none", "sidecar"]).optional(),
  ready: z.boolean(),
  restarts: z.int(),
  crashes: z.int(),
  lastExit: Exit.optional(),
  localPorts: LocalPortsAnswer.shape.ports.optional(),
});
export type Remembered = z.infer<typeof Remembered>;

const Orders = z.object({ builds: z.array(BuildOrder), keepImages: z.array(Digest) });
export type Orders = z.infer<typeof Orders>;

export class Memory {
  readonly #folder: string;
  readonly #ordersFile: string;
  readonly #written = new Map<string, string>();

  constructor(executorFolder: string) {
    this.#folder = join(executorFolder, "assigned");
    this.#ordersFile = join(executorFolder, "orders.json");
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
  }

  /** Everything remembered. A file that cannot be read is named in `damaged` and left where it is. */
  load(): { remembered: Remembered[]; damaged: string[] } {
    const remembered: Remembered[] = [];
    const damaged: string[] = [];
    for (const name of readdirSync(this.#folder).filter((name) => name.endsWith(".json"))) {
      const read = readDurable(join(this.#folder, name));
      const parsed = read.kind === "read" ? Remembered.safeParse(read.value) : undefined;
      if (parsed?.success === true) remembered.push(parsed.data);
      else damaged.push(name.slice(0, -".json".length));
    }
    return { remembered, damaged };
  }

  /** Writes nothing when nothing changed. */
  save(remembered: Remembered): void {
    const text = JSON.stringify(remembered);
    if (this.#written.get(remembered.instanceId) === text) return;
    writeDurable(this.#file(remembered.instanceId), remembered);
    this.#written.set(remembered.instanceId, text);
  }

  forget(instanceId: string): void {
    this.#written.delete(instanceId);
    const file = this.#file(instanceId);
    for (const path of [`${file}.previous`, file]) rmSync(path, { force: true });
  }

  loadOrders(): Orders | undefined {
    const read = readDurable(this.#ordersFile);
    return read.kind === "read" ? Orders.safeParse(read.value).data : undefined;
  }

  saveOrders(orders: Orders): void {
    const text = JSON.stringify(orders);
    if (this.#written.get("/orders") === text) return;
    writeDurable(this.#ordersFile, orders);
    this.#written.set("/orders", text);
  }

  #file(instanceId: string): string {
    return join(this.#folder, `${instanceId}.json`);
  }
}
