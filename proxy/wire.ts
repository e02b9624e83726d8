import net from "node:net";
import { getSystemErrorName } from "node:util";
import { latin1 } from "./bytes.ts";
import {
  DONE_AT_ONCE,
  END_OF_FILE,
  NOT_CONNECTED,
  READ_SIZE,
  ShutdownRequest,
  type TcpHandle,
  WRITE_WAITS,
  type WriteHandle,
  WriteRequest,
  streamState,
  takeHandle,
} from "./handle.ts";
import { OwnBuffer, sharedBytes } from "./receive.ts";
import { endRead, readEnd } from "./turn.ts";

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

/** A handle that speaks TLS (tls/stream.ts): bytes come and the end is sent on `carrier`, writes go through it. */
export interface SecuredHandle extends WriteHandle {
  readonly carrier: TcpHandle;
  /** After a write: above zero when its request is completed later. */
  readonly writeQueueSize: number;
  /** Set by the wire: TLS broke. */
  onFailed: (code: string) => void;
  /** Calls `run` when what was written so far is with the kernel. */
  afterWrites(run: () => void): void;
}

/** Up to here, making a string of the bytes is cheaper than putting them into a buffer. */
const TEXT_BYTES_MAX = 4_096;

/** What one read and a head before it need. */
const SCRATCH_BYTES = 131_072;
/**
 * Where messages are put together. What the kernel takes at once leaves it free for the next; else it belongs to that
 * write, and there is a new one. A buffer for each message would be 64 KiB of garbage outside of the heap a read.
 */
let scratch: Buffer | undefined;

/** A write that the kernel takes at once does not keep its request, so the next write may use it. */
let spareRequest: WriteRequest | undefined;

function newRequest(): WriteRequest {
  const request = new WriteRequest();
  request.oncomplete = onWritten;
  return request;
}

function onWritten(this: WriteRequest, status: number): void {
  const { wire, bytes } = this;
  this.wire = undefined;
  this.bytes = undefined;
  if (bytes !== undefined) OwnBuffer.of(bytes)?.letGo();
  wire?.noteWritten(status);
}

/** Called by Node for each read; what it returns is where the next one goes. */
function onRead(this: TcpHandle): Uint8Array | undefined {
  return this.wire!.noteRead(streamState[READ_SIZE]!);
}

function onShutDown(this: ShutdownRequest, status: number): void {
  this.wire!.noteShutDown(status);
}

/**
 * One TCP connection, as thin as it gets: no streams, one shared receive buffer, errors of its user caught here so that
 * they cost one connection and not the process.
 */
export class Wire {
  /** Changes when a connection changes hands: from HTTP to a tunnel. */
  user: WireUser;
  readonly #onFault: (error: unknown) => void;
  /** Where bytes are read from, and what is closed. */
  #handle: TcpHandle | undefined;
  /** Where bytes are written to: the same, but with TLS. */
  #writes: WriteHandle | undefined;
  #secured: SecuredHandle | undefined;
  /** Until it is connected. */
  #dialing: net.Socket | undefined;
  #error = "";
  #closed = false;
  #paused = false;
  /** The peer's direction is over; ours is: when both are, the connection is closed. */
  #peerEnded = false;
  #ending = false;
  #ended = false;
  /** Writes that wait for the kernel. */
  #waiting = 0;
  /** Written before the connection stood. */
  #early: (string | Uint8Array)[] | undefined;
  /** What it receives into instead of the shared buffer. */
  #own: OwnBuffer | undefined;
  #current: Buffer = sharedBytes;
  #mayOwn = false;
  #filled = false;

  /** Takes over an accepted handle. */
  static accept(handle: unknown, user: WireUser, onFault: (error: unknown) => void): Wire {
    const wire = new Wire(user, onFault);
    wire.#take(handle as TcpHandle | SecuredHandle);
    return wire;
  }

  static dial(host: string, port: number, user: WireUser, onFault: (error: unknown) => void): Wire {
    const wire = new Wire(user, onFault);
    wire.#dial(host, port);
    return wire;
  }

  private constructor(user: WireUser, onFault: (error: unknown) => void) {
    this.user = user;
    this.#onFault = onFault;
  }

  get closed(): boolean {
    return this.#closed;
  }

  get peerAddress(): string {
    const out: { address?: string } = {};
    this.#handle?.getpeername(out);
    return out.address ?? "";
  }

  /** Sends Latin-1 text. False: the kernel has not taken it all, wait for `onDrain`. */
  writeText(text: string): boolean {
    const handle = this.#writes;
    if (this.#closed) return true;
    if (handle === undefined) return this.#later(text);
    const request = (spareRequest ??= newRequest());
    return this.#sent(request, handle.writeLatin1String(request, text));
  }

  /** Sends bytes that will never change again, without copying. False: wait for `onDrain`. */
  writeWhole(bytes: Uint8Array): boolean {
    const handle = this.#writes;
    if (this.#closed) return true;
    if (handle === undefined) return this.#later(bytes);
    const request = (spareRequest ??= newRequest());
    request.bytes = bytes;
    return this.#sent(request, handle.writeBuffer(request, bytes));
  }

  /**
   * Sends `bytes[from, to)`. Copies what has to wait, unless it is in a buffer of its receiver's own: that one must
   * not read on then. False: wait for `onDrain`.
   */
  writeBytes(bytes: Buffer, from: number, to: number): boolean {
    if (to - from <= TEXT_BYTES_MAX) return this.writeText(latin1(bytes, from, to));
    if (OwnBuffer.of(bytes) !== undefined) return this.writeWhole(bytes.subarray(from, to));
    return this.#writeTogether("", bytes, from, to, "");
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
    return this.#writeTogether(before, bytes, from, to, after);
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
    if (!this.#closed) this.#handle?.readStop();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (!this.#closed && !this.#peerEnded) this.#handle?.readStart();
  }

  /** Sends the rest and then the end; the peer may go on sending. */
  end(): void {
    if (this.#ending || this.#closed) return;
    this.#ending = true;
    this.#endSoon();
  }

  /** Closes at once; what is queued is lost. */
  destroy(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#handle === undefined) this.#dialing?.destroy();
    else this.#handle.close(() => this.#noteClosed());
  }

  /** Closes with a reset, so that the peer cannot take what it got for the whole. */
  reset(): void {
    if (this.#closed) return;
    // Once our end is sent, there is nothing to reset.
    if (this.#handle === undefined || this.#ending) return this.destroy();
    this.#closed = true;
    const closed = () => this.#noteClosed();
    if (this.#handle.reset(closed) !== 0) this.#handle.close(closed);
  }

  /** A read has ended: bytes in the current buffer, or below zero its error. Only for the handle's own callback. */
  noteRead(size: number): Uint8Array | undefined {
    if (this.#closed || size === 0) return undefined;
    if (size < 0) {
      if (size === END_OF_FILE) this.#peerHasEnded();
      else this.#fail(size);
      return undefined;
    }
    this.#filled = size === this.#current.length;
    readEnd.reading = true;
    try {
      this.user.onBytes(this.#current, size);
    } catch (error) {
      this.#fault(error);
    }
    if (readEnd.work === undefined) readEnd.reading = false;
    else endRead();
    return this.#nextBuffer();
  }

  /** A write that had to wait is done, or failed; only for the write's own callback. */
  noteWritten(status: number): void {
    this.#waiting -= 1;
    if (status < 0) this.#fail(status);
    else if (this.#waiting === 0 && !this.#closed) this.#guard(() => this.user.onDrain());
  }

  /** Our end is sent, or could not be; only for that request's own callback. */
  noteShutDown(status: number): void {
    this.#ended = true;
    if (status < 0 && status !== NOT_CONNECTED) this.#fail(status);
    else if (this.#peerEnded) this.destroy();
  }

  #take(given: TcpHandle | SecuredHandle): void {
    const secured = "carrier" in given ? given : undefined;
    const handle = secured === undefined ? (given as TcpHandle) : secured.carrier;
    this.#handle = handle;
    this.#writes = given;
    handle.wire = this;
    handle.onread = onRead;
    handle.useUserBuffer(sharedBytes);
    if (secured === undefined) handle.setNoDelay(true);
    else this.#secure(secured);
    if (!this.#paused) handle.readStart();
  }

  #secure(secured: SecuredHandle): void {
    this.#secured = secured;
    secured.onFailed = (code) => {
      this.#error = code;
      this.destroy();
    };
  }

  /** A socket of Node resolves names and tries their addresses; when it is connected its handle is taken from it. */
  #dial(host: string, port: number): void {
    const socket = new net.Socket();
    this.#dialing = socket;
    socket.pause(); // Else it would read.
    socket.once("connect", () => this.#guard(() => this.#connected(takeHandle(socket))));
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#error = error.code ?? error.message;
    });
    socket.once("close", () => {
      this.#closed = true;
      this.#noteClosed();
    });
    socket.connect({ host, port });
  }

  #connected(handle: TcpHandle): void {
    this.#dialing = undefined;
    this.#take(handle);
    const early = this.#early;
    this.#early = undefined;
    for (const piece of early ?? []) {
      if (typeof piece === "string") this.writeText(piece);
      else this.writeWhole(piece);
    }
    if (this.#ending) this.#endSoon();
    this.user.onConnected();
    if (early !== undefined && this.#waiting === 0 && !this.#closed) this.user.onDrain();
  }

  /** Sends our end behind what was written. */
  #endSoon(): void {
    const handle = this.#handle;
    if (handle === undefined || this.#closed) return;
    if (this.#secured === undefined) this.#shutDown(handle);
    else this.#secured.afterWrites(() => this.#shutDown(handle));
  }

  #shutDown(handle: TcpHandle): void {
    if (this.#closed) return;
    const request = new ShutdownRequest();
    request.oncomplete = onShutDown;
    request.wire = this;
    const status = handle.shutdown(request);
    if (status !== 0) this.noteShutDown(status === DONE_AT_ONCE ? 0 : status);
  }

  #peerHasEnded(): void {
    this.#peerEnded = true;
    this.#guard(() => this.user.onEnd());
    if (this.#ended) this.destroy();
  }

  #noteClosed(): void {
    this.#own?.release();
    this.#own = undefined;
    this.#guard(() => this.user.onClosed(this.#error));
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

  /** Copies it all into one piece. */
  #writeTogether(before: string, bytes: Buffer, from: number, to: number, after: string): boolean {
    const size = before.length + to - from + after.length;
    // A secured handle, and a wire that is not connected, keep what they are given.
    const lasting = size > SCRATCH_BYTES || this.#secured !== undefined || this.#handle === undefined;
    const whole = lasting
      ? Buffer.allocUnsafeSlow(size)
      : (scratch ??= Buffer.allocUnsafeSlow(SCRATCH_BYTES));
    if (before !== "") whole.latin1Write(before, 0);
    bytes.copy(whole, before.length, from, to);
    if (after !== "") whole.latin1Write(after, size - after.length);
    if (lasting) return this.writeWhole(whole);
    const taken = this.writeWhole(whole.subarray(0, size));
    if (!taken) scratch = undefined;
    return taken;
  }

  #later(piece: string | Uint8Array): false {
    this.#early ??= [];
    this.#early.push(piece);
    return false;
  }

  #sent(request: WriteRequest, status: number): boolean {
    if (status !== 0) {
      request.bytes = undefined;
      this.#fail(status);
      return true;
    }
    const secured = this.#secured;
    if ((secured === undefined ? streamState[WRITE_WAITS] : secured.writeQueueSize) === 0) {
      request.bytes = undefined;
      return true;
    }
    request.wire = this;
    if (request.bytes !== undefined) OwnBuffer.of(request.bytes)?.hold();
    spareRequest = undefined;
    this.#waiting += 1;
    return false;
  }

  #fail(status: number): void {
    if (this.#closed) return;
    this.#error = getSystemErrorName(status);
    this.destroy();
  }

  #guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#fault(error);
    }
  }

  #fault(error: unknown): void {
    this.destroy();
    this.#onFault(error);
  }
}
