import type { Log } from "../../../base/log.ts";
import { messageOf } from "../../../base/errors.ts";
import { LABELS, networkContainerOptions } from "./container-options.ts";
import type { Engine } from "./engine.ts";

export interface NetworkOwner {
  readonly containerId: string;
  /** Of the waiting process, as the host numbers it. */
  readonly pid: number;
}

/** Spare ones kept ready by default: an instance that starts need not wait for a container to be made. */
const SPARES = 2;

/**
 * The tiny containers that own the instances' network namespaces. A spare one becomes an instance's own by being
 * renamed, which the engine does at once and for one of two at most.
 */
export class NetworkOwners {
  readonly #engine: Engine;
  readonly #owner: string;
  readonly #image: string;
  readonly #log: Log;
  readonly #makeName: () => string;
  readonly #sparesWanted: number;
  readonly #spares: string[] = [];
  #refilling: Promise<void> | undefined;
  #closed = false;

  constructor(options: {
    engine: Engine;
    owner: string;
    image: string;
    log: Log;
    randomName: () => string;
    spares?: number | undefined;
  }) {
    this.#sparesWanted = options.spares ?? SPARES;
    this.#engine = options.engine;
    this.#owner = options.owner;
    this.#image = options.image;
    this.#log = options.log;
    this.#makeName = () => `${this.#owner}-spare-${options.randomName()}`;
  }

  nameOf(instanceId: string): string {
    return `${this.#owner}-net-${instanceId}`;
  }

  /** The instance's own, running; made, or started again, when it is not. */
  async ensure(instanceId: string): Promise<NetworkOwner> {
    const name = this.nameOf(instanceId);
    const known = await this.#engine.inspect(name);
    if (known?.state === "running") return { containerId: known.id, pid: known.pid };
    if (known !== undefined) await this.#engine.remove(known.id);
    const spare = await this.#takeSpare(name);
    if (spare !== undefined) return spare;
    const containerId = await this.#engine.create(name, networkContainerOptions(this.#owner, this.#image));
    await this.#engine.start(containerId);
    return this.#mustRun(containerId);
  }

  async remove(instanceId: string): Promise<void> {
    await this.#engine.remove(this.nameOf(instanceId));
  }

  /** Makes spare ones in the background. */
  refill(): void {
    this.#refilling ??= this.#makeSpares()
      .catch((error: unknown) =>
        this.#log.debug({ reason: messageOf(error) }, "no spare network can be made"),
      )
      .finally(() => {
        this.#refilling = undefined;
      });
  }

  /** Removes those of instances that are not in `wanted`, and all spare ones but ours. */
  async sweep(wanted: ReadonlySet<string>): Promise<void> {
    const keep = new Set([...wanted].map((id) => this.nameOf(id)));
    const all = await this.#engine.list({ [LABELS.owner]: this.#owner, [LABELS.part]: "network" });
    for (const { id, name } of all) {
      if (!keep.has(name) && !this.#spares.includes(id) && this.#refilling === undefined)
        await this.#engine.remove(id);
    }
  }

  async dismantle(): Promise<void> {
    this.#closed = true;
    await this.#refilling;
    this.#spares.length = 0;
    await this.sweep(new Set());
  }

  close(): void {
    this.#closed = true;
  }

  async #takeSpare(name: string): Promise<NetworkOwner | undefined> {
    for (let id = this.#spares.shift(); id !== undefined; id = this.#spares.shift()) {
      try {
        await this.#engine.rename(id, name);
        const owner = await this.#mustRun(id);
        this.refill();
        return owner;
      } catch (error) {
        this.#log.debug({ reason: messageOf(error) }, "a spare network was of no use");
        await this.#engine.remove(id);
      }
    }
    this.refill();
    return undefined;
  }

  async #makeSpares(): Promise<void> {
    while (this.#spares.length < this.#sparesWanted && !this.#closed) {
      const id = await this.#engine.create(
        this.#makeName(),
        networkContainerOptions(this.#owner, this.#image),
      );
      await this.#engine.start(id);
      this.#spares.push(id);
    }
  }

  async #mustRun(containerId: string): Promise<NetworkOwner> {
    const facts = await this.#engine.inspect(containerId);
    if (facts?.state === "running" && facts.pid > 0) return { containerId, pid: facts.pid };
    throw new Error(`the container ${containerId.slice(0, 12)} that owns a network ended at once`);
  }
}
