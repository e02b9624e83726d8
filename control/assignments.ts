import { fillSecrets } from "../model/gear.ts";
import type { AssignmentsMessage } from "../model/host.ts";
import type { Assignment } from "../model/instance.ts";
import { buildOrders, keepImages } from "./builds.ts";
import type { Store } from "./store.ts";
import type { World } from "./world.ts";

type List = Extract<AssignmentsMessage, { kind: "assignments" }>;

interface Follower {
  readonly hostId: string;
  readonly send: (message: AssignmentsMessage) => void;
  /** What was sent last, without its revision; undefined before the first. */
  sent: string | undefined;
  quiet: boolean;
}

/** Tells every executor what its host is to run: the whole list, whenever it differs from the last one sent. */
export class AssignmentsHub {
  readonly #store: Store;
  readonly #followers = new Set<Follower>();
  #world: World | undefined;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Sends the list at once when it is known, else with the first `update`. Dispose when the stream ends. */
  connect(hostId: string, send: (message: AssignmentsMessage) => void): Disposable {
    const follower: Follower = { hostId, send, sent: undefined, quiet: true };
    this.#followers.add(follower);
    if (this.#world !== undefined) this.#tell(follower, this.#world);
    return { [Symbol.dispose]: () => this.#followers.delete(follower) };
  }

  /** The registry holds this world: hosts may hear of it. */
  update(world: World): void {
    this.#world = world;
    for (const follower of this.#followers) this.#tell(follower, world);
  }

  /** `alive` to those who were sent nothing since the last call. */
  beat(): void {
    for (const follower of this.#followers) {
      if (follower.quiet) follower.send({ kind: "alive" });
      follower.quiet = true;
    }
  }

  #tell(follower: Follower, world: World): void {
    const list = assignmentsOf(world, follower.hostId, this.#store);
    const content = JSON.stringify(list);
    if (content === follower.sent) return;
    follower.sent = content;
    follower.quiet = false;
    follower.send({ kind: "assignments", revision: this.#store.instances.revision, ...list });
  }
}

/**
 * What one host is to run and build. A draining instance runs on until it is to stop; instances of the boot manifest
 * are the executor's own business. Secrets are filled in here and nowhere else.
 */
export function assignmentsOf(
  world: World,
  hostId: string,
  store: Pick<Store, "secrets">,
): Omit<List, "kind" | "revision"> {
  const instances = world.instances
    .filter((record) => record.hostId === hostId && !record.boot)
    .sort((a, b) => (a.id < b.id ? -1 : 1))
    .map(({ id, spec, want }): Assignment => {
      const filled = fillSecrets(spec, (address) => secretsOf(store, address));
      return { instanceId: id, spec: filled.spec, want: want === "stop" ? "stop" : "run" };
    });
  return { instances, builds: buildOrders(world, hostId), keepImages: keepImages(world, hostId) };
}

/** Secrets of `service.formation`. */
export function secretsOf(
  { secrets }: Pick<Store, "secrets">,
  address: string,
): Readonly<Record<string, string>> | undefined {
  const dot = address.indexOf(".");
  return secrets.get(`${address.slice(dot + 1)}/${address.slice(0, dot)}`);
}
