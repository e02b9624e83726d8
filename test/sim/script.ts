import { createHash } from "node:crypto";
import type { Random } from "../../base/random.ts";
import type { FormationRecord, ServiceDesire } from "../../model/release.ts";
import { release, type ServiceInput } from "../fixtures/world.ts";
import type { Behaviour } from "./sim-host.ts";
import type { SimPlatform } from "./sim-platform.ts";

/** What people do to a formation, at random: the same moves as the API's. */
export class Script {
  readonly #platform: SimPlatform;
  readonly #random: Random;
  #number = 0;
  #behaviours: Record<string, { behaviour: Behaviour; version: number }> = {};

  constructor(platform: SimPlatform) {
    this.#platform = platform;
    this.#random = platform.random;
  }

  /** One random move. */
  move(): void {
    const moves = [
      () => this.deploy("good"),
      () => this.deploy("good"),
      () => this.deploy(this.#pick<Behaviour>(["never-ready", "crashing", "unbuildable"])),
      () => this.#scale(),
      () => this.#canary(),
      () => this.#canary(),
      () => this.#promote(),
      () => this.#rollback(),
      () => this.#toggle(),
      () => this.#drainHost(),
    ];
    this.#pick(moves)();
  }

  /** A release in which at least one service changed and behaves so. */
  deploy(behaviour: Behaviour, everything = false): void {
    const services = ["web", "api", "db", ...(everything || this.#random() < 0.8 ? ["worker"] : [])];
    this.#number += 1;
    for (const name of services) {
      if (!everything && this.#behaviours[name] !== undefined && this.#random() < 0.5) continue;
      this.#behaviours[name] = { behaviour, version: this.#number };
    }
    const inputs = services.map((name) => [name, this.#input(name)] as const);
    const made = release(this.#number, Object.fromEntries(inputs));
    this.#platform.releases.set(`shop/${this.#number}`, made);
    const before = this.#formation;
    const desires = services.map((name): [string, ServiceDesire] => {
      const count = before?.services[name]?.count;
      return [name, { release: this.#number, ...(count === undefined ? {} : { count }) }];
    });
    this.#platform.formations.set("shop", {
      name: "shop",
      state: "up",
      current: this.#number,
      previous: before?.current ?? 0,
      services: Object.fromEntries(desires),
      boot: false,
    });
  }

  /** Ends canaries and drains, so that where things must end is clear. */
  finish(): void {
    for (const [id, state] of this.#platform.hostStates) {
      this.#platform.hostStates.set(id, { ...state, draining: false });
    }
    this.deploy("good", true);
  }

  get #formation(): FormationRecord | undefined {
    return this.#platform.formations.get("shop");
  }

  #input(name: string): ServiceInput {
    const { behaviour, version } = this.#behaviours[name] ?? { behaviour: "good", version: this.#number };
    const digest = (text: string) => `sha256:${createHash("sha256").update(text).digest("hex")}` as const;
    const source = digest(`${name}/${version}`);
    const built = name === "web" || name === "db";
    return {
      spec: {
        release: version,
        environment: { BEHAVIOUR: behaviour === "unbuildable" && !built ? "never-ready" : behaviour },
        resources: { cpu: 0.1, memoryBytes: 64 * 1024 ** 2 },
        ...(built
          ? {
              image: {
                kind: "source" as const,
                image: digest(`${name}/${version}/${behaviour}`),
                source: behaviour === "unbuildable" ? `sha256:bad${source.slice(10)}` : source,
              },
            }
          : {}),
        ...(name === "db" ? { volume: "shop-db" } : {}),
      },
      instances: name === "db" ? 1 : 2,
      edge: name === "web" ? [{ host: "shop.localhost", path: "/" }] : [],
      ...(name === "web" ? { dependencies: { api: 7001, db: 5432 } } : {}),
      ...(name === "api" ? { dependencies: { db: 5432 } } : {}),
    };
  }

  #scale(): void {
    this.#change(this.#pick(["web", "api", "worker"]), (desire) => ({
      ...desire,
      count: Math.floor(this.#random() * 6),
    }));
  }

  #canary(): void {
    const release = 1 + Math.floor(this.#random() * this.#number);
    const name = this.#pick(["web", "api"]);
    if (this.#platform.releases.get(`shop/${release}`)?.services[name] === undefined) return;
    const weight = this.#pick([0, 10, 50, 100]);
    this.#change(name, (desire) => ({ ...desire, canary: { release, weight } }));
  }

  #promote(): void {
    this.#change(this.#pick(["web", "api"]), ({ canary, ...desire }) => ({
      ...desire,
      release: canary?.release ?? desire.release,
    }));
  }

  #rollback(): void {
    const formation = this.#formation;
    const to = 1 + Math.floor(this.#random() * this.#number);
    const target = this.#platform.releases.get(`shop/${to}`);
    if (formation === undefined || target === undefined) return;
    const desires = Object.keys(target.services).map((name): [string, ServiceDesire] => [
      name,
      { release: to },
    ]);
    this.#platform.formations.set("shop", {
      ...formation,
      current: to,
      previous: formation.current,
      services: Object.fromEntries(desires),
    });
  }

  #toggle(): void {
    const formation = this.#formation;
    if (formation === undefined) return;
    const state = formation.state === "up" && this.#random() < 0.5 ? "down" : "up";
    this.#platform.formations.set("shop", { ...formation, state });
  }

  #drainHost(): void {
    const { id } = this.#pick(this.#platform.hosts);
    const state = this.#platform.hostStates.get(id);
    if (state !== undefined) this.#platform.hostStates.set(id, { ...state, draining: !state.draining });
  }

  #change(name: string, change: (desire: ServiceDesire) => ServiceDesire): void {
    const formation = this.#formation;
    const desire = formation?.services[name];
    if (formation === undefined || desire === undefined) return;
    this.#platform.formations.set("shop", {
      ...formation,
      services: { ...formation.services, [name]: change(desire) },
    });
  }

  #pick<Item>(items: readonly Item[]): Item {
    return items[Math.floor(this.#random() * items.length)]!;
  }
}
