/** How far a peer's message has come. */
export const AWAITING_HEAD = 0;
export const IN_BODY = 1;
export const ENDED = 2;

/** One exchange of a connection. Everything but `id` and `context` belongs to the codec. */
export class Stream<C = unknown> {
  readonly id: number;
  /** The application's own. */
  context: C | undefined;
  /** Nothing more is received nor sent. */
  closed = false;
  /** AWAITING_HEAD, IN_BODY or ENDED. */
  phase: number;
  /** We have sent END_STREAM, or queued it. */
  localEnded = false;
  /** END_STREAM has left, so that only the peer keeps the stream open. */
  localSent = false;
  /** Server: once our message has left, the peer is told to stop sending its own. */
  unwanted = false;
  /** The peer ended it with RST_STREAM or GOAWAY; otherwise we did, for a fault of the peer's. */
  resetByPeer = false;
  /** A response to HEAD has no content, whatever its content-length. */
  headRequest = false;
  /** Interim responses received. */
  interim = 0;

  /** Octets of content announced; -1 unknown. */
  expected = -1;
  received = 0;

  /** Octets we may send, and octets the peer may. Either can fall below 0 through SETTINGS (RFC 9113, 6.9.2). */
  sendWindow: number;
  receiveWindow: number;
  /** Delivered to the application and not yet given back by `consumed`. */
  unconsumed = 0;
  /** Given back and not yet announced to the peer. */
  unannounced = 0;

  /** Content that waits for a window, in order; then the trailers, if any. */
  queue: Buffer[] = [];
  queuedBytes = 0;
  endQueued = false;
  trailers: readonly string[] | undefined;
  /** In the sender's round: has octets and a window. */
  waiting = false;
  /** `sendData` said false: the application waits for `onDrain`. */
  wantsDrain = false;
  /** When octets last moved while some were queued. */
  progressAtMs = 0;

  constructor(id: number, phase: number, sendWindow: number, receiveWindow: number) {
    this.id = id;
    this.phase = phase;
    this.sendWindow = sendWindow;
    this.receiveWindow = receiveWindow;
  }
}
