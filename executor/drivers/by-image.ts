import type {
  Driver,
  ExecRequest,
  Listener,
  Prepared,
  PrepareRequest,
  Running,
  StartRequest,
  StopSignal,
  Usage,
} from "../driver.ts";

/**
 * A host with Docker runs two kinds of instances: what was built or named as an image as containers, and Gilliam's
 * own parts and gears, which come as folders, as processes. Whoever prepared an instance answers for it.
 */
export class DriverByImage implements Driver {
  readonly kind = "docker";
  readonly network = "namespace";
  readonly #containers: Driver;
  readonly #processes: Driver;

  constructor({ containers, processes }: { containers: Driver; processes: Driver }) {
    this.#containers = containers;
    this.#processes = processes;
  }

  prepare(request: PrepareRequest): Promise<Prepared> {
    return (request.container === undefined ? this.#processes : this.#containers).prepare(request);
  }

  prepared(instanceId: string): Prepared | undefined {
    return this.#of(instanceId).prepared(instanceId);
  }

  start(request: StartRequest): Promise<Running> {
    return this.#of(request.instanceId).start(request);
  }

  adopt(instanceId: string): Promise<Running | undefined> {
    return this.#of(instanceId).adopt(instanceId);
  }

  signal(instanceId: string, signal: StopSignal): Promise<boolean> {
    return this.#of(instanceId).signal(instanceId, signal);
  }

  kill(instanceId: string): Promise<void> {
    return this.#of(instanceId).kill(instanceId);
  }

  exec(request: ExecRequest): Promise<number> {
    return this.#of(request.instanceId).exec(request);
  }

  async list(): Promise<readonly string[]> {
    return [...(await this.#containers.list()), ...(await this.#processes.list())];
  }

  listeners(instanceId: string): Promise<readonly Listener[]> {
    return this.#of(instanceId).listeners(instanceId);
  }

  usage(instanceId: string): Usage | undefined {
    return this.#of(instanceId).usage(instanceId);
  }

  async remove(instanceId: string): Promise<void> {
    await this.#containers.remove(instanceId);
    await this.#processes.remove(instanceId);
  }

  async sweep(): Promise<void> {
    await this.#containers.sweep();
    await this.#processes.sweep();
  }

  async dismantle(): Promise<void> {
    await this.#containers.dismantle();
    await this.#processes.dismantle();
  }

  close(): void {
    this.#containers.close();
    this.#processes.close();
  }

  #of(instanceId: string): Driver {
    return this.#containers.prepared(instanceId) === undefined ? this.#processes : this.#containers;
  }
}
