import type { Clock } from "../base/clock.ts";
import { UserError, messageOf } from "../base/errors.ts";
import type { LocalPortsAnswer, LocalPortsList, LocalPortsRequest } from "../model/local-ports.ts";
import type { RawHandle } from "../proxy/agent/handles.ts";
import type { ListenerPlan, SocketAddress } from "../proxy/agent/messages.ts";
import type { PlainLog } from "../proxy/agent/plain-log.ts";
import { type Binders, bindRequest, planListener } from "./bind-request.ts";
import { InTurn, limitParallel } from "./in-turn.ts";

/** What the sidecar remembers of an instance over its own restarts. */
export interface InstanceRecord {
  readonly request: LocalPortsRequest;
  readonly answer: LocalPortsAnswer;
}

export interface InstancePortsOptions extends Binders {
  readonly openListener: (plan: ListenerPlan, handle: RawHandle) => Promise<SocketAddress>;
  readonly closeListener: (id: string) => Promise<void>;
  /** Tells one namespace from a later one at the same path; undefined when there is none. */
  readonly namespaceIdentity: (path: string) => string | undefined;
  /** @throws when the records cannot be brought to disk. */
  readonly save: (records: readonly InstanceRecord[]) => void;
  readonly clock: Clock;
  readonly log: PlainLog;
  /** Instances at once; one more is refused. */
  readonly instancesMax: number;
  /** Namespaces entered at the same time. @default 4 */
  readonly parallelMax?: number;
  /** Between two looks after failed ports and vanished namespaces, in milliseconds. @default 2_000 */
  readonly careMs?: number;
}

type Instance = InstanceRecord & {
  readonly identity: string | undefined;
  readonly listenerIds: readonly string[];
  readonly state: "opening" | "open" | "failed";
  /** Why it failed; empty unless failed. */
  readonly reason: string;
  /** Looks in a row that found its namespace gone. */
  readonly missing: number;
};

/** A namespace missed by so many looks in a row is gone for good. */
const MISSING_MAX = 3;

/**
 * The local ports of a host's instances: opens, closes, remembers. What is done to one instance is done one
 * after the other, so that PUT and DELETE never cross.
 */
export class InstancePorts {
  readonly #options: InstancePortsOptions;
  readonly #instances = new Map<string, Instance>();
  readonly #turns = new InTurn();
  readonly #limited: ReturnType<typeof limitParallel>;
  #unsaved = false;

  constructor(options: InstancePortsOptions) {
    this.#options = options;
    this.#limited = limitParallel(options.parallelMax ?? 4);
  }

  /** Opens what was open before a restart, under the same numbers. Resolves when each was tried once. */
  async restore(records: readonly InstanceRecord[]): Promise<void> {
    const { careMs = 2_000, clock, log } = this.#options;
    for (const record of records) {
      const closed = {
        identity: undefined,
        listenerIds: [],
        state: "opening",
        reason: "",
        missing: 0,
      } as const;
      this.#instances.set(record.request.instanceId, { ...record, ...closed });
    }
    await Promise.all([...this.#instances.keys()].map((id) => this.#turns.run(id, () => this.#reopen(id))));
    const failed = [...this.#instances.values()].filter(({ state }) => state === "failed").length;
    if (records.length > 0) log.info({ instances: records.length, failed }, "restored the local ports");
    clock.every(careMs, () => this.#care());
  }

  /** Opens every port of an instance; the same request again changes nothing. */
  put(request: LocalPortsRequest): Promise<LocalPortsAnswer> {
    return this.#turns.run(request.instanceId, async () => {
      const before = this.#instances.get(request.instanceId);
      if (before !== undefined && this.#isOpenAs(before, request)) return before.answer;
      if (before === undefined) this.#refuseTooMany();
      else await this.#forget(before);
      const opened = await this.#open(request, before?.answer, false);
      this.#instances.set(request.instanceId, opened);
      try {
        this.#save();
      } catch (error) {
        await this.#forget(opened);
        throw new UserError(`Cannot remember the local ports of ${request.instanceId}: ${messageOf(error)}`, {
          code: "state_not_saved",
          status: 507,
          next: "Free space in the state folder; the instance must not start with ports a restart would lose.",
          cause: error,
        });
      }
      return opened.answer;
    });
  }

  /** Closes an instance's ports. True when it had any. */
  delete(instanceId: string): Promise<boolean> {
    return this.#turns.run(instanceId, async () => {
      const instance = this.#instances.get(instanceId);
      if (instance === undefined) return false;
      await this.#forget(instance);
      this.#saveOrLog();
      return true;
    });
  }

  list(): LocalPortsList {
    const instances = [...this.#instances.values()].map(({ request, answer, state, reason }) => {
      const { formation, service, release, namespace } = request;
      return { ...answer, formation, service, release, namespace, state, reason };
    });
    return { instances };
  }

  #isOpenAs({ identity, request: asked, state }: Instance, request: LocalPortsRequest): boolean {
    if (state !== "open" || JSON.stringify(asked) !== JSON.stringify(request)) return false;
    return request.namespace === null || this.#options.namespaceIdentity(request.namespace) === identity;
  }

  #refuseTooMany(): void {
    const { instancesMax } = this.#options;
    if (this.#instances.size < instancesMax) return;
    throw new UserError(`This sidecar already serves ${instancesMax} instances, its limit`, {
      code: "too_many_instances",
      status: 503,
      next: "Raise GILLIAM_SIDECAR_INSTANCES_MAX, or place instances on other hosts.",
    });
  }

  async #open(
    request: LocalPortsRequest,
    before: LocalPortsAnswer | undefined,
    strict: boolean,
  ): Promise<Instance> {
    const { namespaceIdentity, openListener } = this.#options;
    const { instanceId, namespace } = request;
    const identity = namespace === null ? undefined : namespaceIdentity(namespace);
    const bound = await this.#limited(() => bindRequest(request, before, strict, this.#options));
    const plans = bound.map((one) => planListener(request, one));
    const opening = plans.map((plan, index) => openListener(plan, bound[index]!.socket.handle));
    const failure = (await Promise.allSettled(opening)).find(({ status }) => status === "rejected");
    const listenerIds = plans.map(({ id }) => id);
    if (failure?.status === "rejected") {
      await this.#closeAll(listenerIds);
      throw failure.reason;
    }
    const ports = bound
      .filter(({ socket }) => socket.host === "127.0.0.1")
      .map(({ dependency, socket }) => ({ dependency, host: socket.host, port: socket.port }));
    const answer = { instanceId, ports };
    return { request, answer, identity, listenerIds, state: "open", reason: "", missing: 0 };
  }

  async #reopen(instanceId: string): Promise<void> {
    const instance = this.#instances.get(instanceId);
    if (instance === undefined || instance.state === "open") return;
    try {
      this.#instances.set(instanceId, await this.#open(instance.request, instance.answer, true));
      if (instance.state === "failed")
        this.#options.log.info({ instanceId }, "local ports are open after all");
    } catch (error) {
      const reason = messageOf(error);
      if (instance.reason !== reason)
        this.#options.log.error({ instanceId, reason }, "cannot open local ports");
      this.#instances.set(instanceId, { ...instance, state: "failed", reason });
    }
  }

  async #forget(instance: Instance): Promise<void> {
    this.#instances.delete(instance.request.instanceId);
    await this.#closeAll(instance.listenerIds);
  }

  async #closeAll(listenerIds: readonly string[]): Promise<void> {
    await Promise.all(listenerIds.map((id) => this.#options.closeListener(id)));
  }

  /** Tries failed ports again, and lets go of namespaces that are gone: an open socket would keep them alive. */
  #care(): void {
    if (this.#unsaved) this.#saveOrLog();
    for (const [instanceId, { request, state }] of this.#instances) {
      if (state === "failed") void this.#turns.run(instanceId, () => this.#reopen(instanceId));
      if (request.namespace !== null)
        void this.#turns.run(instanceId, () => this.#lookForNamespace(instanceId));
    }
  }

  async #lookForNamespace(instanceId: string): Promise<void> {
    const instance = this.#instances.get(instanceId);
    const path = instance?.request.namespace;
    if (instance === undefined || path === null || path === undefined) return;
    const found = this.#options.namespaceIdentity(path) !== undefined;
    const missing = found ? 0 : instance.missing + 1;
    if (missing !== instance.missing) this.#instances.set(instanceId, { ...instance, missing });
    if (missing < MISSING_MAX) return;
    this.#options.log.warn({ instanceId, namespace: path }, "the namespace is gone; closing its local ports");
    await this.#forget(instance);
    this.#saveOrLog();
  }

  #save(): void {
    this.#unsaved = true;
    this.#options.save([...this.#instances.values()].map(({ request, answer }) => ({ request, answer })));
    this.#unsaved = false;
  }

  #saveOrLog(): void {
    try {
      this.#save();
    } catch (error) {
      this.#options.log.error({ reason: messageOf(error) }, "cannot save which ports are open");
    }
  }
}
