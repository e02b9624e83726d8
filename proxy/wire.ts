import net from "node:net";
import { getSystemErrorName } from "node:util";
import { latin1 } from "./bytes.ts";
import { OwnBuffer, sharedBytes } from "./receive.ts";

/** Whoever owns a wire. Bytes are shared: they may be used, and changed, only until the call returns. */
export interface WireUser {
  /** Only of a wire made by `dial`, once, before anything else. */
  onConnected(): void;
  onBytes(bytes: Buffer, size: number): void;
  /** The peer will send nothing more; it may still receive. */
  onEnd(): void;
  /** What was queued is written; called after a write returned false. */
  onDrain(): void;
  /** The last call, exactly one, however the connection ended. `error` is the system's code, or empty. */
  onClosed(error: string): void;
}

/**
 * A TCP handle of Node, below `net.Socket`. Internal, and worth it: a receive buffer of our own on accepted sockets,
 * and writes that cost a system call and little else (a stream's `write` was 3 of 14 µs of a request).
 */
export interface TcpHandle {
  readStart(): number;
  readStop(): number;
  setNoDelay(on: boolean): void;
  writeLatin1String(request: WriteRequest, text: string): number;
  writeBuffer(request: WriteRequest, bytes: Uint8Array): number;
  /** Bytes that the kernel has not taken yet. */
  readonly writeQueueSize: number;
}

/** A handle that speaks TLS (tls/stream.ts): the socket is made on `carrier`, writes go through the handle. */
export interface SecuredHandle extends TcpHandle {
  readonly carrier: object;
  /** Set by the wire: TLS broke. */
  onFailed: (code: string) => void;
  /** Calls `run` when what was written so far is with the kernel. */
  afterWrites(run: () => void): void;
}

/** What a handle calls back when a write had to wait for the kernel. */
export interface WriteRequest {
  oncomplete: (this: WriteRequest, status: number) => void;
  wire: Wire | undefined;
  /** Kept from the garbage collector until it is written. */
  bytes: Uint8Array | undefined;
}

/** Up to here, making a string of the bytes is cheaper than copying them into a buffer of their own. */
const TEXT_BYTES_MAX = 16_384;

/** A write that the kernel takes at once does not keep its request, so the next write may use it. */
let spareRequest: WriteRequest | undefined;
let WriteRequestClass: (new () => WriteRequest) | undefined;

function newRequest(): WriteRequest {
  const request = newWriteRequest();
  request.oncomplete = onWritten;
  return request;
}

/** A request that nothing is called of; for one write. */
export function newWriteRequest(): WriteRequest {
  WriteRequestClass ??= learnRequestClass();
  return new WriteRequestClass();
}

/** Node does not export the class of write requests: a socket on a handle that does nothing shows one. */
function learnRequestClass(): new () => WriteRequest {
  let learned: (new () => WriteRequest) | undefined;
  const handle = {
    readStart: () => 0,
    close: (done: () => void) => done(),
    writeLatin1String: (request: WriteRequest) => {
      learned = request.constructor as new () => WriteRequest;
      return 0;
    },
  };
  const socket = new net.Socket({ handle } as unknown as net.SocketConstructorOpts);
  socket.write("x", "latin1");
  socket.destroy();
  if (learned === undefined) throw new Error("this version of Node writes to sockets in another way");
  return learned;
}

function onWritten(this: WriteRequest, status: number): void {
  const { wire, bytes } = this;
  this.wire = undefined;
  this.bytes = undefined;
  if (bytes !== undefined) OwnBuffer.of(bytes)?.letGo();
  wire?.noteWritten(status);
}

/**
 * One TCP connection, as thin as it gets: no streams for data, one shared receive buffer, errors of its user caught
 * here so that they cost one connection and not the process.
 */
export class Wire {
  /** Changes when a connection changes hands: from HTTP to a tunnel. */
  user: WireUser;
  readonly #socket: net.Socket;
  readonly #onFault: (error: unknown) => void;
  #handle: TcpHandle | undefined;
  #error = "";
  #closed = false;
  #paused = false;
  /** Writes that wait for the kernel. */
  #waiting = 0;
  /** Written before the connection stood. */
  #early: (string | Uint8Array)[] | undefined;
  /** What it receives into instead of the shared buffer. */
  #own: OwnBuffer | undefined;
  #current: Buffer | undefined;
  #mayOwn = false;
  #filled = false;
  #secured: SecuredHandle | undefined;

  /** Takes over an accepted handle. */
  static accept(handle: unknown, user: WireUser, onFault: (error: unknown) => void): Wire {
    const tcp = handle as TcpHandle & Partial<SecuredHandle>;
    tcp.setNoDelay(true);
    const wire = new Wire({ handle: tcp.carrier ?? tcp }, user, onFault);
    wire.#handle = tcp;
    if (tcp.carrier !== undefined) wire.#secure(tcp as SecuredHandle);
    return wire;
  }

  static dial(host: string, port: number, user: WireUser, onFault: (error: unknown) => void): Wire {
    const wire = new Wire({ noDelay: true }, user, onFault);
    wire.#socket.once("connect", () => wire.#guard(() => wire.#connected()));
    wire.#socket.connect({ host, port });
    return wire;
  }

  private constructor(
    options: { handle?: object; noDelay?: boolean },
    user: WireUser,
    onFault: (error: unknown) => void,
  ) {
    this.user = user;
    this.#onFault = onFault;
    const socket = new net.Socket({
      ...options,
      readable: true,
      writable: true,
      allowHalfOpen: true,
      onread: {
        buffer: () => this.#nextBuffer(),
        callback: (size: number, bytes: Uint8Array) => {
          this.#filled = size === bytes.length;
          try {
            this.user.onBytes(bytes as Buffer, size);
          } catch (error) {
            this.#fault(error);
          }
          return true;
        },
      },
    } as net.SocketConstructorOpts);
    this.#socket = socket;
    socket.on("end", () => this.#guard(() => this.user.onEnd()));
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#error = error.code ?? error.message;
    });
    socket.on("close", () => {
      this.#closed = true;
      this.#own?.release();
      this.#own = undefined;
      this.#guard(() => this.user.onClosed(this.#error));
    });
    socket.resume();
  }

  get closed(): boolean {
    return this.#closed || this.#socket.destroyed;
  }

  get peerAddress(): string {
    return this.#socket.remoteAddress ?? "";
  }

  /** Sends Latin-1 text. False: the kernel has not taken it all, wait for `onDrain`. */
  writeText(text: string): boolean {
    const handle = this.#handle;
    if (this.#socket.destroyed) return true;
    if (handle === undefined) return this.#later(text);
    const request = (spareRequest ??= newRequest());
    return this.#sent(handle, request, handle.writeLatin1String(request, text));
  }

  /** Sends bytes that will never change again, without copying. False: wait for `onDrain`. */
  writeWhole(bytes: Uint8Array): boolean {
    const handle = this.#handle;
    if (this.#socket.destroyed) return true;
    if (handle === undefined) return this.#later(bytes);
    const request = (spareRequest ??= newRequest());
    request.bytes = bytes;
    return this.#sent(handle, request, handle.writeBuffer(request, bytes));
  }

  /**
   * Sends `bytes[from, to)`. Copies what has to wait, unless it is in a buffer of its receiver's own: that one must
   * not read on then. False: wait for `onDrain`.
   */
  writeBytes(bytes: Buffer, from: number, to: number): boolean {
    if (to - from <= TEXT_BYTES_MAX) return this.writeText(latin1(bytes, from, to));
    const piece = bytes.subarray(from, to);
    return this.writeWhole(OwnBuffer.of(bytes) === undefined ? Buffer.from(piece) : piece);
  }

  /**
   * Sends `text`, then `bytes[from, to)`, as a chunk when `chunked`, and the last chunk behind it when also `last`;
   * in one write. False: wait for `onDrain`.
   */
  writeWithText(
    text: string,
    bytes: Buffer,
    from: number,
    to: number,
    chunked: boolean,
    last: boolean,
  ): boolean {
    const size = to - from;
    let before = text;
    let after = "";
    if (chunked) {
      if (size > 0) {
        before += `${size.toString(16)}\r\n`;
        after = "\r\n";
      }
      if (last) after += "0\r\n\r\n";
    }
    if (size <= TEXT_BYTES_MAX) return this.writeText(before + latin1(bytes, from, to) + after);
    const framed = OwnBuffer.of(bytes)?.frame(bytes, from, to, before, after);
    if (framed !== undefined) return this.writeWhole(framed);
    const whole = Buffer.allocUnsafeSlow(before.length + size + after.length);
    whole.write(before, 0, "latin1");
    whole.set(bytes.subarray(from, to), before.length);
    whole.write(after, before.length + size, "latin1");
    return this.writeWhole(whole);
  }

  /**
   * From here on a read that fills the shared buffer gets this wire one of its own. Only for users that pause when a
   * write of what they received returns false, and that say `receiveShared` at the end of a message.
   */
  mayReceiveOwn(): void {
    this.#mayOwn = true;
  }

  /** The next read goes into the shared buffer again. Only from within `onBytes`. */
  receiveShared(): void {
    this.#mayOwn = false;
  }

  /** Stops reading: the peer's window fills, and memory here does not. */
  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    if (this.#handle === undefined) this.#socket.pause();
    else if (!this.closed) this.#handle.readStop();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.closed) return;
    if (this.#socket.isPaused()) this.#socket.resume();
    else this.#handle?.readStart();
  }

  /** Sends the rest and then the end; the peer may go on sending. */
  end(): void {
    if (this.#secured === undefined) this.#socket.end();
    else this.#secured.afterWrites(() => this.#socket.end());
  }

  /** Closes at once; what is queued is lost. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** Closes with a reset, so that the peer cannot take what it got for the whole. */
  reset(): void {
    if (this.#secured === undefined) this.#socket.resetAndDestroy();
    else {
      // What `resetAndDestroy` does, which refuses every handle but plain TCP.
      (this.#socket as unknown as { resetAndClosing: boolean }).resetAndClosing = true;
      this.#socket.destroy();
    }
  }

  /** A write that had to wait is done, or failed; only for the write's own callback. */
  noteWritten(status: number): void {
    this.#waiting -= 1;
    if (status < 0) this.#writeFailed(status);
    else if (this.#waiting === 0 && !this.closed) this.#guard(() => this.user.onDrain());
  }

  /** Where the next read goes; undefined: where the last one went. */
  #nextBuffer(): Buffer | undefined {
    let wanted = sharedBytes;
    if (this.#mayOwn && (this.#own !== undefined || this.#filled)) {
      this.#own ??= OwnBuffer.take();
      wanted = this.#own.bytes;
    } else if (this.#own !== undefined) {
      this.#own.release();
      this.#own = undefined;
    }
    if (wanted === this.#current) return undefined;
    this.#current = wanted;
    return wanted;
  }

  #connected(): void {
    this.#handle = (this.#socket as unknown as { _handle: TcpHandle | null })._handle ?? undefined;
    const early = this.#early;
    this.#early = undefined;
    for (const piece of early ?? []) {
      if (typeof piece === "string") this.writeText(piece);
      else this.writeWhole(piece);
    }
    this.user.onConnected();
    if (early !== undefined && this.#waiting === 0 && !this.closed) this.user.onDrain();
  }

  #secure(handle: SecuredHandle): void {
    this.#secured = handle;
    handle.onFailed = (code) => {
      this.#error = code;
      this.#socket.destroy();
    };
  }

  #later(piece: string | Uint8Array): false {
    this.#early ??= [];
    this.#early.push(piece);
    return false;
  }

  #sent(handle: TcpHandle, request: WriteRequest, status: number): boolean {
    if (status !== 0) {
      request.bytes = undefined;
      this.#writeFailed(status);
      return true;
    }
    if (handle.writeQueueSize === 0) {
      request.bytes = undefined;
      return true;
    }
    request.wire = this;
    if (request.bytes !== undefined) OwnBuffer.of(request.bytes)?.hold();
    spareRequest = undefined;
    this.#waiting += 1;
    return false;
  }

  #writeFailed(status: number): void {
    if (this.closed) return;
    this.#error = getSystemErrorName(status);
    this.#socket.destroy();
  }

  #guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#fault(error);
    }
  }

  #fault(error: unknown): void {
    this.#socket.destroy();
    this.#onFault(error);
  }
}
