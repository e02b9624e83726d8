import { Lease } from "./balancer.ts";
import type { Client } from "./client.ts";
import type { ClusterState, EndpointState } from "./cluster.ts";
import type { Timed } from "./deadlines.ts";
import { type FailureCode } from "./failure.ts";
import { tellAccess } from "./finish.ts";
import type { Connection, Listener } from "./listener.ts";
import type { Waiter } from "./mesh.ts";
import { Tunnel } from "./tunnel.ts";
import { Wire, type WireUser } from "./wire.ts";

/** waiting ⇄ connecting → open → over */
const STATE = { waiting: 0, connecting: 1, open: 2, over: 3 } as const;
type State = (typeof STATE)[keyof typeof STATE];

/**
 * One TCP connection through a local port. Nothing is read from the client before an endpoint has accepted, so
 * another endpoint can be tried as long as connecting fails.
 */
export class TcpSession implements WireUser, Connection, Timed, Waiter {
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  readonly #listener: Listener;
  readonly #who: Client;
  readonly #client: Wire;
  readonly #lease = new Lease();
  readonly #startedMs: number;
  #state: State = STATE.waiting;
  #endpoint: EndpointState | undefined;
  #cluster: ClusterState | undefined;
  #upstream: Wire | undefined;
  #dialer: Dialer | undefined;
  #tunnel: Tunnel | undefined;
  #dueMs = Infinity;
  #retries = 0;
  #release = -1;
  #waitCode: FailureCode = "no_cluster";
  #clientEnded = false;

  constructor(handle: unknown, listener: Listener, client: Client) {
    this.#listener = listener;
    this.#who = client;
    this.#startedMs = listener.context.clock.nowMs();
    this.#client = Wire.accept(handle, this, listener.context.onFault);
    this.#client.pause();
    listener.context.stats.inFlight += 1;
  }

  get idle(): boolean {
    return false;
  }

  begin(): void {
    this.#dispatch();
  }

  /** A TCP connection has no end of a request to wait for: it ends at a quiet moment, or is cut. */
  retire(): void {
    this.#tunnel?.retire();
  }

  destroy(): void {
    if (this.#tunnel === undefined) this.#client.destroy();
    else this.#tunnel.cut();
  }

  retryNow(): boolean {
    return this.#dispatchNow();
  }

  onTick(nowMs: number): number {
    if (this.#state !== STATE.waiting && this.#state !== STATE.connecting) return Infinity;
    if (nowMs < this.#dueMs) return this.#dueMs;
    if (this.#state === STATE.waiting) this.#fail(this.#waitCode);
    else this.#onDialFailed("connect_timeout", "no connection in time");
    return this.#dueMs > nowMs ? this.#dueMs : Infinity;
  }

  onConnected(): void {}
  onBytes(): void {}
  onDrain(): void {}

  onEnd(): void {
    this.#clientEnded = true;
  }

  onClosed(): void {
    this.#over(this.#state === STATE.over ? "" : "client_gone");
  }

  #dispatch(): void {
    if (this.#dispatchNow()) return;
    const { mesh, limits, wheel, clock } = this.#listener.context;
    this.#state = STATE.waiting;
    if (!mesh.wait(this.#clusterName, this, this.#cluster?.policy.pendingMax ?? 1024))
      return this.#fail("overloaded");
    this.#dueMs = clock.nowMs() + limits.pendingTimeoutMs;
    wheel.watch(this, this.#dueMs);
  }

  #dispatchNow(): boolean {
    const { context } = this.#listener;
    const cluster = context.mesh.clusters.get(this.#clusterName);
    if (cluster !== this.#cluster) cluster?.budget.deposit();
    this.#cluster = cluster;
    if (cluster === undefined) return this.#notYet("no_cluster");
    if (cluster.endpoints.size === 0) return this.#notYet("no_endpoint");
    const release = this.#release < 0 ? undefined : this.#release;
    const endpoint = cluster.choose(this.#listener.binding!.split, release, this.#endpoint, context.random);
    if (endpoint === undefined) return this.#notYet("overloaded");
    this.#release = endpoint.release;
    this.#dial(endpoint, cluster);
    return true;
  }

  #dial(endpoint: EndpointState, cluster: ClusterState): void {
    const { context } = this.#listener;
    this.#endpoint = endpoint;
    this.#lease.take(endpoint);
    endpoint.connections += 1;
    context.stats.upstreamConnections += 1;
    this.#state = STATE.connecting;
    this.#dueMs = context.clock.nowMs() + cluster.policy.connectTimeoutMs;
    context.wheel.watch(this, this.#dueMs);
    const dialer: Dialer = new Dialer(
      () => this.#onDialed(dialer),
      (error) => {
        if (this.#dialer === dialer) this.#onDialFailed("connect_failed", error);
      },
    );
    this.#dialer = dialer;
    this.#upstream = Wire.dial(endpoint.host, endpoint.port, dialer, context.onFault);
    this.#upstream.pause();
  }

  #onDialed(dialer: Dialer): void {
    if (this.#dialer !== dialer) return;
    const { context } = this.#listener;
    const upstream = this.#upstream!;
    const endpoint = this.#endpoint!;
    this.#state = STATE.open;
    this.#dueMs = Infinity;
    this.#dialer = undefined;
    this.#cluster!.noteSuccess(endpoint, context.clock.nowMs());
    const { proxyProtocol } = endpoint;
    if (proxyProtocol !== undefined) upstream.writeText(this.#who.proxyHeader(proxyProtocol));
    const { idleTimeoutMs } = this.#cluster!.policy;
    this.#tunnel = new Tunnel(this.#client, upstream, context, idleTimeoutMs, () => {
      this.#releaseConnection();
      this.#over("");
    });
    if (this.#clientEnded) upstream.end();
    if (this.#listener.retiring) this.#tunnel.retire();
  }

  #onDialFailed(code: FailureCode, what: string): void {
    const { context } = this.#listener;
    const endpoint = this.#endpoint!;
    const cluster = this.#cluster!;
    this.#dropUpstream();
    cluster.noteFailure(endpoint, `${code}: ${what}`, context.clock.nowMs(), true);
    this.#lease[Symbol.dispose]();
    if (this.#retries < cluster.policy.retry.retriesMax && cluster.budget.withdraw()) {
      this.#retries += 1;
      this.#listener.binding!.stats(endpoint.release).retries += 1;
      this.#dispatch();
      return;
    }
    this.#fail(code);
  }

  #dropUpstream(): void {
    if (this.#dialer === undefined) return;
    this.#dialer = undefined;
    this.#upstream?.destroy();
    this.#upstream = undefined;
    this.#releaseConnection();
  }

  #releaseConnection(): void {
    this.#endpoint!.connections -= 1;
    this.#listener.context.stats.upstreamConnections -= 1;
    this.#listener.context.mesh.wake(this.#clusterName);
  }

  #notYet(code: FailureCode): false {
    this.#waitCode = code;
    return false;
  }

  get #clusterName(): string {
    return this.#listener.binding!.cluster;
  }

  /** TCP has no words for a refusal: the connection is reset, the log and the metrics say why. */
  #fail(reason: FailureCode): void {
    const { log, mesh } = this.#listener.context;
    log.debug({ code: reason, listener: this.#listener.id, epoch: mesh.epoch }, "TCP connection refused");
    this.#client.reset();
    this.#over(reason);
  }

  #over(reason: FailureCode | ""): void {
    if (this.#state === STATE.over) return;
    const { context, id, from, binding } = this.#listener;
    if (this.#state === STATE.waiting) context.mesh.stopWaiting(this.#clusterName, this);
    this.#state = STATE.over;
    this.#dropUpstream();
    this.#lease[Symbol.dispose]();
    context.wheel.forget(this);
    const durationMs = context.clock.nowMs() - this.#startedMs;
    context.stats.inFlight -= 1;
    binding!
      .stats(this.#endpoint?.release ?? 0)
      .count(0, reason !== "" && reason !== "client_gone", durationMs);
    if (reason !== "") context.stats.refused(reason);
    tellAccess(context, {
      listener: id,
      kind: "tcp",
      method: "",
      path: "",
      host: "",
      from,
      client: this.#who.address,
      cluster: this.#clusterName,
      endpoint: this.#endpoint?.id ?? "",
      release: this.#endpoint?.release ?? 0,
      status: 0,
      durationMs,
      bytesIn: this.#tunnel?.bytesIn ?? 0,
      bytesOut: this.#tunnel?.bytesOut ?? 0,
      retries: this.#retries,
      reason,
      requestId: "",
    });
    this.#listener.onConnectionClosed(this);
  }
}

/** The user of a wire until it is connected. */
class Dialer implements WireUser {
  readonly onConnected: () => void;
  readonly onClosed: (error: string) => void;

  constructor(onConnected: () => void, onClosed: (error: string) => void) {
    this.onConnected = onConnected;
    this.onClosed = onClosed;
  }

  onBytes(): void {}
  onEnd(): void {}
  onDrain(): void {}
}
