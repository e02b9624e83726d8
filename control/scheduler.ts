import type { Random } from "../base/random.ts";
import { formatBytes, formatDuration } from "../base/units.ts";
import type { RunSpec } from "../model/run-spec.ts";
import { hostVoice } from "./facts.ts";
import type { HostState, InstanceRecord, World } from "./world.ts";

/**
 * How full every host is, kept up to date while a plan is made. Typed arrays, because a platform of 5,000 hosts and
 * 100,000 instances is planned from nothing in one go.
 */
export class HostIndex {
  readonly hosts: readonly HostState[];
  /** Positions of the hosts that may take new instances: heard of, not draining. */
  readonly open: readonly number[];
  readonly #nowMs: number;
  readonly #positions: ReadonlyMap<string, number>;
  readonly #freeCpu: Float64Array;
  readonly #freeMemory: Float64Array;
  readonly #instances: Uint32Array;
  readonly #world: Pick<World, "instances">;
  /** Copies of a service by host position, worked out when first asked for; hosts without one are absent. */
  readonly #copies = new Map<string, Map<number, number>>();

  constructor(world: Pick<World, "nowMs" | "startedAtMs" | "hosts" | "instances" | "settings">) {
    this.hosts = world.hosts;
    this.#world = world;
    this.#nowMs = world.nowMs;
    this.#positions = new Map(world.hosts.map((host, position) => [host.id, position]));
    this.#freeCpu = Float64Array.from(world.hosts, (host) => host.capacity.cpu);
    this.#freeMemory = Float64Array.from(world.hosts, (host) => host.capacity.memoryBytes);
    this.#instances = new Uint32Array(world.hosts.length);
    this.open = world.hosts.flatMap((host, position) =>
      host.draining || hostVoice(world, host) !== "fresh" ? [] : [position],
    );
    for (const record of world.instances) this.#fill(record, 1);
  }

  add(record: Pick<InstanceRecord, "hostId" | "spec">): void {
    this.#fill(record, 1);
    this.#count(this.copies(record.spec), record.hostId, 1);
  }

  remove(record: Pick<InstanceRecord, "hostId" | "spec">): void {
    this.#fill(record, -1);
    this.#count(this.copies(record.spec), record.hostId, -1);
  }

  position(hostId: string): number | undefined {
    return this.#positions.get(hostId);
  }

  copies({ formation, service }: RunSpec): Map<number, number> {
    const key = `${service}.${formation}`;
    let copies = this.#copies.get(key);
    if (copies === undefined) {
      copies = new Map();
      for (const record of this.#world.instances) {
        if (record.service === service && record.formation === formation)
          this.#count(copies, record.hostId, 1);
      }
      this.#copies.set(key, copies);
    }
    return copies;
  }

  free(position: number): { cpu: number; memoryBytes: number; instances: number } {
    return {
      cpu: this.#freeCpu[position] ?? 0,
      memoryBytes: this.#freeMemory[position] ?? 0,
      instances: this.#instances[position] ?? 0,
    };
  }

  /** Undeclared requests fit everywhere, even on a host that is over-full. */
  fits(position: number, cpu: number, memoryBytes: number): boolean {
    return (
      (cpu === 0 || (this.#freeCpu[position] ?? 0) + ROUNDING >= cpu) &&
      (memoryBytes === 0 || (this.#freeMemory[position] ?? 0) >= memoryBytes)
    );
  }

  /** The fuller the host already is, the higher: 0 to 2, cpu and memory alike. */
  fullness(position: number): number {
    const capacity = this.hosts[position]?.capacity;
    if (capacity === undefined) return 0;
    const { cpu, memoryBytes, instances } = this.free(position);
    if (instances === 0) return 0;
    return 2 - cpu / capacity.cpu - memoryBytes / capacity.memoryBytes;
  }

  /** "host a is draining, host b has been silent for 12s". */
  closedReasons(): string {
    const closed = this.hosts.map((host) =>
      host.draining
        ? `host ${host.id} is draining`
        : `host ${host.id} has been silent for ${formatDuration(this.#nowMs - host.lastSeenMs)}`,
    );
    const more = closed.length > 3 ? ` and ${closed.length - 3} more like them` : "";
    return closed.slice(0, 3).join(", ") + more;
  }

  #fill({ hostId, spec }: Pick<InstanceRecord, "hostId" | "spec">, sign: 1 | -1): void {
    const position = this.#positions.get(hostId);
    if (position === undefined) return;
    this.#freeCpu[position]! -= sign * (spec.resources.cpu ?? 0);
    this.#freeMemory[position]! -= sign * (spec.resources.memoryBytes ?? 0);
    this.#instances[position]! += sign;
  }

  #count(copies: Map<number, number>, hostId: string, sign: 1 | -1): void {
    const position = this.#positions.get(hostId);
    if (position === undefined) return;
    const left = (copies.get(position) ?? 0) + sign;
    if (left > 0) copies.set(position, left);
    else copies.delete(position);
  }
}

export interface PlacementRules {
  /** The host that has the service's volume: there or nowhere. */
  readonly onlyHost?: string | undefined;
  /** Why this host cannot take it, like a failed build; undefined: it can. */
  readonly refusal?: ((hostId: string) => string | undefined) | undefined;
}

export type Placement =
  | { readonly kind: "placed"; readonly hostId: string }
  /** Plain words, to be shown. */
  | { readonly kind: "impossible"; readonly reason: string };

/**
 * Chooses a host for one more instance of `spec`: the fewest copies of the service first (spread), then the fullest
 * that still has room (bin packing), or the emptiest where no resources are asked for. Up to SAMPLE_SIZE hosts it
 * looks at all; beyond, at a random sample, and at all only if none of the sample will do: the best of a few dozen
 * drawn at random is nearly as good (Mitzenmacher's power of choices) and the cost stays flat.
 */
export function placeInstance(
  hosts: HostIndex,
  spec: RunSpec,
  random: Random,
  rules: PlacementRules = {},
): Placement {
  if (rules.onlyHost !== undefined) return placeAt(hosts, spec, rules.onlyHost, rules);
  const { open } = hosts;
  if (open.length === 0) {
    const reason =
      hosts.hosts.length === 0
        ? "no host has joined"
        : `no host takes new instances: ${hosts.closedReasons()}`;
    return { kind: "impossible", reason };
  }
  const start = Math.floor(random() * open.length);
  const sample =
    open.length <= SAMPLE_SIZE
      ? rotated(open, start)
      : Array.from({ length: SAMPLE_SIZE }, () => open[Math.floor(random() * open.length)] ?? 0);
  const best = bestOf(hosts, spec, sample, rules) ?? bestOf(hosts, spec, rotated(open, start), rules);
  const host = best === undefined ? undefined : hosts.hosts[best];
  if (host !== undefined) return { kind: "placed", hostId: host.id };
  return { kind: "impossible", reason: whyNowhere(hosts, spec, rules) };
}

function placeAt(hosts: HostIndex, spec: RunSpec, hostId: string, rules: PlacementRules): Placement {
  const has = `its volume ${spec.volume ?? ""} is on host ${hostId}`;
  const position = hosts.position(hostId);
  if (position === undefined) return { kind: "impossible", reason: `${has}, which is not known now` };
  if (!hosts.open.includes(position)) {
    const draining = hosts.hosts[position]?.draining === true;
    return { kind: "impossible", reason: `${has}, which is ${draining ? "draining" : "silent"}` };
  }
  if (bestOf(hosts, spec, [position], rules) !== undefined) return { kind: "placed", hostId };
  const refusal = rules.refusal?.(hostId);
  return { kind: "impossible", reason: `${has}: ${refusal ?? roomWords(hosts, spec, position)}` };
}

function bestOf(
  hosts: HostIndex,
  spec: RunSpec,
  positions: readonly number[],
  { refusal }: PlacementRules,
): number | undefined {
  const cpu = spec.resources.cpu ?? 0;
  const memoryBytes = spec.resources.memoryBytes ?? 0;
  const packs = cpu > 0 || memoryBytes > 0;
  const copies = hosts.copies(spec);
  let best: number | undefined;
  let bestCopies = Infinity;
  let bestScore = -Infinity;
  for (const position of positions) {
    const here = copies.get(position) ?? 0;
    if (here > bestCopies || !hosts.fits(position, cpu, memoryBytes)) continue;
    const score = packs ? hosts.fullness(position) : -hosts.free(position).instances;
    if (here === bestCopies && score <= bestScore) continue;
    if (refusal?.(hosts.hosts[position]?.id ?? "") !== undefined) continue;
    best = position;
    bestCopies = here;
    bestScore = score;
  }
  return best;
}

function whyNowhere(hosts: HostIndex, spec: RunSpec, { refusal }: PlacementRules): string {
  const cpu = spec.resources.cpu ?? 0;
  const memoryBytes = spec.resources.memoryBytes ?? 0;
  const roomy = hosts.open.filter((position) => hosts.fits(position, cpu, memoryBytes));
  for (const position of roomy) {
    const reason = refusal?.(hosts.hosts[position]?.id ?? "");
    if (reason !== undefined) return reason;
  }
  const emptiest = hosts.open.reduce((a, b) =>
    hosts.free(b).memoryBytes > hosts.free(a).memoryBytes ? b : a,
  );
  return `no host has room: ${roomWords(hosts, spec, emptiest)}`;
}

function roomWords(hosts: HostIndex, spec: RunSpec, position: number): string {
  const { cpu = 0, memoryBytes = 0 } = spec.resources;
  const free = hosts.free(position);
  const has = `${Math.max(0, Math.round(free.cpu * 100) / 100)} cpu and ${formatBytes(Math.max(0, free.memoryBytes))}`;
  return `${cpu} cpu and ${formatBytes(memoryBytes)} are asked for, host ${hosts.hosts[position]?.id ?? ""} has ${has} left`;
}

function rotated(positions: readonly number[], start: number): readonly number[] {
  return start === 0 ? positions : [...positions.slice(start), ...positions.slice(0, start)];
}

const SAMPLE_SIZE = 32;
/** Sums of fractions of a core, like ten times 0.1, must still fill the host. */
const ROUNDING = 1e-9;
