import { type MetricsRegistry, series } from "../../base/metrics.ts";
import type { TlsStats } from "./stats.ts";

/** Shows what TLS listeners count. */
export function registerTlsMetrics(registry: MetricsRegistry, stats: TlsStats): void {
  series(
    registry,
    {
      name: "gilliam_tls_handshakes_total",
      help: "TLS handshakes that came about, by version and by whether a session was resumed.",
      type: "counter",
    },
    () =>
      [...stats.handshakes].flatMap(([version, { full, resumed }]) => [
        { labels: { version, resumed: "false" }, value: full },
        { labels: { version, resumed: "true" }, value: resumed },
      ]),
  );
  series(
    registry,
    {
      name: "gilliam_tls_handshake_failures_total",
      help: "TLS handshakes that did not come about, by reason.",
      type: "counter",
    },
    () => [...stats.failures].map(([reason, value]) => ({ labels: { reason }, value })),
  );
  series(
    registry,
    { name: "gilliam_tls_handshakes_pending", help: "TLS handshakes under way now.", type: "gauge" },
    () => [{ labels: {}, value: stats.handshaking }],
  );
}
