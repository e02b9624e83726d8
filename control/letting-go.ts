import { formatDuration } from "../base/units.ts";
import { addressOf } from "./facts.ts";
import type { InstanceRecord, ProxyState, World } from "./world.ts";

/**
 * What the proxies know of an instance. Together these hold the two promises of a change: a new instance counts only
 * when every proxy that should call it has acknowledged it, and an old one is stopped only when none can call it.
 */

/** Gone proxies are waited for no longer: they serve what they have, and their calls to stopped instances are retried. */
export function liveProxies({ nowMs, proxies, settings }: World): ProxyState[] {
  return proxies.filter((proxy) => nowMs - proxy.lastSeenMs < settings.proxyGoneMs);
}

/**
 * Live proxies that should have the endpoint and cannot be counted on to: they have not acknowledged it, or were sent
 * a configuration without it since. Empty: it is in traffic, as far as it is called at all.
 */
export function proxiesWithout(instanceId: string, live: readonly ProxyState[]): ProxyState[] {
  return live.filter(
    ({ wantedEndpoints, acknowledgedEndpoints, sentEndpoints }) =>
      wantedEndpoints.has(instanceId) &&
      (acknowledgedEndpoints?.has(instanceId) !== true || sentEndpoints?.has(instanceId) === false),
  );
}

/**
 * False while proxies are known, or must be feared, of which nobody can say what they have: those that have neither
 * acknowledged nor refused anything since control started; and in its first moments those that may not have called yet,
 * unless each host with instances (who else could call?) has a sidecar that did, and there is an edge.
 */
function everyProxyHeard(world: World): boolean {
  const isHeard = (proxy: ProxyState) =>
    proxy.acknowledgedEndpoints !== undefined || proxy.refused !== undefined;
  if (!liveProxies(world).every(isHeard)) return false;
  if (world.nowMs - world.startedAtMs >= world.settings.proxyGoneMs) return true;
  const heard = world.proxies.filter(isHeard);
  if (!heard.some((proxy) => proxy.kind === "edge")) return false;
  const sidecars = new Set(heard.filter((proxy) => proxy.kind === "sidecar").map((proxy) => proxy.hostId));
  return world.instances.every((record) => sidecars.has(record.hostId));
}

/** Whether this proxy may send a request to the instance now or in a moment, or still has one in flight. */
export function mayCall(proxy: ProxyState, instanceId: string): boolean {
  return (
    proxy.acknowledgedEndpoints === undefined ||
    proxy.acknowledgedEndpoints.has(instanceId) ||
    proxy.sentEndpoints?.has(instanceId) === true ||
    proxy.wantedEndpoints.has(instanceId) ||
    proxy.busy[instanceId] !== undefined
  );
}

export type LettingGo =
  | { readonly kind: "waiting"; readonly reason: string }
  /** `receipt` names every proxy, its epoch and what it had in flight. */
  | { readonly kind: "done"; readonly receipt: string };

/** Answers about one world; what holds for every instance is worked out once. */
export class Proxies {
  readonly live: readonly ProxyState[];
  readonly #world: World;
  readonly #complete: boolean;
  #called: ReadonlySet<string> | undefined;

  constructor(world: World) {
    this.#world = world;
    this.live = liveProxies(world);
    this.#complete = everyProxyHeard(world);
  }

  /** Whether every live proxy that should call the instance can; proves nothing until all are `heard`. */
  haveTakenUp(record: InstanceRecord): boolean {
    if (proxiesWithout(record.id, this.live).length > 0) return false;
    if (addressOf(record) === undefined || this.live.some((proxy) => proxy.wantedEndpoints.has(record.id))) {
      return true;
    }
    // In no configuration: either nobody calls the service, or the feed has not heard of this one yet.
    this.#called ??= calledServices(this.#world, this.live);
    return !this.#called.has(serviceKey(record));
  }

  /** False while there may be proxies that have not reported since control started. */
  get heard(): boolean {
    return this.#complete;
  }

  /**
   * Whether a draining instance may be stopped. The drain timeout counts from the start of this control process if
   * that is later: while there was no control, nobody told the proxies to let go.
   */
  haveLetGo(record: InstanceRecord): LettingGo {
    const { nowMs, startedAtMs, settings } = this.#world;
    const drainingMs = nowMs - Math.max(record.drainSinceMs ?? nowMs, startedAtMs);
    const holding = this.live.filter((proxy) => mayCall(proxy, record.id));
    if (this.#complete && holding.length === 0) return { kind: "done", receipt: this.#receipt(record, "") };
    if (drainingMs >= settings.drainMsMax) {
      const limit = `The drain timeout of ${formatDuration(settings.drainMsMax)} passed. `;
      return { kind: "done", receipt: this.#receipt(record, limit) };
    }
    const reason = this.#complete
      ? `waits for ${names(holding)} to let go of it`
      : `waits for proxies that may not have reconnected since control started`;
    return { kind: "waiting", reason };
  }

  #receipt(record: InstanceRecord, limit: string): string {
    const { nowMs, proxies } = this.#world;
    const words = (proxy: ProxyState) => {
      const inFlight = `${proxy.busy[record.id] ?? 0} in flight`;
      if (!mayCall(proxy, record.id)) return `${proxy.id} let go at epoch ${proxy.epoch}, ${inFlight}`;
      if (proxy.refused !== undefined) {
        return `${proxy.id} still at epoch ${proxy.epoch}, refused ${proxy.refused.epoch}: ${proxy.refused.reason}`;
      }
      return `${proxy.id} still at epoch ${proxy.epoch} of ${proxy.wantedEpoch}, ${inFlight}`;
    };
    // Those that held it to the end come first: they are what somebody looks for.
    const ordered = this.live.toSorted(
      (a, b) => Number(mayCall(b, record.id)) - Number(mayCall(a, record.id)),
    );
    const gone = proxies
      .filter((proxy) => !this.live.includes(proxy) && mayCall(proxy, record.id))
      .map((proxy) => `${proxy.id} not waited for, silent for ${formatDuration(nowMs - proxy.lastSeenMs)}`);
    const lines = [...ordered.map(words), ...gone];
    const shown = lines.slice(0, LINES_MAX);
    const more = lines.length > LINES_MAX ? `; and ${lines.length - LINES_MAX} more` : "";
    const after = formatDuration(nowMs - (record.drainSinceMs ?? nowMs));
    return `${limit}Drained for ${after}: ${shown.length === 0 ? "no proxy could call it" : shown.join("; ")}${more}.`;
  }
}

/** Services of which some proxy is to have an endpoint. */
function calledServices(world: World, live: readonly ProxyState[]): Set<string> {
  // Proxies of one scope share their set of endpoints.
  const configurations = new Set(live.map((proxy) => proxy.wantedEndpoints));
  const called = new Set<string>();
  for (const record of world.instances) {
    const key = serviceKey(record);
    if (called.has(key)) continue;
    for (const endpoints of configurations) if (endpoints.has(record.id)) called.add(key);
  }
  return called;
}

function serviceKey({ service, formation }: InstanceRecord): string {
  return `${service}.${formation}`;
}

/** A receipt is for people; beyond this many proxies it only counts. */
const LINES_MAX = 50;

/** "edge-1, sidecar-a and 3 more". */
export function names(proxies: readonly ProxyState[]): string {
  const shown = proxies.slice(0, 3).map((proxy) => proxy.id);
  return proxies.length > 3 ? `${shown.join(", ")} and ${proxies.length - 3} more` : shown.join(", ");
}
