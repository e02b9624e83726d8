import net from "node:net";
import { AcceptPause, SOCKETS_DOWNSTREAM_SHARE } from "./accept-pause.ts";
import { Binding } from "./binding.ts";
import { ClientCounts } from "./client-counts.ts";
import { Client } from "./client.ts";
import type { EngineContext } from "./context.ts";
import type { EngineListener, ListenSource, ListenerSpec } from "./engine.ts";
import type { ExchangeOrigin } from "./exchange.ts";
import { edgeHopFields } from "./headers.ts";
import { Http1Downstream } from "./http1/downstream.ts";
import { Http2Downstream } from "./http2/downstream.ts";
import { TrustedNetworks } from "./networks.ts";
import { ProxyHeaderReader } from "./proxy-header.ts";
import type { ProxyEnds } from "./proxy-protocol.ts";
import { TcpSession } from "./tcp.ts";
import type { HttpsRedirect } from "./tls/redirect.ts";
import type { SecuredConnection } from "./tls/secured.ts";
import type { TlsStream } from "./tls/stream.ts";
import type { TlsTerminator } from "./tls/terminator.ts";
import { Wire, type WireUser } from "./wire.ts";

/** Whatever serves one accepted connection. */
export interface Connection {
  readonly idle: boolean;
  /** Ends when its work is done. */
  retire(): void;
  destroy(): void;
}

/** What `net.Server` has inside: the handle that accepts. Taking connections there saves a socket object for each. */
interface ServerWithHandle {
  readonly _handle: { onconnection: (error: number, handle: unknown) => void };
}

const BACKLOG = 4096;

/** Of a wire until its connection takes it over, in the same call. */
const NOBODY: WireUser = {
  onConnected: () => undefined,
  onBytes: () => undefined,
  onEnd: () => undefined,
  onDrain: () => undefined,
  onClosed: () => undefined,
};

/** One listening socket and the connections it has accepted. */
export class Listener implements ExchangeOrigin {
  readonly id: string;
  readonly kind: "edge" | "local";
  readonly from: string;
  readonly binding: Binding | undefined;
  readonly redirect: HttpsRedirect | undefined;
  readonly context: EngineContext;
  /** The edge faces strangers: whatever they say about where a request came from is replaced. */
  readonly trustsForwarded: boolean;
  /** No new requests: connections end after what they are doing. */
  retiring = false;
  readonly #spec: ListenerSpec;
  /** Set: connections begin with a PROXY header. */
  readonly #trusted: TrustedNetworks | undefined;
  readonly #hopFields: string;
  readonly #bindings = new Map<string, Binding>();
  readonly #connections = new Set<Connection>();
  /** Only of a public listener with a limit for each client. */
  readonly #clients: ClientCounts<Connection> | undefined;
  #server: net.Server | undefined;
  #pause: AcceptPause | undefined;
  #onEmpty: PromiseWithResolvers<void> | undefined;

  constructor(spec: ListenerSpec, context: EngineContext) {
    this.id = spec.id;
    this.kind = spec.kind;
    this.from = spec.kind === "edge" ? "edge" : spec.from;
    this.context = context;
    this.trustsForwarded = spec.kind === "local";
    this.binding =
      spec.kind === "local"
        ? new Binding(spec.from, spec.cluster, context.stats, `${spec.from}/${spec.dependency}`)
        : undefined;
    this.redirect = spec.kind === "edge" ? spec.redirect : undefined;
    const counting = spec.kind === "edge" && context.limits.connectionsPerClientMax > 0;
    this.#clients = counting ? new ClientCounts() : undefined;
    this.#spec = spec;
    const from = spec.kind === "edge" ? spec.proxyProtocolFrom : undefined;
    this.#trusted = from === undefined ? undefined : new TrustedNetworks(from);
    this.#hopFields = `x-gilliam-from: ${this.from}\r\nvia: 1.1 ${context.name}\r\n`;
  }

  /** Starts to accept. Rejects with the system's error when the address cannot be had. */
  async open(source: ListenSource): Promise<EngineListener> {
    const address = await this.#listen(source);
    let pause: AcceptPause | undefined;
    if ("handle" in source && source.again !== undefined) {
      pause = new AcceptPause(this.context, () => this.#stop(), source.again);
      this.#pause = pause;
    }
    return {
      address: { host: address.address, port: address.port },
      close: () => this.close(),
      leave: () => this.#leave(),
      get paused() {
        return pause?.active === true;
      },
      resume: (handle) => this.#resume(handle),
    };
  }

  async #resume(handle: unknown): Promise<void> {
    // It may have been left since the handle was asked for.
    if (this.#pause?.active !== true) return (handle as { close(): void }).close();
    this.#pause.end();
    await this.#listen({ handle });
    this.context.log.info({ listener: this.id }, "accepting again");
  }

  async #listen(source: ListenSource): Promise<net.AddressInfo> {
    const server = net.createServer();
    server.on("error", (error) => this.context.log.warn({ listener: this.id, err: error }, "cannot accept"));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.once("listening", () => {
        server.removeListener("error", reject);
        resolve();
      });
      if ("handle" in source) server.listen(source.handle, BACKLOG);
      else server.listen({ host: source.host, port: source.port, backlog: BACKLOG });
    });
    (server as unknown as ServerWithHandle)._handle.onconnection = (error, handle) =>
      this.#accept(error, handle);
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("a listener must be a TCP socket");
    return address;
  }

  #stop(): void {
    this.#server?.close();
    this.#server = undefined;
  }

  /** Accepts nothing more, ever; connections go on. */
  #leave(): void {
    this.#pause?.end();
    this.#stop();
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  bindingTo(cluster: string): Binding {
    let binding = this.#bindings.get(cluster);
    if (binding === undefined) {
      binding = new Binding(this.from, cluster, this.context.stats);
      this.#bindings.set(cluster, binding);
    }
    return binding;
  }

  /** The lines that every request of a client gets. */
  hopFieldsFor(peerAddress: string, secured = false): string {
    if (this.kind === "local") return this.#hopFields;
    return edgeHopFields(peerAddress, secured ? "https" : "http") + this.#hopFields;
  }

  /** The handshake is over: from here on it is a connection like others. */
  serveSecured(
    handshake: Connection,
    stream: TlsStream,
    secured: SecuredConnection,
    client: Client,
    http2: boolean,
  ): void {
    let connection: Connection;
    if (http2) {
      const wire = Wire.accept(stream, NOBODY, this.context.onFault);
      const hopFields = this.hopFieldsFor(client.address, true);
      connection = new Http2Downstream(wire, this, client, hopFields, secured);
    } else connection = new Http1Downstream(stream, this, client, secured);
    this.replaceConnection(handshake, connection);
    if (this.retiring) connection.retire();
  }

  /** The PROXY header is read. `client` is whom it names, `early` what came behind it. */
  serveBehindHeader(
    reader: Connection,
    handle: unknown,
    named: ProxyEnds | undefined,
    early: Buffer | undefined,
  ): void {
    const spec = this.#spec;
    const client = new Client(handle, named);
    const why = this.#crowding(client);
    try {
      if (spec.kind === "edge" && spec.tls !== undefined) {
        this.#connections.delete(reader);
        this.#handshake(handle, spec.tls, why !== "", client, early);
        return;
      }
      const connection = new Http1Downstream(handle, this, client);
      this.replaceConnection(reader, connection);
      if (why !== "") return connection.turnAway("too_many_connections", why);
      this.#clients?.enter(connection, client.address);
      if (early !== undefined) connection.onBytes(early, early.length);
      if (this.retiring) connection.retire();
    } catch (error) {
      this.context.onFault(error);
    }
  }

  /** HTTP without TLS on a TLS port: says so, in the language it was asked in. */
  refusePlain(handshake: Connection, handle: unknown, client: Client): void {
    const connection = new Http1Downstream(handle, this, client);
    this.replaceConnection(handshake, connection);
    connection.turnAway("bad_request", "this port speaks TLS, and the request came without");
  }

  /** A connection turned out to speak another protocol. */
  replaceConnection(connection: Connection, successor: Connection): void {
    this.#clients?.replace(connection, successor);
    this.#connections.delete(connection);
    this.#connections.add(successor);
  }

  onConnectionClosed(connection: Connection): void {
    if (!this.#connections.delete(connection)) return;
    this.#clients?.leave(connection);
    this.context.stats.downstreamConnections -= 1;
    if (this.#connections.size === 0) this.#onEmpty?.resolve();
  }

  /** Stops accepting; resolves when every connection has finished by itself. */
  async close(): Promise<void> {
    this.stopAccepting();
    await this.emptied();
  }

  /** Resolves when no connection is left; only once nothing is accepted any more. */
  async emptied(): Promise<void> {
    if (this.#connections.size === 0) return;
    this.#onEmpty ??= Promise.withResolvers();
    await this.#onEmpty.promise;
  }

  /** Stops accepting and lets every connection end after what it is doing. */
  stopAccepting(): void {
    if (!this.retiring) this.#leave();
    this.retiring = true;
    for (const connection of this.#connections) connection.retire();
  }

  /** Cuts every connection; how many were at work. */
  cut(): number {
    let working = 0;
    for (const connection of this.#connections) {
      if (!connection.idle) working += 1;
      connection.destroy();
    }
    return working;
  }

  #accept(error: number, handle: unknown): void {
    if (error !== 0) {
      // Out of file descriptors, most often: the kernel keeps the connection in the backlog.
      this.context.log.warn({ listener: this.id, error }, "cannot accept a connection");
      return;
    }
    try {
      this.#serve(handle);
      this.#pause?.look();
    } catch (error) {
      this.context.onFault(error);
    }
  }

  /** Why no more clients are taken on; empty when there is room. */
  #full(): string {
    const { limits, stats } = this.context;
    const { connectionsPerListenerMax, socketsMax } = limits;
    if (this.#connections.size >= connectionsPerListenerMax) {
      return `this listener has ${connectionsPerListenerMax} open connections already`;
    }
    if (socketsMax !== 0 && stats.sockets > socketsMax * SOCKETS_DOWNSTREAM_SHARE) {
      return `this proxy has ${stats.sockets} of ${socketsMax} sockets open`;
    }
    return "";
  }

  /** Why this client gets no further connection; empty when it does. */
  #crowding(client: Client): string {
    if (this.#clients === undefined) return "";
    const { connectionsPerClientMax } = this.context.limits;
    if (this.#clients.count(client.address) < connectionsPerClientMax) return "";
    return `this client has ${connectionsPerClientMax} open connections already`;
  }

  #serve(handle: unknown): void {
    const spec = this.#spec;
    this.context.stats.downstreamConnections += 1;
    const full = this.#full();
    if (this.#trusted !== undefined) return this.#awaitHeader(handle, this.#trusted, full !== "");
    const client = new Client(handle, undefined, spec.kind === "local");
    const why = full === "" ? this.#crowding(client) : full;
    const crowded = why !== "";
    if (spec.kind === "local" && spec.protocol === "tcp") {
      const session = new TcpSession(handle, this, client);
      this.#connections.add(session);
      if (crowded) session.destroy();
      else session.begin();
      return;
    }
    if (spec.kind === "edge" && spec.tls !== undefined) {
      return this.#handshake(handle, spec.tls, crowded, client, undefined);
    }
    const connection = new Http1Downstream(handle, this, client);
    this.#connections.add(connection);
    if (crowded) connection.turnAway("too_many_connections", why);
    else this.#clients?.enter(connection, client.address);
  }

  #awaitHeader(handle: unknown, trusted: TrustedNetworks, crowded: boolean): void {
    const { stats, log } = this.context;
    const peer = addressOf(handle);
    if (!crowded && trusted.has(peer)) {
      this.#connections.add(new ProxyHeaderReader(handle, this));
      return;
    }
    stats.downstreamConnections -= 1;
    if (crowded) stats.refused("too_many_connections");
    else stats.proxyHeaderFailed("untrusted");
    log.debug({ listener: this.id, peer }, "no PROXY header is taken from here");
    (handle as { close(): void }).close();
  }

  #handshake(
    handle: unknown,
    terminator: TlsTerminator,
    crowded: boolean,
    client: Client,
    early: Buffer | undefined,
  ): void {
    const { stats, limits, log } = this.context;
    const served = terminator.fallback;
    const busy = crowded || stats.tls.handshaking >= limits.tlsHandshakesMax;
    if (busy || served === undefined) {
      const reason = busy ? "too_many" : "no_certificate";
      stats.downstreamConnections -= 1;
      stats.tls.failed(reason);
      log.debug({ code: reason, listener: this.id }, "no TLS handshake");
      (handle as { close(): void }).close();
      return;
    }
    const handshake = terminator.begin(handle, this, served, client);
    this.#connections.add(handshake);
    this.#clients?.enter(handshake, client.address);
    handshake.start(early);
  }
}

/** The peer's address of an accepted handle; empty when it is gone already. */
function addressOf(handle: unknown): string {
  const out: { address?: string } = {};
  (handle as { getpeername(out: object): number }).getpeername(out);
  return out.address ?? "";
}
