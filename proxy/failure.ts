/**
 * Everything the proxy itself can answer, by code. The code is `x-gilliam-reason`, the label of
 * `gilliam_refusals_total` and the `reason` of an access event.
 */
export const STATUS_BY_CODE = {
  bad_request: 400, // The head breaks RFC 9112; the text says where.
  bad_framing: 400, // Length and transfer coding that could be read in two ways.
  bad_chunk: 400,
  bad_target: 400,
  bad_host: 400,
  bad_upgrade: 400,
  bad_deadline: 400,
  no_route: 404,
  method_refused: 405, // CONNECT, TRACE, PRI.
  head_timeout: 408,
  body_timeout: 408,
  filter_body_too_large: 413,
  target_too_long: 414,
  expectation_failed: 417,
  misdirected: 421, // Not for this connection: its certificate names others, or its scheme is not the connection's.
  head_too_large: 431,
  rate_limited: 429,
  client_gone: 499, // nginx's "client closed request"; only logs see it.
  internal: 500,
  upgrade_unsupported: 501, // The instance speaks HTTP/2 and takes no WebSocket over it (RFC 8441 3).
  filter_failed: 500, // It threw, or returned what a filter cannot return; and its policy is closed.
  coding_unknown: 501, // A transfer coding other than chunked.
  connect_failed: 502,
  upstream_closed: 502,
  bad_response: 502,
  filter_response_too_large: 502,
  no_configuration: 503, // Control has not told this proxy anything yet; never taken for "there is no such route".
  no_cluster: 503,
  no_endpoint: 503,
  overloaded: 503,
  sockets_exhausted: 503, // Ports or descriptors of this machine, for a connection upstream.
  shed: 503, // Of too low a priority to be served now.
  maintenance: 503, // Or what the route says.
  held: 503, // Paused by an operator, for longer than this request may wait.
  fault_injected: 503, // Or what the route says.
  too_many_connections: 503,
  draining: 503,
  deadline_exceeded: 504, // The caller's own deadline.
  filter_timeout: 503,
  filter_memory: 503,
  filter_unavailable: 503,
  connect_timeout: 504,
  response_timeout: 504,
  request_timeout: 504,
  version_unsupported: 505,
} as const satisfies Record<string, number>;

export type FailureCode = keyof typeof STATUS_BY_CODE;

const PHRASES: Record<number, string> = {
  400: "Bad Request",
  404: "Not Found",
  405: "Method Not Allowed",
  408: "Request Timeout",
  413: "Content Too Large",
  414: "URI Too Long",
  417: "Expectation Failed",
  421: "Misdirected Request",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  499: "Client Closed Request",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
};

export function phraseOf(code: FailureCode): string {
  return PHRASES[STATUS_BY_CODE[code]] ?? "";
}

/** What whoever reads the answer can do. */
const NEXT_BY_CODE: Record<FailureCode, string> = {
  bad_request: "Mend the client: the head must follow RFC 9112.",
  bad_framing: "Send either one Content-Length or Transfer-Encoding: chunked (RFC 9112 6).",
  bad_chunk: "Mend the client: the body must follow RFC 9112 7.1.",
  bad_target: "Send a path without dot segments, backslashes, spaces or other unencoded characters.",
  bad_host: "Send exactly one Host field with the name you mean.",
  bad_upgrade: "Send a GET without a body, `Connection: upgrade` and one protocol in `Upgrade`.",
  upgrade_unsupported: "Let the service announce SETTINGS_ENABLE_CONNECT_PROTOCOL, or declare it as `http`.",
  bad_deadline: "Send `x-request-deadline: 1500` for 1.5 s from now; it is not a time of day.",
  no_route: "Add the host to `edge:` in gilliam.yaml, or look at `gilliam routes`.",
  method_refused: "Use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS.",
  head_timeout: "Send the whole head sooner.",
  body_timeout: "Send the body without long pauses.",
  filter_body_too_large: "Send less, or raise `bytesMax` in the filter's `body`.",
  target_too_long: "Put long data into the body.",
  expectation_failed: "Send `Expect: 100-continue` or nothing.",
  misdirected:
    "Ask again on a connection of its own; the host needs a certificate (see `tls` in proxy/README.md).",
  head_too_large: "Send fewer or shorter header fields and cookies.",
  rate_limited: "Wait as long as `retry-after` says, or raise `rateLimit` of the route in gilliam.yaml.",
  client_gone: "",
  internal: "See the proxy's log and report it: this is a fault in Gilliam.",
  filter_failed: "Mend the filter; the proxy's log has its error, `onFailure: open` would let requests pass.",
  coding_unknown: "Use no other transfer coding than chunked.",
  connect_failed: "See `gilliam status` and `gilliam logs` of the service.",
  upstream_closed:
    "The request was not sent again, because it may have been executed; see `gilliam logs` of the service.",
  bad_response: "Mend the service: its answer breaks RFC 9112.",
  filter_response_too_large: "Raise `bytesMax` in the filter's `body`, or answer with less.",
  no_configuration: "Wait until control is up; see `gilliam status`.",
  no_cluster: "If it was just declared, try again; else see `gilliam status`.",
  no_endpoint: "See `gilliam status`: no instance is ready.",
  maintenance: "Come back later. An operator ends it: gilliam maintenance SERVICE off.",
  held: "Try again later. An operator ends it: gilliam hold SERVICE off.",
  fault_injected: "This is `fault` of the route in gilliam.yaml.",
  overloaded: "Try again later, or `gilliam scale` the service.",
  sockets_exhausted: "Try again later; raise the limit of open files, or the range of local ports.",
  shed: "Try again later, `gilliam scale` the service, or give the call a higher `priority`.",
  too_many_connections: "Try again later, or raise the limit of connections.",
  draining: "Try again: another proxy takes over.",
  deadline_exceeded: "Give the call more time, or make the services it needs faster.",
  filter_timeout: "Make the filter faster or raise its `timeout`; `onFailure: open` would let requests pass.",
  filter_memory: "Mend the filter: it used more memory than it may.",
  filter_unavailable: "Deploy a version of the filter that loads; the proxy's log says what is wrong.",
  connect_timeout: "See `gilliam status`; the instance does not accept connections.",
  response_timeout:
    "Raise the dependency's timeout or tryTimeout in gilliam.yaml, or make the service faster.",
  request_timeout: "Raise the dependency's timeout in gilliam.yaml, or make the service faster.",
  version_unsupported: "Speak HTTP/1.1.",
};

/** The body of a refusal, plain text: what, where, what next; one line each. */
export function refusalText(code: FailureCode, what: string, where: string): string {
  const next = NEXT_BY_CODE[code];
  return `${STATUS_BY_CODE[code]} ${code}: ${what}\nwhere: ${where}\n${next === "" ? "" : `next: ${next}\n`}`;
}
