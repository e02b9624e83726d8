import fs from "node:fs";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { type HandlePipe, connectPipe } from "./handle-pipe.ts";
import type { RawHandle } from "./handles.ts";
import type { ListenerPlan, SocketAddress } from "./messages.ts";
import type { PlainLog } from "./plain-log.ts";

/** What a worker without a keeper says to the one that finds it, before it goes on as under any keeper. */
export type FromOrphan =
  | { readonly kind: "orphan"; readonly pid: number; readonly leading: boolean }
  /** Carries the handle. */
  | { readonly kind: "socket"; readonly plan: ListenerPlan; readonly socket: number }
  | { readonly kind: "offered" };

/** A worker of a keeper that is gone, taken over with its sockets. */
export interface Orphan {
  readonly pid: number;
  readonly leading: boolean;
  readonly pipe: HandlePipe;
}

const NAME = /^orphan-\d+\.sock$/;
/** An orphan that has not handed over its sockets after this long is left alone, in milliseconds. */
const OFFER_MS_MAX = 2_000;

export function orphanPath(folder: string, pid: number): string {
  return join(folder, `orphan-${pid}.sock`);
}

/**
 * The workers that a keeper which was killed, or which left, has left behind in `folder`, and their sockets. They accept
 * all the while; the next keeper takes both over, starts workers on the same sockets and has the orphans drain.
 */
export class Orphans {
  readonly #folder: string;
  readonly #clock: Clock;
  readonly #log: PlainLog;
  readonly #found: Orphan[] = [];
  readonly #sockets = new Map<string, Map<number, RawHandle>>();

  constructor(folder: string, clock: Clock, log: PlainLog) {
    this.#folder = folder;
    this.#clock = clock;
    this.#log = log;
  }

  get all(): readonly Orphan[] {
    return this.#found;
  }

  /** Looks again. An orphan shows itself as soon as it has noticed that its keeper is gone. */
  async look(): Promise<void> {
    for (const name of fs.readdirSync(this.#folder)) {
      if (!NAME.test(name)) continue;
      const path = join(this.#folder, name);
      const pipe = await connectPipe(path);
      fs.rmSync(path, { force: true });
      if (pipe !== undefined) await this.#take(pipe);
    }
  }

  /** The sockets of a listener, once; undefined when no orphan had it, or at another address than `wanted`. */
  inherit(
    id: string,
    wanted?: SocketAddress,
  ): { handles: readonly RawHandle[]; address: SocketAddress } | undefined {
    const sockets = this.#sockets.get(id);
    if (sockets === undefined) return undefined;
    const handles = [...sockets].sort(([a], [b]) => a - b).map(([, handle]) => handle);
    const out: { address?: string; port?: number } = {};
    handles[0]?.getsockname?.(out);
    const address = { host: out.address ?? "", port: out.port ?? 0 };
    const moved =
      wanted !== undefined &&
      (wanted.host !== address.host || (wanted.port !== 0 && wanted.port !== address.port));
    if (moved) return undefined;
    this.#sockets.delete(id);
    return { handles, address };
  }

  /** Lets go of sockets nobody wanted. */
  forget(): void {
    for (const sockets of this.#sockets.values()) for (const handle of sockets.values()) handle.close();
    this.#sockets.clear();
  }

  async #take(pipe: HandlePipe): Promise<void> {
    const offered = Promise.withResolvers<Orphan | undefined>();
    let orphan: Orphan | undefined;
    pipe.onMessage = (given, handle) => {
      const message = given as FromOrphan;
      if (message.kind === "orphan") orphan = { pid: message.pid, leading: message.leading, pipe };
      else if (message.kind === "offered") offered.resolve(orphan);
      else if (handle !== undefined) this.#keep(message, handle);
    };
    pipe.onClose = () => offered.resolve(undefined);
    pipe.start();
    using _limit = this.#clock.after(OFFER_MS_MAX, () => offered.resolve(undefined));
    const found = await offered.promise;
    if (found === undefined) return pipe.close();
    this.#found.push(found);
    this.#log.info({ pid: found.pid, leading: found.leading }, "taking over a worker and its sockets");
  }

  #keep({ plan, socket }: { plan: ListenerPlan; socket: number }, handle: RawHandle): void {
    const sockets = this.#sockets.get(plan.id) ?? new Map<number, RawHandle>();
    this.#sockets.set(plan.id, sockets);
    if (sockets.has(socket)) handle.close();
    else sockets.set(socket, handle);
  }
}
