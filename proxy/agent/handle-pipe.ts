import { errnoOf } from "../../base/errors.ts";
import type { RawHandle } from "./handles.ts";

/**
 * Messages and sockets between two processes that are not parent and child, over a Unix socket. Node passes sockets only
 * along its own IPC channels, which begin with a fork; the pipe beneath can do it anywhere. Internal, as handles.ts is.
 */
interface PipeHandle {
  fd: number;
  pendingHandle?: RawHandle | undefined;
  onread: (bytes: ArrayBuffer | undefined) => void;
  onconnection: (status: number, client: PipeHandle) => void;
  open(fd: number): number;
  bind(path: string): number;
  listen(backlog: number): number;
  connect(request: object, path: string): number;
  readStart(): number;
  unref(): void;
  close(): void;
  writeUtf8String(request: object, text: string, handle?: RawHandle): number;
}

interface Bindings {
  readonly Pipe: new (kind: number) => PipeHandle;
  readonly PipeConnectWrap: new () => { oncomplete: (status: number) => void };
  readonly WriteWrap: new () => { oncomplete: (status: number) => void };
  readonly kinds: { readonly SERVER: number; readonly IPC: number };
  /** After a read: how many octets, or below 0 why none. */
  readonly readResult: () => number;
}

let loaded: Bindings | undefined;

function bindings(): Bindings {
  if (loaded !== undefined) return loaded;
  const { binding } = process as unknown as { binding: (name: string) => Record<string, unknown> };
  const pipes = binding("pipe_wrap");
  const streams = binding("stream_wrap");
  const state = streams["streamBaseState"] as Int32Array;
  const at = streams["kReadBytesOrError"] as number;
  loaded = {
    Pipe: pipes["Pipe"] as Bindings["Pipe"],
    PipeConnectWrap: pipes["PipeConnectWrap"] as Bindings["PipeConnectWrap"],
    WriteWrap: streams["WriteWrap"] as Bindings["WriteWrap"],
    kinds: pipes["constants"] as Bindings["kinds"],
    readResult: () => state[at] ?? -1,
  };
  return loaded;
}

/** One end. A message is a JSON object on a line; one that carries a socket says so, and they come in order. */
export class HandlePipe {
  onMessage: (message: unknown, handle: RawHandle | undefined) => void = () => undefined;
  /** The other end is gone; called once. */
  onClose: () => void = () => undefined;
  readonly #pipe: PipeHandle;
  readonly #handles: RawHandle[] = [];
  readonly #decoder = new TextDecoder();
  #rest = "";
  #closed = false;

  constructor(pipe: PipeHandle) {
    this.#pipe = pipe;
    pipe.onread = (bytes) => this.#read(bytes);
  }

  /** Begins to read; before that messages wait. */
  start(): void {
    this.#pipe.readStart();
  }

  get open(): boolean {
    return !this.#closed;
  }

  send(message: object, handle?: RawHandle): void {
    if (this.#closed) return;
    const request = new (bindings().WriteWrap)();
    request.oncomplete = () => undefined; // Whether it arrived shows in the answer, or in the end of the pipe.
    const line = `${JSON.stringify({ message, carries: handle !== undefined })}\n`;
    this.#pipe.writeUtf8String(request, line, handle);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#pipe.close();
    this.onClose();
  }

  #read(bytes: ArrayBuffer | undefined): void {
    const { pendingHandle } = this.#pipe;
    if (pendingHandle !== undefined && pendingHandle !== null) {
      this.#handles.push(pendingHandle);
      this.#pipe.pendingHandle = undefined;
    }
    if (bytes === undefined || bindings().readResult() < 0) return this.close();
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const { message, carries } = JSON.parse(line) as { message: unknown; carries: boolean };
      this.onMessage(message, carries ? this.#handles.shift() : undefined);
    }
  }
}

/**
 * Waits at `path`, which must be free, for whoever connects first. Returns what stops waiting.
 * @throws with the system's code when the path cannot be had.
 */
export function awaitPipe(path: string, onPipe: (pipe: HandlePipe) => void): () => void {
  const { Pipe, kinds } = bindings();
  const server = new Pipe(kinds.SERVER);
  let waiting = true;
  const stop = () => {
    if (waiting) server.close();
    waiting = false;
  };
  server.onconnection = (status, plain) => {
    if (status !== 0) return;
    stop();
    // A server's connections do not carry sockets, but a pipe opened on their descriptor does. The first object stays
    // as it is: closing it would close the descriptor.
    const pipe = new Pipe(kinds.IPC);
    pipe.open(plain.fd);
    plain.unref();
    onPipe(new HandlePipe(pipe));
  };
  const before = process.umask(0o177);
  const failed = server.bind(path) || server.listen(1);
  process.umask(before);
  if (failed !== 0) {
    stop();
    throw new Error(`cannot wait at ${path} (${failed})`);
  }
  return stop;
}

/** Undefined when nobody waits at `path`. */
export function connectPipe(path: string): Promise<HandlePipe | undefined> {
  const { Pipe, PipeConnectWrap, kinds } = bindings();
  const pipe = new Pipe(kinds.IPC);
  const request = new PipeConnectWrap();
  return new Promise((resolve) => {
    const failed = () => {
      pipe.close();
      resolve(undefined);
    };
    request.oncomplete = (status) => (status === 0 ? resolve(new HandlePipe(pipe)) : failed());
    try {
      if (pipe.connect(request, path) !== 0) failed();
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      failed();
    }
  });
}
