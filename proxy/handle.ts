import type net from "node:net";
import type { Wire } from "./wire.ts";

/**
 * TCP handles of Node as they are below `net.Socket`. Internal, and worth it: what `net.Socket` and its streams add was
 * 3 % of a small request's CPU, 15 % of a WebSocket message's, and a third of an idle connection's memory.
 * `process.binding` is how Node itself gives them out; it is deprecated in words only (DEP0111), and the Node that runs
 * this is pinned.
 */
export interface TcpHandle extends WriteHandle {
  /** Ours: whoever is called back. */
  wire: Wire | undefined;
  /** What was read is in the user buffer; what it returns replaces that buffer. */
  onread: (this: TcpHandle) => Uint8Array | undefined;
  useUserBuffer(bytes: Uint8Array): void;
  readStart(): number;
  readStop(): number;
  setNoDelay(on: boolean): void;
  getpeername(out: { address?: string }): number;
  shutdown(request: ShutdownRequest): number;
  close(done: () => void): void;
  /** Sends a reset instead of an end. */
  reset(done: () => void): number;
}

/** The part that TLS puts itself before. */
export interface WriteHandle {
  writeLatin1String(request: WriteRequest, text: string): number;
  writeBuffer(request: WriteRequest, bytes: Uint8Array): number;
}

/** What a handle calls back when a write had to wait for the kernel. */
export interface WriteRequest {
  oncomplete: (this: WriteRequest, status: number) => void;
  wire: Wire | undefined;
  /** Kept from the garbage collector until it is written. */
  bytes: Uint8Array | undefined;
}

export interface ShutdownRequest {
  oncomplete: (this: ShutdownRequest, status: number) => void;
  wire: Wire | undefined;
}

interface StreamBinding {
  readonly WriteWrap: new () => WriteRequest;
  readonly ShutdownWrap: new () => ShutdownRequest;
  /** Results of the last call or callback, at the places named below. */
  readonly streamBaseState: Int32Array;
  readonly kReadBytesOrError: number;
  readonly kLastWriteWasAsync: number;
}

const binding = (process as unknown as { binding(name: "stream_wrap"): StreamBinding }).binding(
  "stream_wrap",
);

export const WriteRequest = binding.WriteWrap;
export const ShutdownRequest = binding.ShutdownWrap;
export const streamState: Int32Array = binding.streamBaseState;
/** In `streamState`: bytes of the read that is being told of, or its error below zero. */
export const READ_SIZE: number = binding.kReadBytesOrError;
/** In `streamState`: 1 when the last write has to wait for the kernel, and its request will be completed. */
export const WRITE_WAITS: number = binding.kLastWriteWasAsync;

/** libuv's words for the end of a stream and for a connection that is gone, on Linux and macOS. */
export const END_OF_FILE = -4095;
export const NOT_CONNECTED: number = process.platform === "darwin" ? -57 : -107;
/** A shutdown that was done in the call. */
export const DONE_AT_ONCE = 1;

/** The handle of a connected socket, which knows nothing of it any more. */
export function takeHandle(socket: net.Socket): TcpHandle {
  const owned = socket as unknown as { _handle: (TcpHandle & Record<symbol, unknown>) | null };
  const handle = owned._handle;
  if (handle === null) throw new Error("the socket is closed already");
  owned._handle = null;
  for (const symbol of Object.getOwnPropertySymbols(handle)) {
    if (symbol.description === "owner_symbol") handle[symbol] = undefined;
  }
  return handle;
}
