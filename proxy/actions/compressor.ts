import zlib from "node:zlib";
import type { Coding } from "./compression.ts";

/** Where compressed bytes go. */
export interface CompressorUser {
  /** False: no more until `resume`. */
  onCompressed(bytes: Buffer): boolean;
  /** Everything written is compressed and handed on. */
  onCompressedEnd(): void;
  /** It takes more again. */
  onCompressorDrained(): void;
  onCompressorFailed(error: Error): void;
}

/**
 * Compresses one response as it comes. Both sides have a bound (a stream's 16 KiB each), so a slow client costs no
 * memory: what does not go out is not taken in. `flushing`: every piece goes out at once, for who does not know how
 * much follows.
 */
export class Compressor {
  readonly #stream: zlib.Gzip | zlib.BrotliCompress | zlib.ZstdCompress;
  #user: CompressorUser | undefined;

  constructor(coding: Coding, flushing: boolean, user: CompressorUser) {
    this.#user = user;
    const stream = streamFor(coding, flushing);
    this.#stream = stream;
    stream.on("data", (bytes: Buffer) => {
      if (this.#user?.onCompressed(bytes) === false) stream.pause();
    });
    stream.on("end", () => this.#user?.onCompressedEnd());
    stream.on("drain", () => this.#user?.onCompressorDrained());
    stream.on("error", (error) => this.#user?.onCompressorFailed(error));
  }

  /** Copies what it is given. False: it has enough until `onCompressorDrained`. */
  write(bytes: Buffer, from: number, to: number, last: boolean): boolean {
    const flowing = to === from || this.#stream.write(Buffer.from(bytes.subarray(from, to)));
    if (last) this.#stream.end();
    return flowing;
  }

  resume(): void {
    this.#stream.resume();
  }

  /** Nobody hears of it any more. */
  destroy(): void {
    this.#user = undefined;
    this.#stream.destroy();
  }
}

/** Levels that cost little: what is compressed once for one client is not worth more. Windows of 256 KiB at most. */
function streamFor(coding: Coding, flushing: boolean): zlib.Gzip | zlib.BrotliCompress | zlib.ZstdCompress {
  const { constants } = zlib;
  switch (coding) {
    case "gzip":
      return zlib.createGzip({ level: 5, flush: flushing ? constants.Z_SYNC_FLUSH : constants.Z_NO_FLUSH });
    case "br":
      return zlib.createBrotliCompress({
        flush: flushing ? constants.BROTLI_OPERATION_FLUSH : constants.BROTLI_OPERATION_PROCESS,
        params: { [constants.BROTLI_PARAM_QUALITY]: 4, [constants.BROTLI_PARAM_LGWIN]: 18 },
      });
    case "zstd":
      return zlib.createZstdCompress({
        flush: flushing ? constants.ZSTD_e_flush : constants.ZSTD_e_continue,
        params: { [constants.ZSTD_c_compressionLevel]: 3, [constants.ZSTD_c_windowLog]: 18 },
      });
  }
}
