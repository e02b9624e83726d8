import type { Clock } from "../base/clock.ts";
import { formatDuration } from "../base/units.ts";
import type { FeedMessage, MeshConfig, ProxyReport } from "../model/mesh.ts";
import { everyHostHeard } from "./facts.ts";
import { Follower, type FollowerIdentity } from "./follower.ts";
import { TrafficRates, type EdgeRate } from "./graph.ts";
import { liveProxies, mayCall, proxiesWithout } from "./letting-go.ts";
import { buildMesh, scopeOf, type Mesh } from "./mesh.ts";
import type { ProxyState, World } from "./world.ts";

/**
 * Tells every proxy its part of the mesh and keeps what each has acknowledged. A proxy has at most one unanswered
 * configuration: changes that come meanwhile are sent together, as one difference, once it has answered. Proxies with
 * the same scope share one configuration, and all configurations share the mesh's items.
 */
export class FeedHub {
  readonly #clock: Clock;
  readonly #followers = new Map<string, Follower>();
  readonly #rates = new TrafficRates();
  /** The newest configuration of each scope, by what selects it. */
  #scopes = new Map<string, MeshConfig>();
  #epoch = 0;
  #mesh: Mesh | undefined;
  #world: World | undefined;

  /** `epoch`: numbers up to here may have been given out by an earlier control. */
  constructor({ clock, epoch = 0 }: { clock: Clock; epoch?: number }) {
    this.#clock = clock;
    this.#epoch = epoch;
  }

  /** The newest; a proxy that nothing newer concerns stays at an older one. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Undefined until the first update that could tell. */
  get mesh(): Mesh | undefined {
    return this.#mesh;
  }

  /** A proxy known from before this control started: waited for until it reports or is gone for good. */
  expect(identity: FollowerIdentity): void {
    this.#follower(identity);
  }

  /**
   * A proxy opened its stream and is at `epoch`. It is sent what it lacks: nothing, the difference, or, if that epoch
   * was not made here for it, the whole. A newer stream of the same proxy replaces the older one.
   */
  connect(proxy: FollowerIdentity & { epoch: number }, send: (message: FeedMessage) => void): Disposable {
    const follower = this.#follower(proxy);
    // Epochs must grow for the proxy too, whatever an earlier control has numbered.
    this.#epoch = Math.max(this.#epoch, proxy.epoch);
    follower.connect(proxy.epoch, send, this.#clock.wallMs());
    this.#target(follower);
    follower.settle();
    return { [Symbol.dispose]: () => follower.disconnect(send) };
  }

  /** What a proxy says of itself; from any proxy, connected or not. */
  report(proxyId: string, report: ProxyReport, wallMs: number): void {
    const follower = this.#follower({ id: proxyId, kind: report.kind, hostId: report.hostId });
    this.#epoch = Math.max(this.#epoch, report.epoch, report.refused?.epoch ?? 0);
    follower.report(report, wallMs);
    this.#rates.record(proxyId, report.bootId, report.traffic, wallMs);
    this.#target(follower);
    follower.settle();
  }

  /**
   * Makes the mesh of `world` and sends every proxy what changed for it. After a start it first gives hosts silentMs to
   * say what they run: until then there is nothing better to tell than what proxies serve already.
   * @returns whether any configuration changed
   */
  update(world: World): boolean {
    this.#world = world;
    const { nowMs, startedAtMs, settings } = world;
    if (this.#mesh === undefined && !everyHostHeard(world) && nowMs - startedAtMs < settings.silentMs) {
      return false;
    }
    this.#mesh = buildMesh(world, this.#mesh);
    this.#prune();
    const before = this.#scopes;
    this.#scopes = new Map();
    let changed = false;
    const epoch = this.#epoch + 1;
    for (const follower of this.#followers.values()) {
      const key = this.#scopeKey(follower.identity);
      if (!this.#scopes.has(key)) {
        const config = this.#configOf(follower.identity, before.get(key), epoch);
        changed ||= config.epoch === epoch;
        this.#scopes.set(key, config);
      }
    }
    if (changed) this.#epoch = epoch;
    for (const follower of this.#followers.values()) {
      this.#target(follower);
      follower.settle();
    }
    return changed;
  }

  /** `alive` to each proxy that was sent nothing since the last call. */
  beat(): void {
    for (const follower of this.#followers.values()) follower.beat();
  }

  proxies(): ProxyState[] {
    return [...this.#followers.values()].map((follower) => follower.state());
  }

  /** Whether every live proxy that should have the instance has acknowledged it, and one at least does. */
  inTraffic(instanceId: string): boolean {
    const live = this.#live();
    return (
      proxiesWithout(instanceId, live).length === 0 &&
      live.some((proxy) => proxy.acknowledgedEndpoints?.has(instanceId) === true)
    );
  }

  /** Whether no live proxy can call the instance or has a request in flight to it. */
  released(instanceId: string): boolean {
    return this.#live().every((proxy) => !mayCall(proxy, instanceId));
  }

  /** Rates over the last ten seconds. */
  traffic(): EdgeRate[] {
    return this.#rates.rates(this.#clock.wallMs());
  }

  /** Plain sentences on proxies that refuse, are silent, or eject; and on what the mesh leaves out. */
  alarms(): string[] {
    const nowMs = this.#clock.wallMs();
    const settings = this.#world?.settings;
    const alarms: string[] = [];
    for (const { id, refused, lastSeenMs, ejected } of this.proxies()) {
      if (refused !== undefined) {
        alarms.push(`${id} refused epoch ${refused.epoch} and serves the one before: ${refused.reason}`);
      }
      if (settings !== undefined && nowMs - lastSeenMs > settings.silentMs) {
        alarms.push(
          `${id} has been silent for ${formatDuration(nowMs - lastSeenMs)}: it serves what it last had`,
        );
      }
      for (const [endpoint, reason] of Object.entries(ejected)) {
        alarms.push(`${id} sends nothing to ${endpoint} for now: ${reason}`);
      }
    }
    return [...alarms, ...(this.#mesh?.problems ?? [])];
  }

  #live(): ProxyState[] {
    const world = this.#world;
    if (world === undefined) return this.proxies();
    return liveProxies({ ...world, nowMs: this.#clock.wallMs(), proxies: this.proxies() });
  }

  #follower(identity: FollowerIdentity): Follower {
    let follower = this.#followers.get(identity.id);
    if (follower === undefined) {
      follower = new Follower(identity, this.#clock.wallMs());
      this.#followers.set(identity.id, follower);
    }
    follower.identity = { id: identity.id, kind: identity.kind, hostId: identity.hostId };
    return follower;
  }

  /** Gives a follower the configuration of its scope, under a number it has not passed yet. */
  #target(follower: Follower): void {
    if (this.#mesh === undefined) return;
    const key = this.#scopeKey(follower.identity);
    let config = this.#scopes.get(key);
    if (config === undefined) {
      config = this.#configOf(follower.identity, undefined, this.#epoch + 1);
      this.#epoch = config.epoch;
      this.#scopes.set(key, config);
    }
    if (follower.wants(config) && !follower.retries) return;
    if (follower.accepts(config) && !follower.retries) follower.want(config);
    else follower.want({ ...config, epoch: ++this.#epoch });
  }

  #configOf(identity: FollowerIdentity, before: MeshConfig | undefined, epoch: number): MeshConfig {
    const scope = this.#mesh === undefined ? NOTHING : scopeOf(this.#mesh, identity);
    const same =
      before !== undefined &&
      sameReferences(before.clusters, scope.clusters) &&
      sameReferences(before.edges, scope.edges) &&
      sameReferences(before.routes, scope.routes);
    return same ? before : { epoch, ...scope };
  }

  #scopeKey({ kind, hostId }: FollowerIdentity): string {
    return kind === "edge" ? "edge" : (this.#mesh?.servicesByHost.get(hostId) ?? []).join(" ");
  }

  /** Drops proxies nobody has heard of for so long that no person looks for them in a list. */
  #prune(): void {
    const nowMs = this.#clock.wallMs();
    for (const [id, follower] of this.#followers) {
      if (follower.connected || nowMs - follower.lastSeenMs < FORGET_MS) continue;
      this.#followers.delete(id);
      this.#rates.forget(id);
    }
  }
}

const FORGET_MS = 600_000;
const NOTHING = { clusters: [], edges: [], routes: [] };

function sameReferences(a: readonly object[], b: readonly object[]): boolean {
  return a.length === b.length && a.every((item, index) => item === b[index]);
}
