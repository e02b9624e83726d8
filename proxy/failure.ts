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
  no_route: 404,
  method_refused: 405, // CONNECT, TRACE.
  head_timeout: 408,
  body_timeout: 408,
  target_too_long: 414,
  expectation_failed: 417,
  head_too_large: 431,
  client_gone: 499, // nginx's "client closed request"; only logs see it.
  internal: 500,
  coding_unknown: 501, // A transfer coding other than chunked.
  connect_failed: 502,
  upstream_closed: 502,
  bad_response: 502,
  no_cluster: 503,
  no_endpoint: 503,
  overloaded: 503,
  too_many_connections: 503,
  draining: 503,
  connect_timeout: 504,
  response_timeout: 504,
  request_timeout: 504,
  version_unsupported: 505,
} as const satisfies Record<string, number>;

export type FailureCode = keyof typeof STATUS_BY_CODE;
