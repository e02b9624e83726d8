import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Log } from "../../base/log.ts";
import { type MetricsRegistry, series } from "../../base/metrics.ts";
import type { ListenerSpec } from "../engine.ts";
import { HttpsRedirect } from "../tls/redirect.ts";
import { TlsTerminator } from "../tls/terminator.ts";
import { TicketRatchet, type TicketSecret } from "../tls/tickets.ts";
import type { AdminPages } from "./admin.ts";
import { CertificateFolder } from "./certificate-folder.ts";
import type { TlsWorkerSettings } from "./worker-settings.ts";
import type { KeeperLink } from "./worker.ts";

type EdgeSpec = Extract<ListenerSpec, { kind: "edge" }>;

/** How often is looked whether the keys of tickets are due. */
const KEYS_EVERY_MS = 30_000;

/** What an edge's worker has besides its engine when it terminates TLS. */
export interface EdgeTls {
  readonly pages: AdminPages;
  /** What a listener needs that speaks TLS, or that sends clients to one that does. */
  listenerOptions(secure: boolean): Pick<EdgeSpec, "tls" | "redirect">;
  registerMetrics(registry: MetricsRegistry): void;
}

/** Loads the certificates and asks the keeper for the secret of the tickets, which all of its workers share. */
export async function startEdgeTls(
  settings: TlsWorkerSettings,
  link: Pick<KeeperLink, "request">,
  clock: Clock,
  log: Log,
): Promise<EdgeTls> {
  const { dir, pollMs, sessionMs, redirectPort } = settings;
  const terminator = new TlsTerminator(settings);
  if (sessionMs > 0) {
    try {
      keepKeys(terminator, (await link.request({ kind: "ticket-secret" })) as TicketSecret, sessionMs, clock);
    } catch (error) {
      log.warn({ reason: messageOf(error) }, "no secret for session tickets: they end with this worker");
    }
  }
  const folder = new CertificateFolder({
    dir,
    terminator,
    clock,
    log,
    pollMs,
    warnMs: settings.expiryWarningMs,
  });
  const redirect =
    redirectPort === undefined
      ? undefined
      : new HttpsRedirect((host) => terminator.covers(host), redirectPort);
  return {
    pages: {
      "/certificates": () => ({ status: 200, body: { certificates: shown(terminator) } }),
    },
    listenerOptions: (secure) => {
      if (secure) return { tls: terminator };
      return redirect === undefined ? {} : { redirect };
    },
    registerMetrics: (registry) => registerCertificateMetrics(registry, terminator, folder, clock),
  };
}

/** Keys of now, and from then on those of every new period. */
function keepKeys(terminator: TlsTerminator, start: TicketSecret, periodMs: number, clock: Clock): void {
  const ratchet = new TicketRatchet(start, periodMs);
  ratchet.advance(clock.wallMs());
  terminator.setTicketKeys(ratchet.keys);
  clock.every(KEYS_EVERY_MS, () => {
    if (ratchet.advance(clock.wallMs())) terminator.setTicketKeys(ratchet.keys);
  });
}

/** For people; nothing of any key. */
function shown(terminator: TlsTerminator): object[] {
  return terminator.certificates.map(({ name, hosts, notBeforeMs, notAfterMs }) => ({
    name,
    hosts,
    notBefore: new Date(notBeforeMs).toISOString(),
    notAfter: new Date(notAfterMs).toISOString(),
  }));
}

function registerCertificateMetrics(
  registry: MetricsRegistry,
  terminator: TlsTerminator,
  folder: CertificateFolder,
  clock: Clock,
): void {
  series(
    registry,
    {
      name: "gilliam_certificate_expiry_seconds",
      help: "How long a certificate in force is still good for; negative when it has expired.",
      type: "gauge",
    },
    () =>
      terminator.certificates.map(({ name, notAfterMs }) => ({
        labels: { name },
        value: Math.round((notAfterMs - clock.wallMs()) / 1000),
      })),
  );
  series(
    registry,
    {
      name: "gilliam_certificate_problems",
      help: "Pairs in the folder of certificates that cannot be used now.",
      type: "gauge",
    },
    () => [{ labels: {}, value: folder.problemCount }],
  );
}
