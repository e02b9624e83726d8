import { type Setting, setting } from "../base/settings.ts";
import type { PressurePolicy } from "./pressure.ts";

/**
 * What one engine allows itself. Everything that waits has a time, everything that queues has a bound.
 * Limits of a single cluster (connections per endpoint, pending requests, timeouts) are in its policy: model/mesh.ts.
 */
export interface EngineLimits extends PressurePolicy {
  /** Bytes of a request or response head, the first line included; beyond: 431 to a client, 502 for an upstream. */
  readonly headBytesMax: number;
  /** Header fields of a request or response. */
  readonly headFieldsMax: number;
  /** Bytes of the request target; beyond: 414. */
  readonly targetBytesMax: number;
  /** Open downstream connections of one listener; beyond, a new one is answered 503 and closed. */
  readonly connectionsPerListenerMax: number;
  /** From the acceptance of a TLS connection to the end of its handshake. */
  readonly tlsHandshakeTimeoutMs: number;
  /** TLS handshakes under way at once, over all listeners; beyond, a new connection is closed. */
  readonly tlsHandshakesMax: number;
  /** From the acceptance of a connection to the end of its PROXY header, where one is required. */
  readonly proxyHeaderTimeoutMs: number;
  /** From a connection's or request's first byte to the end of its head; against slow clients. */
  readonly headTimeoutMs: number;
  /** Without a byte of a body in the direction that is awaited, request or response. */
  readonly bodyStallTimeoutMs: number;
  /** A downstream connection without a request. */
  readonly downstreamIdleTimeoutMs: number;
  /** An unused upstream connection; shorter than what servers use, so that we close first (Node's default is 5 s). */
  readonly upstreamIdleTimeoutMs: number;
  /** How long a request waits for its cluster, for an endpoint, or for a free connection. */
  readonly pendingTimeoutMs: number;
  /** Bytes of a request body kept so that it can be sent again; a longer one is sent once. */
  readonly replayBytesMax: number;
  /** Interim (1xx) responses to one request; beyond, the upstream is broken: 502. */
  readonly interimResponsesMax: number;
  /**
   * After an error, how long unread request bytes are swallowed so that the client can read the answer; while draining,
   * how long a connection that was just accepted may take for its first request.
   */
  readonly lingerTimeoutMs: number;
  /** A tunnel (TCP, WebSocket) of which one side has ended, without a byte from the other. */
  readonly halfCloseTimeoutMs: number;
  /** A TCP connection of a draining listener ends when its server spoke last and this long nobody spoke. */
  readonly tunnelQuietMs: number;
  /** Idle connections kept per endpoint. */
  readonly idlePerEndpointMax: number;
  /** Open downstream connections of one client address at a public listener; 0 is no limit. */
  readonly connectionsPerClientMax: number;
  /**
   * Open sockets, both sides together. Before they run out newcomers are turned away, then accepting pauses, then
   * requests wait for a connection. 0 is no limit.
   */
  readonly socketsMax: number;
  /** Accounts that one rate limit remembers; beyond, the one let through longest ago begins anew. */
  readonly rateLimitKeysMax: number;
  /** Responses compressed at the same time, some 300 kB each; beyond, they go out as they are. */
  readonly compressionsMax: number;
}

export const DEFAULT_LIMITS: EngineLimits = {
  headBytesMax: 32 * 1024,
  headFieldsMax: 128,
  targetBytesMax: 8 * 1024,
  connectionsPerListenerMax: 10_000,
  tlsHandshakeTimeoutMs: 10_000,
  tlsHandshakesMax: 1_000,
  proxyHeaderTimeoutMs: 5_000,
  headTimeoutMs: 10_000,
  bodyStallTimeoutMs: 30_000,
  downstreamIdleTimeoutMs: 75_000,
  upstreamIdleTimeoutMs: 4_000,
  pendingTimeoutMs: 2_000,
  replayBytesMax: 64 * 1024,
  interimResponsesMax: 16,
  lingerTimeoutMs: 1_000,
  halfCloseTimeoutMs: 120_000,
  tunnelQuietMs: 100,
  idlePerEndpointMax: 256,
  connectionsPerClientMax: 0,
  socketsMax: 0,
  shedLowPercent: 85,
  shedNormalPercent: 95,
  shedLowLagMs: 250,
  shedNormalLagMs: 1_000,
  rateLimitKeysMax: 50_000,
  compressionsMax: 256,
};

/** Each limit as a setting of edge and sidecar: `GILLIAM_LIMIT_` and its name in capitals, a number in its own unit. */
export const limitSettings = Object.fromEntries(
  Object.entries(DEFAULT_LIMITS).map(([name, value]: [string, number]) => {
    const env = `GILLIAM_LIMIT_${name.replaceAll(/([A-Z])/g, "_$1").toUpperCase()}`;
    return [name, setting.integer(env, String(value), `See \`${name}\` in proxy/README.md`)];
  }),
) as Record<keyof EngineLimits, Setting<number>>;
