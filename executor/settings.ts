import { setting } from "../base/settings.ts";

/** Every setting of the executor; README.md prints this table. */
export const executorSettings = {
  state: setting.text(
    "GILLIAM_STATE",
    undefined,
    "The state folder; everything the executor writes is below it",
  ),
  hostId: setting.text(
    "GILLIAM_HOST_ID",
    "",
    "Name of this host in the mesh; empty: the machine's host name",
  ),
  controlUrl: setting.text(
    "GILLIAM_CONTROL_URL",
    "http://127.0.0.1:7000",
    "Where control is asked for assignments",
  ),
  port: setting.integer(
    "GILLIAM_EXECUTOR_PORT",
    "7010",
    "Port of the executor's API on 127.0.0.1; 0 takes a free one",
    0,
    65_535,
  ),
  hostTokenFile: setting.text(
    "GILLIAM_HOST_TOKEN_FILE",
    "",
    "File with the host token; empty: `host-token` in the state folder",
  ),
  platform: setting.text(
    "GILLIAM_PLATFORM",
    "",
    "Folder of Gilliam's own code, the image of platform parts and gears; empty: where the executor itself runs from",
  ),
  bootFile: setting.text("GILLIAM_BOOT", "", "The boot manifest; empty: `boot.json` in the state folder"),
  network: setting.choice(
    "GILLIAM_NETWORK",
    ["auto", "namespace", "shared"],
    "auto",
    "Whether each instance has a network namespace of its own; auto: as root, where the kernel allows it",
  ),
  driver: setting.choice(
    "GILLIAM_DRIVER",
    ["process", "docker"],
    "process",
    "How built and named images run; Gilliam's own parts and gears are processes in any case",
  ),
  dockerSocket: setting.text(
    "GILLIAM_DOCKER_SOCKET",
    "/var/run/docker.sock",
    "Socket of this host's Docker Engine; only the docker driver opens it",
  ),
  imageCache: setting.text(
    "GILLIAM_IMAGE_CACHE",
    "/var/cache/gilliam",
    "Folder where the archive of the base image is kept; the states of a machine share it",
  ),
  labels: setting.text("GILLIAM_HOST_LABELS", "", "Labels of this host, like `zone=a,disk=ssd`"),
  checkStartingMs: setting.duration(
    "GILLIAM_CHECK_STARTING",
    "250ms",
    "Time between two health checks of an instance that is not ready",
  ),
  checkReadyMs: setting.duration(
    "GILLIAM_CHECK_READY",
    "2s",
    "Time between two health checks of a ready instance",
  ),
  checkTimeoutMs: setting.duration(
    "GILLIAM_CHECK_TIMEOUT",
    "2s",
    "A health check without an answer for this long has failed",
  ),
  checkFailuresMax: setting.integer(
    "GILLIAM_CHECK_FAILURES",
    "3",
    "Failed checks in a row after which a ready instance is not ready any more",
    1,
    100,
  ),
  restartMsBase: setting.duration(
    "GILLIAM_RESTART_BASE",
    "2s",
    "Upper bound of the delay before the second restart; doubles with each crash, half of it is chance; the first restart comes within 400 ms",
  ),
  restartMsMax: setting.duration("GILLIAM_RESTART_MAX", "60s", "No delay before a restart is longer"),
  stableMs: setting.duration(
    "GILLIAM_STABLE",
    "60s",
    "An instance that ran this long starts again without delay",
  ),
  logFileBytes: setting.bytes("GILLIAM_LOG_FILE", "4MiB", "A log file of an instance is closed at this size"),
  logFilesKept: setting.integer("GILLIAM_LOG_FILES", "5", "Log files kept per instance", 1, 1000),
  logGoneKept: setting.integer("GILLIAM_LOG_GONE", "50", "Logs kept of instances that are gone", 0, 10_000),
  buildTimeoutMs: setting.duration("GILLIAM_BUILD_TIMEOUT", "10m", "A build that takes longer has failed"),
  buildOutputBytes: setting.bytes("GILLIAM_BUILD_OUTPUT", "8MiB", "Output kept of a build; more is cut"),
  imageBytesMax: setting.bytes(
    "GILLIAM_IMAGE_MAX",
    "2GiB",
    "An unpacked source archive may have this many bytes",
  ),
  imageFilesMax: setting.integer(
    "GILLIAM_IMAGE_FILES",
    "200000",
    "An unpacked source archive may have this many files",
    1,
  ),
  logLevel: setting.choice(
    "GILLIAM_LOG_LEVEL",
    ["trace", "debug", "info", "warn", "error"],
    "info",
    "What the executor itself logs",
  ),
};
