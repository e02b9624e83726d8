import net from "node:net";
import os from "node:os";
import { type Setting, setting } from "../../base/settings.ts";
import type { SocketAddress } from "./messages.ts";

/** `127.0.0.1:8080` or `[::1]:8080`; undefined for anything else. Port 0 means any free one. */
export function parseAddress(text: string): SocketAddress | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || net.isIP(host) === 0 || port > 65_535) return undefined;
  return { host, port };
}

export function formatAddress({ host, port }: SocketAddress): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

export function addressSetting(env: string, fallback: string, about: string): Setting<SocketAddress> {
  return {
    env,
    fallback,
    about,
    expects: 'an IP address and a port like "127.0.0.1:8080" or "[::1]:8080", port 0 for a free one',
    parse: parseAddress,
  };
}

/** More would only cost memory, on any machine there is. */
const WORKERS_MAX = 256;

function workersSetting(env: string, about: string): Setting<number> {
  return {
    env,
    fallback: "1",
    about,
    expects: `"auto" or a whole number from 1 to ${WORKERS_MAX}`,
    parse: (text) => {
      if (text === "auto") return Math.min(os.availableParallelism(), WORKERS_MAX);
      const count = /^[1-9]\d{0,2}$/.test(text) ? Number(text) : 0;
      return count >= 1 && count <= WORKERS_MAX ? count : undefined;
    },
  };
}

function urlSetting(env: string, fallback: string, about: string): Setting<string> {
  return {
    env,
    fallback,
    about,
    expects: 'an address like "http://127.0.0.1:7000"',
    parse: (text) => {
      const url = URL.parse(text);
      return url?.protocol === "http:" || url?.protocol === "https:" ? text : undefined;
    },
  };
}

/** What edge and sidecar have in common. The folder's default depends on who runs it; main.ts fills it in. */
export function commonSettings(
  part: "edge" | "sidecar",
  prefix: string,
  adminPort: number,
  accessPolicy: "sampled" | "errors",
) {
  return {
    stateDir: setting.text(
      "GILLIAM_STATE",
      "",
      `State folder; the ${part} keeps its own in \`${part}/\` below it. Empty: the platform's default`,
    ),
    controlUrl: urlSetting("GILLIAM_CONTROL_URL", "http://127.0.0.1:7000", "Control, whose feed is followed"),
    hostToken: setting.text(
      "GILLIAM_HOST_TOKEN",
      "",
      "Host token for control. Empty: read from the file below",
    ),
    hostTokenFile: setting.text(
      "GILLIAM_HOST_TOKEN_FILE",
      "",
      "File with the host token. Empty: `host-token` in the state folder",
    ),
    hostId: setting.text("GILLIAM_HOST_ID", "", "This host's id. Empty: the host name"),
    proxyId: setting.text(
      "GILLIAM_INSTANCE",
      "",
      `This ${part}'s id in the mesh. Empty: \`${part}-\` and the host's id`,
    ),
    admin: addressSetting(
      `${prefix}_ADMIN`,
      `127.0.0.1:${adminPort}`,
      "Where `/metrics`, `/healthz` and `/config` are served",
    ),
    drain: setting.duration(
      `${prefix}_DRAIN`,
      "30s",
      "How long requests in flight may take when this worker is replaced or stopped; then they are cut",
    ),
    accessLog: setting.choice(
      `${prefix}_ACCESS_LOG`,
      ["off", "errors", "sampled", "all"],
      accessPolicy,
      "Which requests are logged: `errors` are answers of 500 and above and every refusal; `sampled` adds one in so many of the others",
    ),
    accessLogOneIn: setting.integer(
      `${prefix}_ACCESS_LOG_ONE_IN`,
      "100",
      "With `sampled`: one line for so many requests",
      1,
    ),
    accessLogFile: setting.text(
      `${prefix}_ACCESS_LOG_FILE`,
      "",
      "File the access log is appended to. Empty: standard output",
    ),
    logLevel: setting.choice(
      "GILLIAM_LOG_LEVEL",
      ["trace", "debug", "info", "warn", "error", "silent"],
      "info",
      "Least severe level that is logged",
    ),
    feedLineMax: setting.bytes(
      `${prefix}_FEED_LINE_MAX`,
      "64MiB",
      "Longest line of the feed; a longer one ends the stream, which is then opened anew",
    ),
    feedSilence: setting.duration(
      `${prefix}_FEED_SILENCE`,
      "15s",
      "Without a line from control for this long the feed is opened anew",
    ),
    reportEvery: setting.duration(
      `${prefix}_REPORT_EVERY`,
      "2s",
      "Between two reports to control when nothing happens",
    ),
    hangAfter: setting.duration(
      `${prefix}_HANG_AFTER`,
      "2s",
      "A worker whose event loop stands still for this long is replaced",
    ),
    startMax: setting.duration(
      `${prefix}_START_MAX`,
      "20s",
      "A worker that does not serve after this long is killed and started again",
    ),
    workers: workersSetting(
      `${prefix}_WORKERS`,
      "Workers that share the ports; `auto` is one for each core. See proxy/agent for what then holds for each worker alone",
    ),
    orphanMax: setting.duration(
      `${prefix}_ORPHAN_MAX`,
      "2m",
      "How long workers serve on when their keeper is gone and no other comes; then they drain",
    ),
    workerHeapMax: setting.bytes(
      `${prefix}_WORKER_HEAP_MAX`,
      "512MiB",
      "Largest JavaScript heap of the worker; buffers are outside of it",
    ),
  };
}

export const edgeSettings = {
  listen: addressSetting(
    "GILLIAM_EDGE_LISTEN",
    "127.0.0.1:8080",
    "Where the public is served; `0.0.0.0:80` to be reachable from outside",
  ),
  ...commonSettings("edge", "GILLIAM_EDGE", 7030, "sampled"),
};
