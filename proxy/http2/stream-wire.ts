import type { TunnelEnd } from "../tunnel.ts";
import type { WireUser } from "../wire.ts";
import type { Connection } from "./connection.ts";
import { CANCEL } from "./constants.ts";
import type { Stream } from "./stream.ts";

const NO_BYTES = Buffer.alloc(0);

/**
 * A stream of HTTP/2 that carries another protocol's bytes (RFC 8441): to a tunnel it is a wire like a TCP connection.
 * END_STREAM is the end of a direction, RST_STREAM a reset.
 */
export class StreamWire<C> implements TunnelEnd {
  user: WireUser;
  readonly #codec: Connection<C>;
  readonly #stream: Stream<C>;
  /** Octets taken and not given back: the peer's window shrinks while nobody reads. */
  #held = 0;
  #paused = false;
  #peerEnded = false;
  #ended = false;
  #closed = false;

  /** `held` octets of the stream were taken already and are not given back yet. */
  constructor(codec: Connection<C>, stream: Stream<C>, held = 0) {
    this.#codec = codec;
    this.#stream = stream;
    this.#held = held;
    this.user = NOBODY;
  }

  writeBytes(bytes: Buffer, from: number, to: number): boolean {
    return this.#closed || this.#ended || this.#codec.sendData(this.#stream, bytes, from, to, false);
  }

  mayReceiveOwn(): void {}

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    const held = this.#held;
    this.#held = 0;
    if (held > 0 && !this.#closed) this.#codec.consumed(this.#stream, held);
  }

  end(): void {
    if (this.#ended || this.#closed) return;
    this.#ended = true;
    this.#codec.sendData(this.#stream, NO_BYTES, 0, 0, true);
    if (this.#peerEnded) this.#close("");
  }

  destroy(): void {
    if (this.#closed) return;
    if (!(this.#ended && this.#peerEnded)) this.#codec.reset(this.#stream, CANCEL);
    this.#close("");
  }

  reset(): void {
    this.destroy();
  }

  /** What the connection hears of the stream comes in by these. */
  onData(bytes: Buffer, from: number, to: number, last: boolean): void {
    if (this.#closed) return this.#codec.consumed(this.#stream, to - from);
    if (to > from) {
      this.#held += to - from;
      this.user.onBytes(bytes.subarray(from, to), to - from);
      if (!this.#paused) this.resume();
    }
    if (last) this.onPeerEnd();
  }

  onPeerEnd(): void {
    if (this.#peerEnded || this.#closed) return;
    this.#peerEnded = true;
    this.user.onEnd();
    if (this.#ended) this.#close("");
  }

  onDrain(): void {
    if (!this.#closed) this.user.onDrain();
  }

  onReset(): void {
    this.#close("ECONNRESET");
  }

  #close(error: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.user.onClosed(error);
  }
}

const NOBODY: WireUser = {
  onConnected: () => undefined,
  onBytes: () => undefined,
  onEnd: () => undefined,
  onDrain: () => undefined,
  onClosed: () => undefined,
};
