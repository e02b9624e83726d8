import type { Random } from "../base/random.ts";
import type { Binding } from "./binding.ts";
import type { Priority } from "./call-fields.ts";
import type { ClusterState, EndpointState } from "./cluster.ts";
import type { FailureCode } from "./failure.ts";
import { hashKeyOf } from "./hash-key.ts";
import type { RequestHead } from "./http1/request-head.ts";
import type { Mesh } from "./mesh.ts";
import { stickyCookie, stickyRelease } from "./sticky.ts";

/** Which endpoint one request goes to, and to which next if that fails. One an exchange, filled again. */
export class Choice {
  /** Looked up again for every try: the configuration may have changed. */
  cluster: ClusterState | undefined;
  /** Why there was no endpoint the last time. */
  missing: FailureCode = "no_cluster";
  /** A line for the response: keeps the client on the release it was sent to. */
  setCookie = "";
  /** The release that the split has dealt to this request; -1: not yet. */
  #release = -1;

  reset(): void {
    this.cluster = undefined;
    this.setCookie = "";
    this.#release = -1;
  }

  /** The cluster as it is configured now. True when it is another one than before. */
  enter(mesh: Mesh, name: string): boolean {
    const cluster = mesh.clusters.get(name);
    if (this.cluster === cluster) return false;
    this.cluster = cluster;
    return true;
  }

  /** The endpoint for the next try, not `avoid` if there is another; undefined, and `missing`, when there is none now. */
  next(
    binding: Binding,
    request: RequestHead,
    avoid: EndpointState | undefined,
    priority: Priority,
    random: Random,
    peerAddress: string,
  ): EndpointState | undefined {
    const { cluster } = this;
    if (cluster === undefined) return this.#none("no_cluster");
    if (cluster.pause !== undefined)
      return this.#none(cluster.pause.kind === "hold" ? "held" : "maintenance");
    if (cluster.endpoints.size === 0) return this.#none("no_endpoint");
    if (cluster.admission !== undefined && !cluster.admission.admits(priority))
      return this.#none("overloaded");
    const sticky = cluster.sticky !== undefined && cluster.shares.length > 0;
    if (sticky && this.#release < 0) {
      this.#release = stickyRelease(cluster.sticky, cluster.shares, request);
    }
    const stuckTo = this.#release;
    const { hash } = cluster.policy;
    const key = hash === undefined ? undefined : hashKeyOf(hash, request, peerAddress);
    const endpoint = cluster.choose(binding.split, stuckTo < 0 ? undefined : stuckTo, avoid, random, key);
    if (endpoint === undefined) return this.#none("overloaded");
    this.#release = endpoint.release;
    if (sticky && endpoint.release !== stuckTo) {
      this.setCookie = stickyCookie(cluster.sticky, endpoint.release);
    }
    return endpoint;
  }

  #none(code: FailureCode): undefined {
    this.missing = code;
  }
}
