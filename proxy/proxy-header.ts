import type { Timed } from "./deadlines.ts";
import { type TcpHandle, streamState, READ_SIZE } from "./handle.ts";
import type { Connection, Listener } from "./listener.ts";
import { PROXY_HEADER_BYTES_MAX, parseProxyHeader } from "./proxy-protocol.ts";

/** Why a connection that should have begun with a header of the PROXY protocol was closed; a label of a metric. */
export type ProxyHeaderFailure = "untrusted" | "malformed" | "timeout" | "gone";

type RawHandle = Omit<TcpHandle, "onread"> & { onread: (bytes: ArrayBuffer | undefined) => void };

/** A connection until its PROXY header is read. Nothing else is known of it, so there is nothing to answer. */
export class ProxyHeaderReader implements Connection, Timed {
  wheelNext: Timed | undefined;
  wheelPrevious: Timed | undefined;
  wheelTick = -1;
  readonly idle = true;
  readonly #handle: RawHandle;
  readonly #listener: Listener;
  readonly #dueMs: number;
  #bytes: Buffer = Buffer.alloc(0);
  #over = false;

  constructor(handle: unknown, listener: Listener) {
    const { clock, limits, wheel } = listener.context;
    this.#handle = handle as RawHandle;
    this.#listener = listener;
    this.#dueMs = clock.nowMs() + limits.proxyHeaderTimeoutMs;
    wheel.watch(this, this.#dueMs);
    this.#handle.onread = (bytes) => this.#read(bytes);
    this.#handle.readStart();
  }

  /** It was accepted, so its first request is served. */
  retire(): void {}

  destroy(): void {
    if (this.#over) return;
    this.#close();
  }

  onTick(nowMs: number): number {
    if (this.#over) return Infinity;
    if (nowMs < this.#dueMs) return this.#dueMs;
    this.#fail("timeout", "no PROXY header in time");
    return Infinity;
  }

  #read(bytes: ArrayBuffer | undefined): void {
    if (this.#over) return;
    if (bytes === undefined || streamState[READ_SIZE]! < 0) return this.#fail("gone", "the connection ended");
    this.#bytes = Buffer.concat([this.#bytes, Buffer.from(bytes)]);
    const header = parseProxyHeader(this.#bytes);
    switch (header.kind) {
      case "more":
        if (this.#bytes.length > PROXY_HEADER_BYTES_MAX) this.#fail("malformed", "it is too long");
        return;
      case "bad":
        return this.#fail("malformed", header.problem);
      case "whole": {
        this.#leave();
        const rest = this.#bytes.subarray(header.size);
        const early = rest.length > 0 ? rest : undefined;
        this.#listener.serveBehindHeader(this, this.#handle, header.source, early);
      }
    }
  }

  #fail(reason: ProxyHeaderFailure, problem: string): void {
    const { log, stats } = this.#listener.context;
    stats.proxyHeaderFailed(reason);
    log.debug({ code: reason, listener: this.#listener.id }, `no PROXY header: ${problem}`);
    this.#close();
  }

  #close(): void {
    this.#leave();
    this.#handle.close(() => undefined);
    this.#listener.onConnectionClosed(this);
  }

  #leave(): void {
    this.#over = true;
    this.#listener.context.wheel.forget(this);
  }
}
