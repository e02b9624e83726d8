import net from "node:net";
import { systemClock } from "../../base/clock.ts";
import type { Clock } from "../../base/clock.ts";
import { createMetrics } from "../../base/metrics.ts";
import { silentLog } from "../../base/log.ts";
import { seededRandom } from "../../base/random.ts";
import { Cluster, MeshConfig } from "../../model/mesh.ts";
import {
  type AccessEvent,
  type Engine,
  type EngineLimits,
  type EngineListener,
  type ListenerSpec,
  createEngine,
} from "../../proxy/engine.ts";
import type { Pressure } from "../../proxy/pressure.ts";

/** A server that speaks raw bytes: what the tests script, and a record of what it was sent. */
export interface RawServer extends AsyncDisposable {
  readonly port: number;
  /** One entry a connection, in the order of accepting: everything it received, as Latin-1. */
  readonly received: string[];
  readonly sockets: net.Socket[];
}

/** `onConnection` scripts the server; it gets the connection and its number, counted from 0. */
export async function rawServer(
  onConnection: (socket: net.Socket, index: number) => void,
): Promise<RawServer> {
  const received: string[] = [];
  const sockets: net.Socket[] = [];
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const index = sockets.push(socket) - 1;
    received[index] = "";
    socket.on("error", () => undefined);
    socket.on("data", (bytes: Buffer) => {
      received[index] += bytes.toString("latin1");
    });
    onConnection(socket, index);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as net.AddressInfo).port,
    received,
    sockets,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Answers every head without a body that it receives with `respond(head, count)`. */
export function answering(respond: (head: string, count: number) => string): (socket: net.Socket) => void {
  return (socket) => {
    let pending = "";
    let count = 0;
    socket.on("data", (bytes: Buffer) => {
      pending += bytes.toString("latin1");
      for (let end = pending.indexOf("\r\n\r\n"); end >= 0; end = pending.indexOf("\r\n\r\n")) {
        const head = pending.slice(0, end + 4);
        pending = pending.slice(end + 4);
        socket.write(respond(head, count), "latin1");
        count += 1;
      }
    });
    socket.on("end", () => socket.end());
  };
}

/** Polls until `done` holds; for what a test cannot be told of. */
export async function until(done: () => boolean, what: string): Promise<void> {
  const deadline = AbortSignal.timeout(10_000);
  while (!done()) {
    if (deadline.aborted) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** As `until`, for a metric. */
export async function untilMetric(rig: Rig, series: string, value: number): Promise<void> {
  const deadline = AbortSignal.timeout(10_000);
  for (let now = NaN; now !== value; now = await rig.metric(series)) {
    if (deadline.aborted) throw new Error(`waited in vain for ${series} ${value}: it is ${now}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export function ok(body: string, fields = ""): string {
  return `HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n${fields}\r\n${body}`;
}

/** A client that speaks raw bytes. */
export class RawClient implements AsyncDisposable {
  readonly socket: net.Socket;
  text = "";
  ended = false;
  closed = false;
  error = "";
  #changed: () => void = () => undefined;

  static async connect(port: number): Promise<RawClient> {
    const socket = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
    await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    return new RawClient(socket);
  }

  private constructor(socket: net.Socket) {
    this.socket = socket;
    socket.removeAllListeners("error");
    socket.on("data", (bytes: Buffer) => {
      this.text += bytes.toString("latin1");
      this.#changed();
    });
    socket.on("end", () => {
      this.ended = true;
      this.#changed();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.error = error.code ?? error.message;
    });
    socket.on("close", () => {
      this.closed = true;
      this.#changed();
    });
  }

  write(text: string): void {
    this.socket.write(text, "latin1");
  }

  /** Waits until `done` holds; fails with what was received. */
  async until(done: (client: this) => boolean, what: string): Promise<void> {
    const deadline = AbortSignal.timeout(10_000);
    while (!done(this)) {
      if (deadline.aborted)
        throw new Error(`waited in vain for ${what}; received: ${JSON.stringify(this.text)}`);
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
        deadline.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }

  untilText(part: string): Promise<void> {
    return this.until(({ text }) => text.includes(part), JSON.stringify(part));
  }

  untilEnd(): Promise<void> {
    return this.until(({ ended, closed }) => ended || closed, "the end of the connection");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.closed) return;
    const closed = new Promise((resolve) => this.socket.once("close", resolve));
    this.socket.destroy();
    await closed;
  }
}

export interface Rig extends AsyncDisposable {
  readonly engine: Engine;
  readonly listener: EngineListener;
  readonly port: number;
  readonly events: AccessEvent[];
  /** Resolves when this many requests wait for a cluster, an endpoint or a connection. */
  untilWaiting(count: number): Promise<void>;
  client(): Promise<RawClient>;
  /** The sum of a metric's series now, like `gilliam_waiting` or `gilliam_connections{side="upstream"`. */
  metric(series: string): Promise<number>;
  /** Sends `text` on a connection of its own and returns everything up to the end or `part`. */
  ask(text: string, part?: string): Promise<string>;
}

export interface RigOptions {
  readonly clusters?: unknown[];
  readonly routes?: unknown[];
  readonly edges?: unknown[];
  readonly listener?: ListenerSpec;
  readonly limits?: Partial<EngineLimits>;
  readonly clock?: Clock;
  readonly pressure?: Pressure;
  readonly onAccess?: (event: AccessEvent) => void;
}

/** An engine with one listener: an edge with a route for `shop.test` to `web.shop`, if nothing else is said. */
export async function rig(ports: readonly number[], options: RigOptions = {}): Promise<Rig> {
  const events: AccessEvent[] = [];
  const engine = createEngine({
    clock: options.clock ?? systemClock,
    random: seededRandom(1),
    log: silentLog,
    name: "edge",
    onAccess: options.onAccess ?? ((event) => events.push(event)),
    ...(options.pressure === undefined ? {} : { pressure: options.pressure }),
    ...(options.limits === undefined ? {} : { limits: options.limits }),
  });
  const applied = engine.apply(
    MeshConfig.parse({
      epoch: 1,
      clusters: options.clusters ?? [cluster("web.shop", ports)],
      edges: options.edges ?? [],
      routes: options.routes ?? [{ id: "r", host: "shop.test", path: "/", cluster: "web.shop" }],
    }),
  );
  if (!applied.ok) throw new Error(applied.reason);
  const listener = await engine.listen(options.listener ?? { kind: "edge", id: "public" }, {
    host: "127.0.0.1",
    port: 0,
  });
  const { port } = listener.address;
  const metrics = createMetrics("test", { defaults: false });
  engine.registerMetrics(metrics);
  return {
    metric: async (series) => {
      const lines = (await metrics.metrics()).split("\n").filter((line) => line.startsWith(series));
      return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
    },
    engine,
    listener,
    port,
    events,
    untilWaiting: async (count) => {
      const registry = createMetrics("test", { defaults: false });
      engine.registerMetrics(registry);
      const deadline = AbortSignal.timeout(10_000);
      for (
        let now = -1;
        now !== count;
        now = Number(/^gilliam_waiting\S* (\d+)/m.exec(await registry.metrics())?.[1])
      ) {
        if (deadline.aborted) throw new Error(`waited in vain for ${count} to wait; ${now} do`);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    },
    client: () => RawClient.connect(port),
    ask: async (text, part) => {
      await using client = await RawClient.connect(port);
      client.write(text);
      if (part === undefined) await client.untilEnd();
      else await client.untilText(part);
      return client.text;
    },
    [Symbol.asyncDispose]: () => engine.close(),
  };
}

/** A cluster with an endpoint for each port, named `i0`, `i1`, …; `more` overrides anything. */
export function cluster(name: string, ports: readonly number[], more: Record<string, unknown> = {}): Cluster {
  return Cluster.parse({
    name,
    protocol: "http",
    endpoints: ports.map((port, index) => ({ id: `i${index}`, host: "127.0.0.1", port, release: 1 })),
    ...more,
  });
}

export function get(path = "/", fields = ""): string {
  return `GET ${path} HTTP/1.1\r\nHost: shop.test\r\n${fields}\r\n`;
}

export const LOCAL: Extract<ListenerSpec, { kind: "local" }> = {
  kind: "local",
  id: "web-1/api",
  from: "web.shop",
  instanceId: "web-1",
  dependency: "api",
  cluster: "api.shop",
  protocol: "http",
};
