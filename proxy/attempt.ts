import type { Admission } from "./admission.ts";
import { Lease } from "./balancer.ts";
import type { EndpointState } from "./cluster.ts";
import type { Exchange } from "./exchange.ts";
import type { FailureCode } from "./failure.ts";
import type { RequestHead } from "./http1/request-head.ts";
import type { ResponseHead } from "./http1/response-head.ts";
import { Http1Upstream } from "./http1/upstream.ts";
import { Http2Upstream } from "./http2/upstream.ts";
import type { SwitchedUpstream, Upstream, UpstreamUser } from "./sides.ts";

/**
 * One try of an exchange at one endpoint: the place it takes there, and the connection or stream that serves it. An
 * exchange has one and fills it again for every further try; a second one only to hedge. What happens to it is for the
 * exchange to judge.
 */
export class Attempt implements UpstreamUser {
  /** Where the last try went; undefined before the first. */
  endpoint: EndpointState | undefined;
  readonly #lease = new Lease();
  readonly #exchange: Exchange;
  #upstream: Upstream | undefined;
  /** Where it counts as waiting for its answer. */
  #admission: Admission | undefined;
  #sent = false;
  #sentMs = 0;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  get request(): RequestHead {
    return this.#exchange.request;
  }

  get requestComplete(): boolean {
    return this.#exchange.requestComplete;
  }

  /** It has a connection, or waits for one. */
  get open(): boolean {
    return this.#upstream !== undefined;
  }

  /**
   * Claims the endpoint first, so that a drain never races a pick; then a connection. True when it is there already;
   * else `exchange.onAttemptReady` or `onAttemptFailed` follows. `freshOnly`: not one that has been idle.
   */
  begin(endpoint: EndpointState, freshOnly: boolean): boolean {
    const { context } = this.#exchange;
    this.endpoint = endpoint;
    this.#sent = false;
    this.#lease.take(endpoint);
    const { admission } = endpoint.cluster;
    if (admission !== undefined) {
      admission.enter();
      this.#admission = admission;
    }
    if (endpoint.cluster.speaksHttp2) {
      const stream = Http2Upstream.open(endpoint, context, this);
      this.#upstream = stream;
      return stream.ready;
    }
    const idle = freshOnly ? undefined : Http1Upstream.takeIdle(endpoint, context, this);
    if (idle === undefined) {
      this.#upstream = Http1Upstream.connect(endpoint, context, this);
      return false;
    }
    idle.serve(this);
    this.#upstream = idle;
    return true;
  }

  /** Sends the request's head with the lines of this hop, and what there is of its body. False: wait for `onDrain`. */
  send(
    hopFields: string,
    requestId: string,
    bytes: Buffer,
    from: number,
    to: number,
    nowMs: number,
  ): boolean {
    this.#sent = true;
    this.#sentMs = nowMs;
    const { hostField, cluster } = this.endpoint!;
    let host = hostField === "" ? this.request.host : hostField;
    if (host === "") host = cluster.name;
    return this.#upstream!.send(host, hopFields, requestId, bytes, from, to, this.requestComplete);
  }

  sendData(bytes: Buffer, from: number, to: number, last: boolean): boolean {
    return this.#upstream!.sendData(bytes, from, to, last);
  }

  pause(): void {
    this.#upstream?.pause();
  }

  resume(): void {
    this.#upstream?.resume();
  }

  /** Gives up what is under way; the place at the endpoint stays taken until `release`. */
  abandon(): void {
    const upstream = this.#upstream;
    this.#upstream = undefined;
    upstream?.abandon();
    if (this.#admission !== undefined) this.#leave(undefined);
  }

  /** The response came to its end, or is wanted no more from this connection, which is free already. */
  letGo(): void {
    this.#upstream = undefined;
  }

  /** Gives the place at the endpoint back. */
  release(): void {
    this.#lease[Symbol.dispose]();
    const cluster = this.endpoint?.cluster;
    if (cluster !== undefined && cluster.policy.inFlightPerEndpointMax !== 0) this.#makeRoom();
  }

  /** It took too long: what is learned from it is that the cluster has too much to do, and the endpoint is slow. */
  noteLate(): void {
    this.noteOutrun();
    if (this.#admission !== undefined) this.#leave(true);
  }

  /** Given up unanswered: it would have taken at least so long. */
  noteOutrun(): void {
    if (!this.#sent || this.endpoint!.cluster.policy.balancing !== "ewma") return;
    this.endpoint!.ewma.observeAtLeast(this.#tookMs(), this.#exchange.context.clock.nowMs());
  }

  onUpstreamReady(): void {
    this.#exchange.onAttemptReady(this);
  }

  onUpstreamDrained(): void {
    this.#exchange.onUpstreamDrained();
  }

  onInterim(head: ResponseHead): void {
    this.#exchange.onInterim(this, head);
  }

  onResponse(head: ResponseHead, bytes: Buffer, from: number, to: number, last: boolean): void {
    const { hedge, balancing } = this.endpoint!.cluster.policy;
    if (hedge !== undefined) this.endpoint!.cluster.latency.add(this.#tookMs());
    if (balancing === "ewma")
      this.endpoint!.ewma.observe(this.#tookMs(), this.#exchange.context.clock.nowMs());
    if (this.#admission !== undefined) this.#leave(head.status === 503 || head.status === 429);
    this.#exchange.onResponse(this, head, bytes, from, to, last);
  }

  onResponseData(bytes: Buffer, from: number, to: number, last: boolean): void {
    this.#exchange.onResponseData(bytes, from, to, last);
  }

  onResponseTrailers(fields: readonly string[]): void {
    this.#exchange.onResponseTrailers(fields);
  }

  onUpgraded(head: ResponseHead, upstream: SwitchedUpstream, early: Buffer): void {
    this.#upstream = undefined;
    if (this.#admission !== undefined) this.#leave(false);
    this.#exchange.onUpgraded(this, head, upstream, early);
  }

  onUpstreamFailed(code: FailureCode, what: string, sent: boolean, stale: boolean): void {
    this.#upstream = undefined;
    if (this.#admission !== undefined) this.#leave(stale ? undefined : true);
    this.#exchange.onAttemptFailed(this, code, what, sent, stale);
  }

  #tookMs(): number {
    return this.#exchange.context.clock.nowMs() - this.#sentMs;
  }

  /** Waits for its answer no more. `dropped` as in `Admission.leave`. */
  #leave(dropped: boolean | undefined): void {
    const admission = this.#admission!;
    this.#admission = undefined;
    admission.leave(this.#exchange.context.clock.nowMs(), this.#tookMs(), dropped);
    this.#makeRoom();
  }

  #makeRoom(): void {
    const { mesh } = this.#exchange.context;
    const { name } = this.endpoint!.cluster;
    if (mesh.someoneWaits(name)) mesh.wake(name);
  }
}
