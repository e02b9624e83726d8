import { setting } from "../base/settings.ts";
import { commonSettings } from "../proxy/agent/settings.ts";

export const sidecarSettings = {
  socket: setting.text(
    "GILLIAM_SIDECAR_SOCKET",
    "",
    "Unix socket of the local-ports API, which only its owner may open. Empty: `run/sidecar.sock` in the state folder",
  ),
  instancesMax: setting.integer(
    "GILLIAM_SIDECAR_INSTANCES_MAX",
    "1000",
    "Instances whose local ports are served at once; one more is refused",
    1,
  ),
  namespaceTimeout: setting.duration(
    "GILLIAM_SIDECAR_NAMESPACE_TIMEOUT",
    "10s",
    "How long opening one instance's ports inside its network namespace may take",
  ),
  namespaceParallel: setting.integer(
    "GILLIAM_SIDECAR_NAMESPACE_PARALLEL",
    "4",
    "Network namespaces entered at the same time",
    1,
    64,
  ),
  ...commonSettings("sidecar", "GILLIAM_SIDECAR", 7020, "errors"),
};
