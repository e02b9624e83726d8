import type tls from "node:tls";
import type { Client } from "../client.ts";
import type { Timed } from "../deadlines.ts";
import type { Connection, Listener } from "../listener.ts";
import { type HandshakeFailure, handshakeFailure } from "./reasons.ts";
import { SecuredConnection } from "./secured.ts";
import { TlsStream, type TlsStreamEvents } from "./stream.ts";
import type { ServedCertificate, TlsTerminator } from "./terminator.ts";

/** `h2` first: a client that speaks both gets it. In wire format (RFC 7301 3.1). */
const ALPN_PROTOCOLS: Buffer = Buffer.from("\x02h2\x08http/1.1", "latin1");

/**
 * A fatal alert, unrecognized_name (RFC 6066 3). The server has not said hello when a name is refused, so it goes
 * without protection in every version.
 */
const UNRECOGNIZED_NAME = Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70]);

/** A connection from its acceptance to the end of its handshake, within a time and among a bounded number. */
export class TlsHandshake implements Connection, Timed, TlsStreamEvents {
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  readonly idle = true;
  readonly #client: Client;
  readonly #listener: Listener;
  readonly #terminator: TlsTerminator;
  readonly #stream: TlsStream;
  readonly #dueMs: number;
  #served: ServedCertificate;
  #over = false;

  /** `served` is for a client that names nobody. */
  constructor(
    handle: unknown,
    listener: Listener,
    terminator: TlsTerminator,
    served: ServedCertificate,
    client: Client,
  ) {
    const { stats, clock, limits, wheel } = listener.context;
    this.#listener = listener;
    this.#terminator = terminator;
    this.#served = served;
    this.#client = client;
    stats.tls.handshaking += 1;
    this.#dueMs = clock.nowMs() + limits.tlsHandshakeTimeoutMs;
    wheel.watch(this, this.#dueMs);
    const { asksName } = terminator;
    this.#stream = new TlsStream(handle, { context: served.context, alpn: ALPN_PROTOCOLS, asksName }, this);
  }

  /** `early` was read of the connection already. */
  start(early: Uint8Array | undefined): void {
    this.#stream.start(early);
  }

  /** It was accepted, so its first request is served; see `Listener.serveSecured`. */
  retire(): void {}

  destroy(): void {
    if (this.#over) return;
    this.#stream.destroy();
    this.#leave();
    this.#listener.onConnectionClosed(this);
  }

  onName(name: string): tls.SecureContext | undefined {
    const served = this.#terminator.choose(name);
    if (served === undefined) {
      this.#stream.closeWith(UNRECOGNIZED_NAME);
      this.#fail("unknown_name");
      return undefined;
    }
    this.#served = served;
    return served.context;
  }

  onSecured(): void {
    const stream = this.#stream;
    // A resumed session asks for no certificate; it has the one of its name.
    const served = stream.reused ? this.#terminator.choose(stream.serverName) : this.#served;
    const { facts } = served ?? this.#served;
    this.#listener.context.stats.tls.secured(stream.protocol, stream.reused);
    this.#leave();
    const secured = new SecuredConnection(facts.hosts, this.#terminator.hstsField);
    this.#guard(() => this.#listener.serveSecured(this, stream, secured, this.#client, stream.alpn === "h2"));
  }

  onFailed(code: string): void {
    const reason = handshakeFailure(code);
    if (reason === "plain_http") {
      this.#fail(reason, false);
      // Not from within the call of Node's TLS, which is taken off the handle.
      this.#listener.context.clock.after(0, () => {
        const handle = this.#stream.surrender();
        this.#guard(() => this.#listener.refusePlain(this, handle, this.#client));
      });
      return;
    }
    this.#stream.destroy();
    this.#fail(reason);
  }

  onGone(): void {
    this.#stream.destroy();
    this.#fail("client_gone");
  }

  onTick(nowMs: number): number {
    if (this.#over) return Infinity;
    if (nowMs < this.#dueMs) return this.#dueMs;
    this.#stream.destroy();
    this.#fail("timeout");
    return Infinity;
  }

  #fail(reason: HandshakeFailure, closed = true): void {
    const { stats, log } = this.#listener.context;
    stats.tls.failed(reason);
    log.debug(
      { code: reason, listener: this.#listener.id, client: this.#client.address },
      "no TLS handshake",
    );
    this.#leave();
    if (closed) this.#listener.onConnectionClosed(this);
  }

  #leave(): void {
    if (this.#over) return;
    this.#over = true;
    this.#listener.context.wheel.forget(this);
    this.#listener.context.stats.tls.handshaking -= 1;
  }

  /** Called from within Node's TLS, where an exception would end the process. */
  #guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#listener.context.onFault(error);
    }
  }
}
