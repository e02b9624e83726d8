import tls from "node:tls";
import { makeDevCertificate } from "../../../bootstrap/dev-certificate.ts";
import { systemClock } from "../../../base/clock.ts";
import { createMetrics } from "../../../base/metrics.ts";
import { type TlsOptions, TlsTerminator } from "../../../proxy/tls/terminator.ts";
import type { CertificatePair } from "../../../proxy/tls/certificate.ts";
import { type Rig, type RigOptions, rig } from "../kit.ts";

export async function pair(name: string, hosts: readonly string[], days?: number): Promise<CertificatePair> {
  const made = await makeDevCertificate({
    hosts,
    nowMs: systemClock.wallMs(),
    ...(days === undefined ? {} : { days }),
  });
  return { name, ...made };
}

export interface TlsRig extends Rig {
  readonly terminator: TlsTerminator;
  /** The value of a metric as a scrape shows it, all of whose labels begin with `labels`; 0 when it is not there. */
  metric(name: string, labels?: string): Promise<number>;
  untilMetric(value: number, name: string, labels?: string): Promise<void>;
}

export interface TlsRigOptions extends RigOptions {
  readonly tls?: TlsOptions;
  readonly pairs?: readonly CertificatePair[];
  readonly proxyProtocolFrom?: readonly string[];
}

const shopPair = pair("default", ["shop.test"]);

/** An engine whose one listener speaks TLS, with a certificate for `shop.test` if nothing else is said. */
export async function tlsRig(ports: readonly number[], options: TlsRigOptions = {}): Promise<TlsRig> {
  const terminator = new TlsTerminator(options.tls);
  terminator.setCertificates(options.pairs ?? [await shopPair]);
  const { proxyProtocolFrom } = options;
  const listener = {
    kind: "edge" as const,
    id: "secure",
    tls: terminator,
    ...(proxyProtocolFrom === undefined ? {} : { proxyProtocolFrom }),
  };
  const edge = await rig(ports, { ...options, listener });
  const metrics = createMetrics("test", { defaults: false });
  edge.engine.registerMetrics(metrics);
  const metric = async (name: string, labels = "") => {
    const lines = (await metrics.metrics()).split("\n");
    const line = lines.find((text) => text.startsWith(`${name}{${labels}`));
    return Number(line?.split(" ").at(-1) ?? 0);
  };
  const untilMetric = async (value: number, name: string, labels?: string) => {
    const deadline = AbortSignal.timeout(10_000);
    while ((await metric(name, labels)) !== value) {
      if (deadline.aborted) throw new Error(`waited in vain for ${value} as ${name}{${labels ?? ""}}`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };
  return { ...edge, terminator, metric, untilMetric };
}

/** A client of TLS that keeps what it received as Latin-1. */
export class TlsClient implements AsyncDisposable {
  readonly socket: tls.TLSSocket;
  text = "";
  ended = false;
  closed = false;
  error = "";
  /** The newest ticket. */
  session: Buffer | undefined;
  #changed: () => void = () => undefined;

  /** Rejects with the client's error when the handshake fails. */
  static async connect(port: number, options: tls.ConnectionOptions = {}): Promise<TlsClient> {
    const client = TlsClient.open(port, options);
    await client.until(
      ({ socket, closed }) => closed || (socket.getProtocol() !== null && client.secured),
      "a handshake",
    );
    if (!client.secured) throw new Error(client.error);
    return client;
  }

  static open(port: number, options: tls.ConnectionOptions): TlsClient {
    return new TlsClient(
      tls.connect({
        port,
        host: "127.0.0.1",
        servername: "shop.test",
        rejectUnauthorized: false,
        allowHalfOpen: true,
        ...options,
      } as tls.ConnectionOptions),
    );
  }

  secured = false;

  private constructor(socket: tls.TLSSocket) {
    this.socket = socket;
    const note = (change: () => void) => () => {
      change();
      this.#changed();
    };
    socket.on(
      "secureConnect",
      note(() => (this.secured = true)),
    );
    socket.on("session", (session: Buffer) => note(() => (this.session = session))());
    socket.on("data", (bytes: Buffer) => note(() => (this.text += bytes.toString("latin1")))());
    socket.on(
      "end",
      note(() => (this.ended = true)),
    );
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.error = error.code ?? error.message;
    });
    socket.on(
      "close",
      note(() => (this.closed = true)),
    );
  }

  write(text: string): void {
    this.socket.write(text, "latin1");
  }

  async until(done: (client: this) => boolean, what: string): Promise<void> {
    const deadline = AbortSignal.timeout(10_000);
    while (!done(this)) {
      if (deadline.aborted)
        throw new Error(`waited in vain for ${what}; received: ${JSON.stringify(this.text.slice(0, 2000))}`);
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
