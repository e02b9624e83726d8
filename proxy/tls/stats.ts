import type { HandshakeFailure } from "./reasons.ts";

/** What TLS listeners count. */
export class TlsStats {
  /** Connections whose handshake is under way. */
  handshaking = 0;
  readonly failures = new Map<HandshakeFailure, number>();
  /** By version, then by whether a session was resumed. */
  readonly handshakes = new Map<string, { full: number; resumed: number }>();

  secured(version: string, resumed: boolean): void {
    let counts = this.handshakes.get(version);
    if (counts === undefined) {
      counts = { full: 0, resumed: 0 };
      this.handshakes.set(version, counts);
    }
    if (resumed) counts.resumed += 1;
    else counts.full += 1;
  }

  failed(reason: HandshakeFailure): void {
    this.failures.set(reason, (this.failures.get(reason) ?? 0) + 1);
  }
}
