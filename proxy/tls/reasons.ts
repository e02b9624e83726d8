/** Why a handshake did not come about, as a label of a metric: few values, whatever clients send. */
export const HANDSHAKE_FAILURES = [
  "plain_http", // HTTP without TLS on a TLS port; answered 400.
  "not_tls", // The first bytes are no record of TLS.
  "version", // Only versions that are too old, or not known.
  "no_shared_cipher",
  "no_shared_group",
  "no_shared_signature",
  "alpn", // Nothing of what the client offers is spoken here (RFC 7301 3.2).
  "unknown_name", // No certificate for it, and the edge is set to refuse.
  "no_certificate", // There is none at all.
  "client_alert", // The client refused, most often because it does not trust the certificate.
  "client_gone",
  "timeout",
  "too_many", // Handshakes at once, see the limits.
  "malformed", // Anything else that breaks RFC 8446 or RFC 5246.
] as const;

export type HandshakeFailure = (typeof HANDSHAKE_FAILURES)[number];

const BY_CODE: Readonly<Record<string, HandshakeFailure>> = {
  ERR_SSL_HTTP_REQUEST: "plain_http",
  ERR_SSL_HTTPS_PROXY_REQUEST: "plain_http",
  ERR_SSL_WRONG_VERSION_NUMBER: "not_tls",
  ERR_SSL_PACKET_LENGTH_TOO_LONG: "not_tls",
  ERR_SSL_BAD_RECORD_TYPE: "not_tls",
  ERR_SSL_UNSUPPORTED_PROTOCOL: "version",
  ERR_SSL_VERSION_TOO_LOW: "version",
  ERR_SSL_NO_SHARED_CIPHER: "no_shared_cipher",
  ERR_SSL_NO_SUITABLE_KEY_SHARE: "no_shared_group",
  ERR_SSL_NO_SUITABLE_GROUPS: "no_shared_group",
  ERR_SSL_NO_SHARED_GROUPS: "no_shared_group",
  ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM: "no_shared_signature",
  ERR_SSL_NO_SHARED_SIGNATURE_ALGORITHMS: "no_shared_signature",
  ERR_SSL_NO_APPLICATION_PROTOCOL: "alpn",
  ERR_SSL_CALLBACK_FAILED: "malformed",
};

/** The reason for a code of Node's TLS, like `ERR_SSL_NO_SHARED_CIPHER`. */
export function handshakeFailure(code: string): HandshakeFailure {
  const known = BY_CODE[code];
  if (known !== undefined) return known;
  return /^ERR_SSL_(?:TLSV1|SSLV3|TLSV13)_ALERT_/.test(code) ? "client_alert" : "malformed";
}
