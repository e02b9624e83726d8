import { setting } from "../base/settings.ts";

/** Everything control can be told from outside; the reference in README.md is printed from here. */
export const controlSettings = {
  state: setting.text(
    "GILLIAM_STATE",
    undefined,
    "State folder; below it control keeps `control/registry.db` and `control/blobs/`, and reads `token` and `host-token`",
  ),
  host: setting.text(
    "GILLIAM_CONTROL_HOST",
    "127.0.0.1",
    "Address the API listens on; the default is this machine only",
  ),
  port: setting.integer(
    "GILLIAM_CONTROL_PORT",
    "7000",
    "Port of the API and of /metrics; 0 takes a free one",
    0,
    65_535,
  ),
  publicPort: setting.integer(
    "GILLIAM_PUBLIC_PORT",
    "8080",
    "Port of the edge, for the addresses shown to people",
    1,
    65_535,
  ),
  gears: setting.text(
    "GILLIAM_GEARS",
    "",
    "Folder of the gears, one folder each with a gear.yaml; empty: those that come with Gilliam",
  ),
  logLevel: setting.choice(
    "GILLIAM_LOG_LEVEL",
    ["trace", "debug", "info", "warn", "error", "fatal", "silent"],
    "info",
    "How much control logs",
  ),
  bodyMax: setting.bytes("GILLIAM_CONTROL_BODY_MAX", "4MiB", "Largest JSON body of a request; beyond it 413"),
  blobMax: setting.bytes("GILLIAM_CONTROL_BLOB_MAX", "512MiB", "Largest source archive; beyond it 413"),
  requestTime: setting.duration(
    "GILLIAM_CONTROL_REQUEST_TIME",
    "5m",
    "Longest time a client may take to send a whole request, archives included",
  ),
  connectionsMax: setting.integer(
    "GILLIAM_CONTROL_CONNECTIONS_MAX",
    "4096",
    "Connections open at once; beyond it new ones are closed",
    16,
  ),
  streamsMax: setting.integer(
    "GILLIAM_CONTROL_STREAMS_MAX",
    "1024",
    "Streams open at once (logs, events, feeds, assignments); beyond it 503",
    4,
  ),
  executorTime: setting.duration(
    "GILLIAM_EXECUTOR_TIME",
    "10s",
    "How long control waits for an executor to begin its answer (logs, exec, run)",
  ),
  drainMax: setting.duration(
    "GILLIAM_DRAIN",
    "30s",
    "How long requests in flight may keep a draining instance; then it is stopped all the same",
  ),
  silent: setting.duration("GILLIAM_SILENT", "6s", "A host or proxy not heard of for this long is silent"),
  replace: setting.duration(
    "GILLIAM_REPLACE",
    "30s",
    "A silent host's instances are replaced after this long",
  ),
  proxyGone: setting.duration(
    "GILLIAM_PROXY_GONE",
    "15s",
    "A proxy not heard of for this long is gone and no longer waited for",
  ),
  readyMax: setting.duration(
    "GILLIAM_READY",
    "2m",
    "A new instance not ready after this long counts as failing; its release does not proceed",
  ),
  releasesKept: setting.integer(
    "GILLIAM_RELEASES_KEPT",
    "20",
    "Releases kept of each formation, those in use apart; older ones cannot be rolled back to",
    2,
    1_000,
  ),
  consulUrl: setting.text(
    "GILLIAM_CONSUL_URL",
    "",
    "Consul's HTTP API, like `http://127.0.0.1:8500`: the registry is kept there; empty: on this machine",
  ),
  consulTokenFile: setting.text(
    "GILLIAM_CONSUL_TOKEN_FILE",
    "",
    "File with the token for Consul; read before every call, so a new one needs no restart",
  ),
  consulDatacenter: setting.text(
    "GILLIAM_CONSUL_DATACENTER",
    "",
    "Consul's datacenter; empty: the agent's own",
  ),
  consulPrefix: setting.text(
    "GILLIAM_CONSUL_PREFIX",
    "gilliam",
    "Key in Consul below which everything is kept",
  ),
  consulCa: setting.text(
    "GILLIAM_CONSUL_CA",
    "",
    "File with the certificate authority of Consul's certificate",
  ),
  consulCert: setting.text("GILLIAM_CONSUL_CERT", "", "File with the certificate shown to Consul"),
  consulKey: setting.text("GILLIAM_CONSUL_KEY", "", "File with the key of that certificate"),
  shutdown: setting.duration(
    "GILLIAM_CONTROL_SHUTDOWN",
    "5s",
    "How long requests in flight may take after SIGTERM before their connections are closed",
  ),
} as const;
