import { setting } from "../../base/settings.ts";
import type { Settings } from "../../base/settings.ts";

/**
 * Every bound of an HTTP/2 connection. Each "burst" is a bucket that refills with its "per second": who stays below
 * never notices; who empties one is sent GOAWAY with ENHANCE_YOUR_CALM.
 */
export const http2Settings = {
  streamsMax: setting.integer(
    "GILLIAM_HTTP2_STREAMS_MAX",
    "128",
    "Streams a peer may have open at once; further ones are refused with REFUSED_STREAM",
    1,
    65_536,
  ),
  streamWindowBytes: setting.bytes(
    "GILLIAM_HTTP2_STREAM_WINDOW",
    "256KiB",
    "Octets a peer may send on one stream before the receiver has taken them",
  ),
  connectionWindowBytes: setting.bytes(
    "GILLIAM_HTTP2_CONNECTION_WINDOW",
    "1MiB",
    "The same for all streams of a connection together; 64KiB at least",
  ),
  headBytesMax: setting.bytes(
    "GILLIAM_HTTP2_HEAD_MAX",
    "64KiB",
    "Size of a head, decoded, 32 more for each field (RFC 9113, 6.5.2); beyond, a request is answered 431",
  ),
  blockBytesMax: setting.bytes(
    "GILLIAM_HTTP2_BLOCK_MAX",
    "64KiB",
    "Size of a head as it is sent, over all its CONTINUATION frames; beyond, the connection ends",
  ),
  continuationsMax: setting.integer(
    "GILLIAM_HTTP2_CONTINUATIONS_MAX",
    "16",
    "CONTINUATION frames of one head; beyond, the connection ends",
  ),
  resetsBurst: setting.integer(
    "GILLIAM_HTTP2_RESETS_BURST",
    "200",
    "Streams reset by the peer, or by us for its faults, at once (rapid reset, CVE-2023-44487 and CVE-2025-8671)",
  ),
  resetsPerSecond: setting.integer("GILLIAM_HTTP2_RESETS_PER_SECOND", "33", "The same, lasting", 1),
  controlsBurst: setting.integer(
    "GILLIAM_HTTP2_CONTROLS_BURST",
    "256",
    "PING, SETTINGS, PRIORITY, unknown and empty frames at once",
  ),
  controlsPerSecond: setting.integer("GILLIAM_HTTP2_CONTROLS_PER_SECOND", "50", "The same, lasting", 1),
  windowUpdatesBurst: setting.integer(
    "GILLIAM_HTTP2_WINDOW_UPDATES_BURST",
    "20000",
    "WINDOW_UPDATE frames at once; a download of small pieces may need many",
  ),
  windowUpdatesPerSecond: setting.integer(
    "GILLIAM_HTTP2_WINDOW_UPDATES_PER_SECOND",
    "10000",
    "The same, lasting",
    1,
  ),
  unreadBytesMax: setting.bytes(
    "GILLIAM_HTTP2_UNREAD_MAX",
    "256KiB",
    "Answers to control frames that may wait for a peer that does not read; beyond, the connection ends",
  ),
  headTimeoutMs: setting.duration(
    "GILLIAM_HTTP2_HEAD_TIMEOUT",
    "10s",
    "From a head's first frame to its last; beyond, the connection ends",
  ),
  settingsTimeoutMs: setting.duration(
    "GILLIAM_HTTP2_SETTINGS_TIMEOUT",
    "10s",
    "For the peer to acknowledge our SETTINGS; beyond, the connection ends",
  ),
  stallTimeoutMs: setting.duration(
    "GILLIAM_HTTP2_STALL_TIMEOUT",
    "60s",
    "How long a stream with octets to send may wait for its window to open; beyond, it is reset",
  ),
  pingAfterMs: setting.duration(
    "GILLIAM_HTTP2_PING_AFTER",
    "10s",
    "Silence after which a peer with open streams is asked whether it is there",
  ),
  pingTimeoutMs: setting.duration(
    "GILLIAM_HTTP2_PING_TIMEOUT",
    "10s",
    "For it to answer; beyond, the connection ends",
  ),
};

export type Http2Limits = Settings<typeof http2Settings>;

/** What the settings say when nothing is set. */
export function defaultHttp2Limits(): Http2Limits {
  const entries = Object.entries(http2Settings).map(([key, { parse, fallback }]) => [key, parse(fallback!)]);
  return Object.fromEntries(entries) as Http2Limits;
}

/** A token bucket: `burst` at once, refilled by `perSecond`. Asks for the time only when it runs low. */
export class Bucket {
  readonly #burst: number;
  readonly #perSecond: number;
  #tokens: number;
  #filledAtMs: number;

  constructor(burst: number, perSecond: number, nowMs: number) {
    this.#burst = burst;
    this.#perSecond = perSecond;
    this.#tokens = burst;
    this.#filledAtMs = nowMs;
  }

  /** Takes one; false when there is none. */
  take(nowMs: () => number): boolean {
    if (this.#tokens < 1) {
      const now = nowMs();
      const refill = ((now - this.#filledAtMs) / 1_000) * this.#perSecond;
      this.#tokens = Math.min(this.#burst, this.#tokens + refill);
      this.#filledAtMs = now;
      if (this.#tokens < 1) return false;
    }
    this.#tokens -= 1;
    return true;
  }
}
