const NO_BYTES = Buffer.alloc(0);

/**
 * What is at hand of one request's body: the bytes of the read that is being handled, and those kept because they are
 * not sent yet or may have to be sent again. A body that has outgrown its bound, or must not be sent twice, is let go.
 */
export class ReplayBody {
  /** Everything sent so far can be sent again. */
  replayable = true;
  /** What to send, with the head of an attempt: `bytes[from, to)`. */
  bytes: Buffer = NO_BYTES;
  from = 0;
  to = 0;
  /** `bytes` are ours, not the shared buffer's. */
  #owned = true;

  /** The first bytes of a body; they are gone when the read is over, unless `keep` is called before. */
  begin(bytes: Buffer, from: number, to: number): void {
    this.replayable = true;
    this.bytes = bytes;
    this.from = from;
    this.to = to;
    this.#owned = false;
  }

  /** The read is over: copies what is still needed. */
  keep(): void {
    if (this.#owned) return;
    const { bytes, from, to } = this;
    this.clear();
    if (to > from) this.add(bytes, from, to);
  }

  /** More bytes, before anything could be sent. */
  add(bytes: Buffer, from: number, to: number): void {
    if (to === from) return;
    this.keep();
    const piece = Buffer.from(bytes.subarray(from, to));
    this.bytes = this.to === 0 ? piece : Buffer.concat([this.bytes, piece]);
    this.to = this.bytes.length;
  }

  /** What is at hand was sent; it is kept for another attempt when `resendable` and no longer than `bytesMax`. */
  noteSent(resendable: boolean, bytesMax: number): void {
    if (this.to === this.from) this.clear();
    else if (resendable && this.to - this.from <= bytesMax) this.keep();
    else this.#letGo();
  }

  /** `bytes[from, to)` were sent behind all before. */
  noteMoreSent(bytes: Buffer, from: number, to: number, resendable: boolean, bytesMax: number): void {
    if (!this.replayable || to === from) return;
    if (resendable && this.to + to - from <= bytesMax) this.add(bytes, from, to);
    else this.#letGo();
  }

  clear(): void {
    this.bytes = NO_BYTES;
    this.from = 0;
    this.to = 0;
    this.#owned = true;
  }

  #letGo(): void {
    this.replayable = false;
    this.clear();
  }
}
