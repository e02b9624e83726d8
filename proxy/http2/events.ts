import type { Head } from "./head.ts";
import type { Stream } from "./stream.ts";

/** What a connection tells the application, synchronously, while it receives or is told the time. */
export interface ConnectionEvents<C = unknown> {
  /** A request (server) or a final response (client) began; with `endStream` it is also over. */
  onHead(stream: Stream<C>, head: Head, endStream: boolean): void;
  /** Client: an interim response, 100 or 102 to 199. */
  onInterim?(stream: Stream<C>, head: Head): void;
  /**
   * Content: `bytes[start, end)`, valid until the call returns. Give the octets back with `consumed`, or the peer
   * will have to stop. With `endStream` it may be empty.
   */
  onData(stream: Stream<C>, bytes: Buffer, start: number, end: number, endStream: boolean): void;
  /** Trailers; the message is over. Names and values in turn. */
  onTrailers(stream: Stream<C>, fields: readonly string[]): void;
  /**
   * The exchange broke: nothing more comes, nothing more can be sent. `code` REFUSED_STREAM means that the peer has
   * not acted on the request, so it may be sent again. `reason` is plain words for a log.
   */
  onReset(stream: Stream<C>, code: number, reason: string): void;
  /** What `sendData` had to queue has left. */
  onDrain?(stream: Stream<C>): void;
  /** A request was refused before it became a stream: malformed, too large, or one too many. For logs and counters. */
  onRefused?(streamId: number, code: number, reason: string): void;
  /** The peer will take no more streams; those it has not seen were reset with REFUSED_STREAM. */
  onGoaway?(code: number, debug: string): void;
  /** Client: a further stream may be opened. */
  onCapacity?(): void;
  /**
   * The connection is over, after an error (GOAWAY with `code` is already written) or after `shutdown` when the last
   * stream ended. Close the transport once everything is written.
   */
  onClose(code: number, reason: string): void;
}
