import type { Downstream } from "../sides.ts";
import type { EngineStats } from "../stats.ts";
import type { Coding } from "./compression.ts";
import { Compressor, type CompressorUser } from "./compressor.ts";

const NO_BYTES = Buffer.alloc(0);

/** Whose response it is. */
export interface CompressedBodyUser {
  /** So much went to the client. Not `flowing`: it takes no more for now, and `resume` is to be called when it does. */
  onCompressedSent(bytes: number, flowing: boolean): void;
  /** All of it went to the client. */
  onCompressedOver(): void;
  /** More may be written. */
  onCompressorDrained(): void;
  onCompressorFailed(error: Error): void;
}

/** The body of one response, compressed on its way to the client. Counted from its beginning to `end`. */
export class CompressedBody implements CompressorUser {
  readonly #compressor: Compressor;
  readonly #downstream: Downstream;
  readonly #stats: EngineStats;
  readonly #user: CompressedBodyUser;
  #trailers: readonly string[] | undefined;

  constructor(
    coding: Coding,
    flushing: boolean,
    downstream: Downstream,
    stats: EngineStats,
    user: CompressedBodyUser,
  ) {
    this.#downstream = downstream;
    this.#stats = stats;
    this.#user = user;
    this.#compressor = new Compressor(coding, flushing, this);
    stats.compressing += 1;
  }

  /** Copies what it is given. False: it has enough until `onCompressorDrained`. */
  write(bytes: Buffer, from: number, to: number, last: boolean): boolean {
    return this.#compressor.write(bytes, from, to, last);
  }

  /** The body is over, and `trailers` follow it. */
  endWith(trailers: readonly string[]): void {
    this.#trailers = trailers;
    this.#compressor.write(NO_BYTES, 0, 0, true);
  }

  /** The client takes more again. */
  resume(): void {
    this.#compressor.resume();
  }

  /** Over, whether complete or not. */
  end(): void {
    this.#compressor.destroy();
    this.#stats.compressing -= 1;
  }

  onCompressed(bytes: Buffer): boolean {
    const flowing = this.#downstream.sendData(bytes, 0, bytes.length, false);
    this.#user.onCompressedSent(bytes.length, flowing);
    return flowing;
  }

  onCompressedEnd(): void {
    if (this.#trailers === undefined) this.#downstream.sendData(NO_BYTES, 0, 0, true);
    else this.#downstream.sendTrailers(this.#trailers);
    this.#user.onCompressedOver();
  }

  onCompressorDrained(): void {
    this.#user.onCompressorDrained();
  }

  onCompressorFailed(error: Error): void {
    this.#user.onCompressorFailed(error);
  }
}
