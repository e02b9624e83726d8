import type { Binding } from "./binding.ts";
import type { FailureCode } from "./failure.ts";
import type { RequestHead } from "./http1/request-head.ts";
import type { ResponseHead } from "./http1/response-head.ts";
import type { HttpsRedirect } from "./tls/redirect.ts";
import type { SecuredConnection } from "./tls/secured.ts";
import type { Tunnel, TunnelEnd } from "./tunnel.ts";

/** Where requests come from and answers go to: an HTTP/1.1 connection, or a stream of HTTP/2. */
export interface Downstream {
  readonly peerAddress: string;
  /** Lines this listener adds to every request. */
  readonly hopFields: string;
  /** Of a TLS connection only. */
  readonly secured: SecuredConnection | undefined;
  /** Sends a 1xx. */
  sendInterim(head: ResponseHead): void;
  /**
   * Sends the head and what came of the body in the same read; `last`: that is all of it. Bytes are valid during the
   * call only. False: stop, until `exchange.onDownstreamDrained`.
   */
  respond(
    head: ResponseHead,
    extraFields: string,
    bytes: Buffer,
    from: number,
    to: number,
    last: boolean,
  ): boolean;
  sendData(bytes: Buffer, from: number, to: number, last: boolean): boolean;
  /** Sends what follows the body, names and values in turn, which ends the response; dropped where it has no place. */
  sendTrailers(fields: readonly string[]): void;
  /** Sends an answer of our own: `code` and its text. */
  refuse(code: FailureCode, text: string): void;
  /** The response cannot be completed: make sure that nobody takes it for the whole. */
  cut(): void;
  /** Do not read more of the request's body; and do again. */
  pauseBody(): void;
  resumeBody(): void;
  /** Sends the 101 and joins both connections; `onDone` when both are closed. */
  openTunnel(
    head: ResponseHead,
    extraFields: string,
    upstream: TunnelEnd,
    idleTimeoutMs: number,
    onDone: () => void,
  ): Tunnel;
  /** The exchange is over and may be used for the next request. */
  onExchangeOver(): void;
}

/** Where a request goes: a connection of HTTP/1.1 for itself, or a stream of HTTP/2. */
export interface Upstream {
  /**
   * Sends the exchange's request for `host` with the lines of this hop, and what there is of its body. False: the
   * body has to wait for `exchange.onUpstreamDrained`.
   */
  send(
    host: string,
    hopFields: string,
    requestId: string,
    bytes: Buffer,
    from: number,
    to: number,
    last: boolean,
  ): boolean;
  sendData(bytes: Buffer, from: number, to: number, last: boolean): boolean;
  /** Do not read more of the response; and do again. */
  pause(): void;
  resume(): void;
  /** The exchange wants nothing more of it. */
  abandon(): void;
}

/** Whom an upstream serves: one attempt of an exchange. */
export interface UpstreamUser {
  readonly request: RequestHead;
  /** The whole request has come in. */
  readonly requestComplete: boolean;
  /** The connection is there. */
  onUpstreamReady(): void;
  /** What was sent is written; called after a send returned false. */
  onUpstreamDrained(): void;
  /** A 1xx. */
  onInterim(head: ResponseHead): void;
  /** The head and what came of the body with it; `last`: that is all. Bytes are valid during the call only. */
  onResponse(head: ResponseHead, bytes: Buffer, from: number, to: number, last: boolean): void;
  onResponseData(bytes: Buffer, from: number, to: number, last: boolean): void;
  /** What follows the body, names and values in turn: the response is over. */
  onResponseTrailers(fields: readonly string[]): void;
  /** The protocol was changed as asked; `early` is what already came in the new one. */
  onUpgraded(head: ResponseHead, upstream: SwitchedUpstream, early: Buffer): void;
  /**
   * It failed before the response was complete. `sent`: the application may have seen the request; `stale`: the
   * connection had been idle and ended without a byte.
   */
  onUpstreamFailed(code: FailureCode, what: string, sent: boolean, stale: boolean): void;
}

/** An upstream that has changed the protocol: its connection, or its stream, now belongs to a tunnel. */
export interface SwitchedUpstream {
  giveWire(): TunnelEnd;
  onTunnelClosed(): void;
}

/** What an exchange must know of the listener it came through. */
export interface ExchangeOrigin {
  readonly id: string;
  readonly kind: "edge" | "local";
  readonly from: string;
  /** Of a local listener; the edge asks its routes. */
  readonly binding: Binding | undefined;
  readonly redirect: HttpsRedirect | undefined;
  bindingTo(cluster: string): Binding;
}
