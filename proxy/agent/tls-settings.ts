import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { UserError } from "../../base/errors.ts";
import { type Setting, type Settings, setting } from "../../base/settings.ts";
import type { SocketAddress } from "./messages.ts";
import { isNetwork } from "../networks.ts";
import { parseAddress } from "./settings.ts";
import type { TlsWorkerSettings } from "./worker-settings.ts";

const HSTS = /^max-age=\d{1,10}(?:; includeSubDomains)?(?:; preload)?$/;

const listen: Setting<SocketAddress | null> = {
  env: "GILLIAM_EDGE_TLS_LISTEN",
  fallback: "",
  about: "Where the public is served over TLS, like `0.0.0.0:443`. Empty: nowhere",
  expects: 'nothing, or an IP address and a port like "127.0.0.1:8443"',
  // Undefined means that the text is wrong.
  parse: (text) => (text === "" ? null : parseAddress(text)),
};

const hsts: Setting<string> = {
  env: "GILLIAM_EDGE_TLS_HSTS",
  fallback: "",
  about: "`strict-transport-security` on every answer that is sent over TLS. Empty: none",
  expects: 'nothing, or like "max-age=31536000; includeSubDomains"',
  parse: (text) => (text === "" || HSTS.test(text) ? text : undefined),
};

const networks: Setting<readonly string[]> = {
  env: "GILLIAM_EDGE_PROXY_PROTOCOL_FROM",
  fallback: "127.0.0.0/8, ::1",
  about:
    "Who may send such a header: the load balancers in front. Connections from elsewhere are then closed",
  expects: 'addresses and networks, like "10.0.0.0/8, 192.0.2.7"',
  parse: (text) => {
    const parts = text.split(",").map((part) => part.trim());
    return parts.every((part) => isNetwork(part)) ? parts : undefined;
  },
};

/** What stands before the edge's HTTP: TLS, and the PROXY protocol. */
export const edgeTlsSettings = {
  tlsListen: listen,
  tlsDir: setting.text(
    "GILLIAM_EDGE_TLS_DIR",
    "",
    "Folder of certificates, `NAME.crt` with `NAME.key` each. Empty: `edge/tls` in the state folder",
  ),
  tlsDefault: setting.text(
    "GILLIAM_EDGE_TLS_DEFAULT",
    "default",
    "NAME of the certificate for clients that ask for no host. Without such a pair the first by name",
  ),
  tlsUnknownName: setting.choice(
    "GILLIAM_EDGE_TLS_UNKNOWN_NAME",
    ["default", "refuse"],
    "default",
    "A client that asks for a host without a certificate gets the one above, or an alert",
  ),
  tlsVersionMin: setting.choice(
    "GILLIAM_EDGE_TLS_VERSION_MIN",
    ["1.2", "1.3"],
    "1.2",
    "Oldest version that is spoken",
  ),
  tlsSession: setting.duration(
    "GILLIAM_EDGE_TLS_SESSION",
    "12h",
    "How long a session may be resumed, and how often the keys of tickets change; `0s` switches tickets off",
  ),
  tlsPoll: setting.duration(
    "GILLIAM_EDGE_TLS_POLL",
    "10s",
    "How often the folder is looked at, besides when the system tells of a change",
  ),
  tlsExpiryWarning: setting.duration(
    "GILLIAM_EDGE_TLS_EXPIRY_WARNING",
    "336h",
    "How long before a certificate expires the log begins to warn, once a day",
  ),
  tlsHsts: hsts,
  tlsRedirect: setting.flag(
    "GILLIAM_EDGE_TLS_REDIRECT",
    "false",
    "Sends clients without TLS to the same address with it (308), if there is a certificate for their host",
  ),
  proxyProtocol: setting.choice(
    "GILLIAM_EDGE_PROXY_PROTOCOL",
    ["off", "required"],
    "off",
    "Must every connection, with and without TLS, begin with a header of the PROXY protocol, version 1 or 2?",
  ),
  proxyProtocolFrom: networks,
  tlsPublicPort: setting.integer(
    "GILLIAM_EDGE_TLS_PUBLIC_PORT",
    "0",
    "Port where those clients reach TLS, if something in between maps it. 0: the one that is listened on",
    0,
    65_535,
  ),
};

/** For the worker; undefined when TLS is listened for nowhere. `folder`: the edge's own. */
export function tlsWorkerSettings(
  settings: Settings<typeof edgeTlsSettings>,
  folder: string,
  port: number | undefined,
): TlsWorkerSettings | undefined {
  if (port === undefined) return undefined;
  const publicPort = settings.tlsPublicPort === 0 ? port : settings.tlsPublicPort;
  return {
    dir: settings.tlsDir === "" ? join(folder, "tls") : settings.tlsDir,
    defaultCertificate: settings.tlsDefault,
    unknownName: settings.tlsUnknownName,
    versionMin: `TLSv${settings.tlsVersionMin}`,
    sessionMs: settings.tlsSession,
    pollMs: settings.tlsPoll,
    expiryWarningMs: settings.tlsExpiryWarning,
    hsts: settings.tlsHsts,
    redirectPort: settings.tlsRedirect ? publicPort : undefined,
  };
}

/** Answers a worker's question for the secret of session tickets. Lives in the keeper, as long as it does. */
export async function ticketSecrets(
  periodMs: number,
  clock: Clock,
): Promise<(body: unknown) => Promise<unknown>> {
  const { randomBytes } = await import("node:crypto");
  const { TicketRatchet, periodOf } = await import("../tls/tickets.ts");
  const start = { period: periodOf(clock.wallMs(), periodMs), secret: randomBytes(32).toString("hex") };
  const ratchet = new TicketRatchet(start, periodMs);
  return (body) => {
    if ((body as { kind?: unknown }).kind !== "ticket-secret") {
      throw new UserError("The edge's keeper knows of ticket secrets only", { code: "unknown_request" });
    }
    ratchet.advance(clock.wallMs());
    return Promise.resolve(ratchet.current);
  };
}
