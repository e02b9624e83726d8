import tls from "node:tls";
import { OwnBuffer } from "../receive.ts";
import { type TcpHandle, WriteRequest } from "../handle.ts";
import type { SecuredHandle } from "../wire.ts";

/**
 * TLS on an accepted handle, below `tls.TLSSocket`: Node's own TLS stream has the interface of a TCP handle, so a wire
 * works on it as on plain TCP. What `TLSSocket` adds costs more than the cryptography of a small request, and per
 * connection as much as a resumed handshake.
 */
interface TlsWrap {
  reading: boolean;
  onhandshakedone: () => void;
  /** `name` is what the client asked for, or empty. Answered by `sni_context` and `certCbDone`. */
  oncertcb: (info: { readonly servername: string }) => void;
  onerror: (error: NodeJS.ErrnoException & { reason?: string }) => void;
  /** Clear text; undefined when the connection has ended. A socket made on this replaces it. */
  onread: (bytes: ArrayBuffer | undefined) => void;
  close: (done?: () => void) => void;
  reset: (done?: () => void) => number;
  sni_context: unknown;
  readonly writeQueueSize: number;
  readStart(): number;
  readStop(): number;
  receive(bytes: Uint8Array): void;
  enableCertCb(): void;
  certCbDone(): void;
  destroySSL(): void;
  setALPNProtocols(wireFormat: Buffer): void;
  getALPNNegotiatedProtocol(): string | false;
  getServername(): string | false;
  getProtocol(): string;
  isSessionReused(): boolean;
  writeLatin1String(request: WriteRequest, text: string): number;
  writeBuffer(request: WriteRequest, bytes: Uint8Array): number;
}

interface RawTcp extends TcpHandle {
  reading: boolean;
  /** Bytes that the kernel has not taken yet. */
  readonly writeQueueSize: number;
  close(done?: () => void): void;
  reset(done?: () => void): number;
}

/** What Node's `_wrapHandle` needs of the socket it is called on. */
class WrapOwner {
  readonly _tlsOptions: { readonly secureContext: tls.SecureContext; readonly isServer: true };

  constructor(secureContext: tls.SecureContext) {
    this._tlsOptions = { secureContext, isServer: true };
  }

  on(): void {}

  /** "There is a listener already": the handle is closed here. */
  listenerCount(): number {
    return 1;
  }
}

const { _wrapHandle: wrapHandle } = tls.TLSSocket.prototype as unknown as {
  _wrapHandle: (this: WrapOwner, socket: null, handle: unknown, hasActiveWrite: boolean) => TlsWrap;
};

export interface TlsStreamEvents {
  /** The handshake is over; from here on the stream may be handed to a wire, at once. */
  onSecured(): void;
  /** Which context to go on with; undefined: the one it was opened with. Called when `asksName`. */
  onName(name: string): tls.SecureContext | undefined;
  /** Not a handshake, or not one that is accepted here; `code` is Node's, like `ERR_SSL_HTTP_REQUEST`. */
  onFailed(code: string): void;
  /** The client left before the handshake was over. */
  onGone(): void;
}

export interface TlsStreamOptions {
  readonly context: tls.SecureContext;
  /** In wire format (RFC 7301 3.1). */
  readonly alpn: Buffer;
  readonly asksName: boolean;
}

interface OwnRequest extends WriteRequest {
  stream: TlsStream | undefined;
}

/** Up to here, what has to wait for Node and not for the client is taken without asking the sender to stop. */
const QUEUE_BYTES_MAX = 65_536;

/**
 * One TLS connection of a client. Node's stream takes one write at a time and says only later that it is done with it,
 * even when the kernel took it all at once; so writes in between wait here, and are sent as one.
 */
export class TlsStream implements SecuredHandle {
  readonly carrier: TcpHandle;
  /** 1 while the last write has to wait: its request is completed later. */
  writeQueueSize = 0;
  onFailed: (code: string) => void = () => undefined;
  readonly #tcp: RawTcp;
  readonly #wrap: TlsWrap;
  #events: TlsStreamEvents | undefined;
  /** A write is with Node. */
  #busy = false;
  /** Whoever waits for the write that is with Node. */
  #told: WriteRequest[] = [];
  /** Written since, and who waits for it. */
  #queue: (string | Uint8Array)[] = [];
  #queuedBytes = 0;
  #queueTold: WriteRequest[] = [];
  #afterWrites: (() => void) | undefined;

  constructor(handle: unknown, options: TlsStreamOptions, events: TlsStreamEvents) {
    const tcp = handle as RawTcp;
    this.#tcp = tcp;
    this.#events = events;
    tcp.setNoDelay(true);
    const wrap = wrapHandle.call(new WrapOwner(options.context), null, handle, false);
    this.#wrap = wrap;
    this.carrier = wrap as unknown as TcpHandle;
    wrap.setALPNProtocols(options.alpn);
    wrap.onhandshakedone = () => this.#secured();
    wrap.onerror = (error) => this.#failed(error.code ?? error.reason ?? "ERR_SSL");
    // Before the handshake is over there is no clear text: this is the end.
    wrap.onread = () => this.#take()?.onGone();
    if (options.asksName) {
      wrap.oncertcb = ({ servername }) => this.#named(servername);
      wrap.enableCertCb();
    }
    wrap.close = (done) => tcp.close(() => this.#closed(done));
    wrap.reset = (done) => tcp.reset(() => this.#closed(done));
  }

  /** Reads. Events may come before it returns, when there is something `early`: read already. */
  start(early: Uint8Array | undefined): void {
    this.#wrap.readStart();
    if (early !== undefined) this.#wrap.receive(early);
  }

  get protocol(): string {
    return this.#wrap.getProtocol();
  }

  /** What was agreed on; empty when the client offered nothing. */
  get alpn(): string {
    const agreed = this.#wrap.getALPNNegotiatedProtocol();
    return agreed === false ? "" : agreed;
  }

  get serverName(): string {
    const name = this.#wrap.getServername();
    return name === false ? "" : name;
  }

  get reused(): boolean {
    return this.#wrap.isSessionReused();
  }

  /** Gives up TLS, as if nothing had been read: the handle, for an answer in plain words. */
  surrender(): unknown {
    this.#events = undefined;
    this.#wrap.destroySSL();
    Object.defineProperty(this.#tcp, "reading", { value: true, writable: true, configurable: true });
    return this.#tcp;
  }

  /** Sends `bytes` as they are, without TLS, and closes. Only before the handshake is over. */
  closeWith(bytes: Uint8Array): void {
    this.#events = undefined;
    const request = new WriteRequest();
    request.bytes = bytes;
    this.#tcp.writeBuffer(request, bytes);
    this.destroy();
  }

  /** Only while no wire has it. */
  destroy(): void {
    this.#events = undefined;
    this.#wrap.close();
  }

  readStart(): number {
    return this.#wrap.readStart();
  }

  readStop(): number {
    return this.#wrap.readStop();
  }

  setNoDelay(): void {
    // It was set when the connection was accepted.
  }

  writeLatin1String(request: WriteRequest, text: string): number {
    return this.#write(request, text);
  }

  writeBuffer(request: WriteRequest, bytes: Uint8Array): number {
    return this.#write(request, bytes);
  }

  /** Calls `run` when everything written so far is with the kernel: before the end of our direction is sent. */
  afterWrites(run: () => void): void {
    if (this.#busy) this.#afterWrites = run;
    else run();
  }

  /** The write that Node had is done, or failed. */
  written(status: number): void {
    const told = this.#told;
    this.#told = [];
    this.#busy = false;
    if (status === 0 && this.#queue.length > 0) this.#sendQueued();
    for (const request of told) request.oncomplete(status);
    if (status !== 0) this.#failQueued(status);
    if (this.#busy || this.#afterWrites === undefined) return;
    const run = this.#afterWrites;
    this.#afterWrites = undefined;
    run();
  }

  #write(request: WriteRequest, piece: string | Uint8Array): number {
    if (this.#busy) {
      this.#enqueue(request, piece);
      return 0;
    }
    const status = this.#give(piece);
    this.writeQueueSize = status === 0 && this.#tcp.writeQueueSize > 0 ? 1 : 0;
    if (this.writeQueueSize > 0) this.#told.push(request);
    return status;
  }

  #give(piece: string | Uint8Array): number {
    const own = new WriteRequest() as OwnRequest;
    own.stream = this;
    own.oncomplete = onWritten as OwnRequest["oncomplete"];
    const status =
      typeof piece === "string"
        ? this.#wrap.writeLatin1String(own, piece)
        : this.#wrap.writeBuffer(own, piece);
    this.#busy = status === 0;
    return status;
  }

  #enqueue(request: WriteRequest, piece: string | Uint8Array): void {
    this.#queue.push(piece);
    this.#queuedBytes += piece.length;
    // Bytes in a receiver's own buffer would be overwritten: it must not read on.
    const lasting = typeof piece === "string" || OwnBuffer.of(piece) === undefined;
    this.writeQueueSize = lasting && this.#queuedBytes <= QUEUE_BYTES_MAX ? 0 : 1;
    if (this.writeQueueSize > 0) this.#queueTold.push(request);
  }

  /** Everything that waits, as one write: TLS records are filled, and one callback is enough. */
  #sendQueued(): void {
    const queue = this.#queue;
    this.#told = this.#queueTold;
    this.#queue = [];
    this.#queueTold = [];
    this.#queuedBytes = 0;
    const status = this.#give(
      queue.length === 1
        ? queue[0]!
        : Buffer.concat(queue.map((piece) => (typeof piece === "string" ? latin1Bytes(piece) : piece))),
    );
    if (status !== 0) this.#failQueued(status);
  }

  #failQueued(status: number): void {
    const waiting = [...this.#told, ...this.#queueTold];
    this.#told = [];
    this.#queue = [];
    this.#queueTold = [];
    for (const request of waiting) request.oncomplete(status);
  }

  /** The first time only: renegotiation is off, but new tickets and keys are told of in the same way. */
  #secured(): void {
    const events = this.#take();
    if (events === undefined) return;
    this.#wrap.reading = true; // It is: whoever makes a socket of it need not start.
    events.onSecured();
  }

  #named(name: string): void {
    const context = this.#events?.onName(name);
    if (this.#events === undefined) return; // Refused.
    if (context !== undefined) this.#wrap.sni_context = context.context;
    this.#wrap.certCbDone();
  }

  #failed(code: string): void {
    const events = this.#take();
    if (events === undefined) this.onFailed(code);
    else events.onFailed(code);
  }

  #take(): TlsStreamEvents | undefined {
    const events = this.#events;
    this.#events = undefined;
    return events;
  }

  #closed(done: (() => void) | undefined): void {
    this.#wrap.destroySSL();
    done?.();
  }
}

function latin1Bytes(text: string): Buffer {
  return Buffer.from(text, "latin1");
}

function onWritten(this: OwnRequest, status: number): void {
  const { stream } = this;
  this.stream = undefined;
  stream?.written(status);
}
