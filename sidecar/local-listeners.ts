import type { MeshConfig, Protocol } from "../model/mesh.ts";
import type { LocalPlan, SocketAddress } from "../proxy/agent/messages.ts";
import type { Engine, EngineListener } from "../proxy/engine.ts";

interface Target {
  readonly cluster: string;
  readonly protocol: Protocol;
}

interface Open extends Target {
  readonly plan: LocalPlan;
  readonly listener: EngineListener;
}

/**
 * The engine's local listeners, each kept at the cluster its declared edge names. The edge may come after the
 * listener (the instance's ports open before control has told about it); until then the dependency's own name
 * stands in, and the engine holds requests for a cluster it does not know yet.
 */
export class LocalListeners {
  readonly #engine: Pick<Engine, "listen">;
  /** Has a handle sent once more; it comes back through `listen`. */
  readonly #again: (id: string) => void;
  readonly #open = new Map<string, Open>();
  #targets = new Map<string, Target>();

  constructor(engine: Pick<Engine, "listen">, again: (id: string) => void) {
    this.#engine = engine;
    this.#again = again;
  }

  async listen(plan: LocalPlan, handle: unknown): Promise<SocketAddress> {
    const target = this.#target(plan);
    const before = this.#open.get(plan.id);
    if (before?.listener.paused === true && isSame(before, target)) {
      await before.listener.resume(handle);
      return before.listener.address;
    }
    const again = (): void => this.#again(plan.id);
    const listener = await this.#engine.listen({ ...plan, ...target }, { handle, again });
    this.#open.set(plan.id, { plan, ...target, listener });
    // Both listen for a moment on the same socket: nobody is refused in between. Open connections go on as they are.
    void before?.listener.close();
    return listener.address;
  }

  unlisten(id: string): boolean {
    const open = this.#open.get(id);
    if (open === undefined) return false;
    this.#open.delete(id);
    // Accepting stops at once; it resolves only when the last connection has ended, and nobody waits for that.
    void open.listener.close();
    return true;
  }

  /** Called with each configuration in force; listeners whose edge leads elsewhere now are opened anew. */
  follow(config: Pick<MeshConfig, "edges">): void {
    this.#targets = new Map(config.edges.map((edge) => [edgeKey(edge), edge]));
    for (const open of this.#open.values()) {
      if (!isSame(open, this.#target(open.plan))) this.#again(open.plan.id);
    }
  }

  /** What `/instances` shows. */
  view() {
    return [...this.#open.values()].map(({ plan, cluster, protocol, listener }) => ({
      instanceId: plan.instanceId,
      from: plan.from,
      dependency: plan.dependency,
      address: listener.address,
      cluster,
      protocol,
      /** False while control has not told about this dependency. */
      declared: this.#targets.has(edgeKey(plan)),
    }));
  }

  #target(plan: LocalPlan): Target {
    const { cluster, protocol } = this.#targets.get(edgeKey(plan)) ?? plan;
    return { cluster, protocol };
  }
}

function isSame(one: Target, other: Target): boolean {
  return one.cluster === other.cluster && one.protocol === other.protocol;
}

function edgeKey({ from, dependency }: { from: string; dependency: string }): string {
  return `${from}/${dependency}`;
}
