import net from "node:net";
import { latin1 } from "./bytes.ts";

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

/** A raw TCP handle of Node: internal, and the only way to a receive buffer of one's own on accepted sockets. */
interface TcpHandle {
  readStart(): number;
  readStop(): number;
  setNoDelay(on: boolean): void;
  reading: boolean;
}

/** One receive buffer for every wire: whoever is called with it must be done with it when the call returns. */
const RECEIVE_BYTES = 65_536;
const receive = Buffer.allocUnsafeSlow(RECEIVE_BYTES);

/** Up to here, making a string of the bytes is cheaper than copying them into a buffer of their own. */
const TEXT_BYTES_MAX = 16_384;

/**
 * One TCP connection, as thin as it gets: no streams for data, one shared receive buffer, errors of its user caught
 * here so that they cost one connection and not the process.
 */
export class Wire {
  /** Changes when a connection changes hands: from HTTP to a tunnel. */
  user: WireUser;
  readonly #socket: net.Socket;
  readonly #onFault: (error: unknown) => void;
  #error = "";
  #closed = false;
  #paused = false;

  /** Takes over an accepted handle. */
  static accept(handle: unknown, user: WireUser, onFault: (error: unknown) => void): Wire {
    (handle as TcpHandle).setNoDelay(true);
    return new Wire({ handle: handle as object }, user, onFault);
  }

  static dial(host: string, port: number, user: WireUser, onFault: (error: unknown) => void): Wire {
    const wire = new Wire({ noDelay: true }, user, onFault);
    wire.#socket.once("connect", () => wire.#guard(() => wire.user.onConnected()));
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
        buffer: receive,
        callback: (size: number, bytes: Uint8Array) => {
          try {
            this.user.onBytes(bytes as Buffer, size);
          } catch (error) {
            this.#fault(error);
          }
          return !this.#paused;
        },
      },
    } as net.SocketConstructorOpts);
    this.#socket = socket;
    socket.on("end", () => this.#guard(() => this.user.onEnd()));
    socket.on("drain", () => this.#guard(() => this.user.onDrain()));
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#error = error.code ?? error.message;
    });
    socket.on("close", () => {
      this.#closed = true;
      this.#guard(() => this.user.onClosed(this.#error));
    });
    if (options.handle !== undefined) socket.resume();
  }

  get closed(): boolean {
    return this.#closed || this.#socket.destroyed;
  }

  get peerAddress(): string {
    return this.#socket.remoteAddress ?? "";
  }

  /** Sends Latin-1 text. False: enough is queued, wait for `onDrain`. */
  writeText(text: string): boolean {
    return this.#socket.write(text, "latin1");
  }

  /** Sends bytes that will never change again, without copying. False: enough is queued, wait for `onDrain`. */
  writeWhole(bytes: Buffer): boolean {
    return this.#socket.write(bytes);
  }

  /** Sends `bytes[from, to)`, which are copied. False: enough is queued, wait for `onDrain`. */
  writeBytes(bytes: Buffer, from: number, to: number): boolean {
    if (to - from <= TEXT_BYTES_MAX) return this.#socket.write(latin1(bytes, from, to), "latin1");
    return this.#socket.write(Buffer.from(bytes.subarray(from, to)));
  }

  /**
   * Sends `text`, then `bytes[from, to)`, as a chunk when `chunked`, and the last chunk behind it when also `last`;
   * in one write. False: enough is queued, wait for `onDrain`.
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
    const whole = Buffer.allocUnsafeSlow(before.length + size + after.length);
    whole.write(before, 0, "latin1");
    whole.set(bytes.subarray(from, to), before.length);
    whole.write(after, before.length + size, "latin1");
    return this.#socket.write(whole);
  }

  /** Stops reading: the peer's window fills, and memory here does not. */
  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (!this.closed) this.#socket.resume();
  }

  /** Sends the rest and then the end; the peer may go on sending. */
  end(): void {
    this.#socket.end();
  }

  /** Closes at once; what is queued is lost. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** Closes with a reset, so that the peer cannot take what it got for the whole. */
  reset(): void {
    this.#socket.resetAndDestroy();
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
