import type { CatalogNode, CatalogService } from "../catalog.ts";
import type { ConsulClient } from "./consul-client.ts";

interface NodeItem {
  readonly Node: string;
  readonly Address: string;
  readonly Meta: Readonly<Record<string, string>> | null;
}
interface ServiceItem {
  readonly ID: string;
  readonly Service: string;
  readonly Tags: readonly string[] | null;
  readonly Address: string;
  readonly Port: number;
  readonly Meta: Readonly<Record<string, string>> | null;
}
interface CheckItem {
  readonly ServiceID: string;
  readonly Status: string;
  readonly Output: string;
}

/** As text, for comparing: what is wanted of a service, or what Consul has. */
type Known = Map<string, { address: string; services: Map<string, string> }>;

export interface CatalogResult {
  readonly registered: number;
  readonly deregistered: number;
}

/**
 * Keeps Consul's catalog as Gilliam's hosts and instances are. They are registered as services of external nodes, one a
 * host, and not with an agent: an agent's registrations can only be removed through that very agent, so those of a dead
 * or changed one would stay as ghosts; these any control can put right.
 */
export class ConsulCatalog {
  readonly #client: ConsulClient;
  readonly #prefix: string;
  #known: Known | undefined;

  constructor(client: ConsulClient, prefix: string) {
    this.#client = client;
    this.#prefix = prefix;
  }

  /** What Consul has is read anew with the next `sync`, whatever was written since. */
  forget(): void {
    this.#known = undefined;
  }

  /**
   * Writes what differs. What is there and not wanted goes only if `mayGo` says so: that a control knows nothing of an
   * instance does not mean that there is none.
   * @throws ConsulError; then some of it may be written, and the next call goes on
   */
  async sync(
    wanted: readonly CatalogNode[],
    mayGo: (hostId: string, serviceId: string) => boolean,
  ): Promise<CatalogResult> {
    this.#known ??= await this.#read();
    const known = this.#known;
    let registered = 0;
    let deregistered = 0;
    try {
      for (const node of wanted) {
        for (const service of node.services) {
          const text = textOf(service);
          const there = known.get(node.hostId);
          if (there?.address === node.address && there.services.get(service.id) === text) continue;
          await this.#register(node, service);
          registered += 1;
          const services = there?.services ?? new Map<string, string>();
          known.set(node.hostId, { address: node.address, services: services.set(service.id, text) });
        }
      }
      for (const [hostId, { services }] of known) {
        const kept = new Set(wanted.find((node) => node.hostId === hostId)?.services.map(({ id }) => id));
        for (const id of services.keys()) {
          if (kept.has(id) || !mayGo(hostId, id)) continue;
          await this.#deregister(hostId, id);
          deregistered += 1;
          services.delete(id);
        }
        if (services.size > 0 || kept.size > 0 || !mayGo(hostId, "")) continue;
        await this.#deregister(hostId);
        known.delete(hostId);
      }
    } catch (error) {
      this.#known = undefined;
      throw error;
    }
    return { registered, deregistered };
  }

  async #read(): Promise<Known> {
    const known: Known = new Map();
    const query = { "node-meta": `gilliam:${this.#prefix}`, consistent: "" };
    const nodes = await this.#client.call<NodeItem[] | null>("GET", "/catalog/nodes", { query });
    for (const { Node, Address } of nodes.body ?? []) {
      const path = encodeURIComponent(Node);
      const [node, checks] = await Promise.all([
        this.#client.call<{ Services: Record<string, ServiceItem> } | null>("GET", `/catalog/node/${path}`, {
          query: { consistent: "" },
        }),
        this.#client.call<CheckItem[] | null>("GET", `/health/node/${path}`, { query: { consistent: "" } }),
      ]);
      const health = new Map((checks.body ?? []).map((check) => [check.ServiceID, check]));
      const services = Object.values(node.body?.Services ?? {}).map((item): [string, string] => {
        const check = health.get(item.ID);
        const service: CatalogService = {
          id: item.ID,
          name: item.Service,
          address: item.Address,
          port: item.Port,
          tags: item.Tags ?? [],
          meta: item.Meta ?? {},
          status: (check?.Status ?? "none") as CatalogService["status"],
          output: check?.Output ?? "",
        };
        return [item.ID, textOf(service)];
      });
      known.set(this.#hostOf(Node), { address: Address, services: new Map(services) });
    }
    return known;
  }

  async #register(node: CatalogNode, service: CatalogService): Promise<void> {
    const Node = this.#nodeOf(node.hostId);
    await this.#client.call("PUT", "/catalog/register", {
      body: {
        Node,
        Address: node.address,
        NodeMeta: { gilliam: this.#prefix, "external-node": "true", "external-probe": "false" },
        Service: {
          ID: service.id,
          Service: service.name,
          Address: service.address,
          Port: service.port,
          Tags: service.tags,
          Meta: service.meta,
        },
        Check: {
          Node,
          CheckID: `gilliam:${service.id}`,
          Name: "As Gilliam sees it",
          ServiceID: service.id,
          Status: service.status,
          Output: service.output,
        },
      },
    });
  }

  async #deregister(hostId: string, serviceId?: string): Promise<void> {
    await this.#client.call("PUT", "/catalog/deregister", {
      body: { Node: this.#nodeOf(hostId), ...(serviceId === undefined ? {} : { ServiceID: serviceId }) },
    });
  }

  #nodeOf(hostId: string): string {
    return `${this.#prefix}-${hostId}`;
  }

  #hostOf(node: string): string {
    return node.slice(this.#prefix.length + 1);
  }
}

/** The same for the same content, in whatever order it came. */
function textOf({ id, name, address, port, tags, meta, status, output }: CatalogService): string {
  const pairs = Object.entries(meta).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([id, name, address, port, tags.toSorted(), pairs, status, output]);
}
