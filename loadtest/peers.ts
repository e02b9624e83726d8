import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { startGilliam } from "./gilliam.ts";
import { start } from "./processes.ts";
import type { Running } from "./processes.ts";
import { tempPaths } from "./upstream.ts";

/** What a peer is asked to do. */
export interface PeerPlan {
  readonly core: string;
  readonly port: number;
  readonly upstreamPorts: readonly number[];
  /** A folder of its own, which exists. */
  readonly folder: string;
  /** What clients speak to it, without TLS. */
  readonly downstream: "http1" | "h2c";
  /** What the upstreams speak. */
  readonly upstream: "http1" | "h2c";
}

/** A proxy to compare with. All of them: one worker, keep-alive both sides, three endpoints, no access log. */
export interface Peer {
  readonly name: string;
  /** Its version, or undefined when it is not installed. */
  version(): string | undefined;
  readonly speaks: readonly PeerPlan["downstream"][];
  /** To its upstreams, too. */
  readonly speaksUpstream: readonly PeerPlan["upstream"][];
  start(plan: PeerPlan): Promise<Running> | Running;
}

const PEER_FOLDER = path.join(import.meta.dirname, "peers");

export const PEERS: readonly Peer[] = [
  {
    name: "gilliam",
    version: () => ask(["git", "-C", import.meta.dirname, "rev-parse", "--short", "HEAD"], /(\w+)/),
    speaks: ["http1", "h2c"],
    speaksUpstream: ["http1", "h2c"],
    start: startGilliam,
  },
  {
    name: "nginx",
    version: () => ask(["nginx", "-v"], /nginx\/([\d.]+)/),
    speaks: ["http1", "h2c"],
    speaksUpstream: ["http1", "h2c"],
    start: startNginx,
  },
  {
    name: "haproxy",
    version: () => ask(["haproxy", "-v"], /version ([\d.]+)/),
    speaks: ["http1", "h2c"],
    speaksUpstream: ["http1", "h2c"],
    start: startHaproxy,
  },
  {
    name: "caddy",
    version: () => ask(["caddy", "version"], /v?([\d.]+)/),
    speaks: ["http1", "h2c"],
    speaksUpstream: ["http1"],
    start: startCaddy,
  },
  ...["node-undici", "http-proxy", "http-proxy-middleware", "httpxy", "fastify-http-proxy"].map(nodePeer),
];

function nodePeer(name: string): Peer {
  const module = { "node-undici": "undici", "fastify-http-proxy": "@fastify/http-proxy" }[name] ?? name;
  return {
    name,
    version: () =>
      ask(
        ["node", "-p", `require("${PEER_FOLDER}/node_modules/${module}/package.json").version`],
        /([\d.]+)/,
      ),
    speaks: ["http1"],
    speaksUpstream: ["http1"],
    start: ({ core, port, upstreamPorts }) =>
      start(core, [
        process.execPath,
        path.join(PEER_FOLDER, `${name}.mjs`),
        String(port),
        ...upstreamPorts.map(String),
      ]),
  };
}

const NGINX_HTTP = `      proxy_pass http://endpoints; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Request-Id $request_id;`;
const NGINX_GRPC = `      grpc_pass grpc://endpoints; grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      grpc_set_header X-Request-Id $request_id;`;

function startNginx({ core, port, upstreamPorts, folder, downstream, upstream }: PeerPlan): Running {
  const file = path.join(folder, "nginx.conf");
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr warn;
events { worker_connections 16384; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;
${tempPaths(folder)}
  upstream endpoints {
    least_conn;
${upstreamPorts.map((each) => `    server 127.0.0.1:${each};`).join("\n")}
    keepalive 256; keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:${port} ${downstream === "h2c" ? "http2" : ""} backlog=4096;
    location / {
${upstream === "h2c" ? NGINX_GRPC : NGINX_HTTP}
    }
  }
}
`,
  );
  return start(core, ["nginx", "-e", "stderr", "-p", folder, "-c", file]);
}

function startHaproxy({ core, port, upstreamPorts, folder, downstream, upstream }: PeerPlan): Running {
  const file = path.join(folder, "haproxy.cfg");
  writeFileSync(
    file,
    `global
  nbthread 1
  maxconn 8000
defaults
  mode http
  option forwardfor
  option redispatch
  retries 2
  http-reuse always
  unique-id-format %{+X}o%ci%cp%Ts%rt
  unique-id-header X-Request-Id
  timeout connect 2s
  timeout client 60s
  timeout server 60s
frontend public
  bind 127.0.0.1:${port} ${downstream === "h2c" ? "proto h2" : ""}
  default_backend endpoints
backend endpoints
  balance leastconn
${upstreamPorts.map((each, index) => `  server s${index} 127.0.0.1:${each} ${upstream === "h2c" ? "proto h2" : ""} pool-max-conn 256 observe layer7 error-limit 5 on-error mark-down check inter 2s`).join("\n")}
`,
  );
  return start(core, ["haproxy", "-db", "-f", file]);
}

function startCaddy({ core, port, upstreamPorts, folder }: PeerPlan): Running {
  const file = path.join(folder, "Caddyfile");
  writeFileSync(
    file,
    `{
  admin off
  auto_https off
  servers {
    protocols h1 h2c
  }
}
http://127.0.0.1:${port} {
  bind 127.0.0.1
  reverse_proxy ${upstreamPorts.map((upstream) => `127.0.0.1:${upstream}`).join(" ")} {
    lb_policy least_conn
    transport http {
      keepalive_idle_conns_per_host 256
    }
  }
}
`,
  );
  const env = { GOMAXPROCS: "1", HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
  return start(core, ["caddy", "run", "--config", file, "--adapter", "caddyfile"], env);
}

/** Installs the peers written in JavaScript, once. */
export function installPeers(): void {
  if (existsSync(path.join(PEER_FOLDER, "node_modules"))) return;
  process.stderr.write("installing the peers written in JavaScript…\n");
  execFileSync("npm", ["ci", "--ignore-scripts"], {
    cwd: PEER_FOLDER,
    stdio: ["ignore", "ignore", "inherit"],
  });
}

export function peerFolder(root: string, name: string): string {
  const folder = path.join(root, name);
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** What a program says of itself; undefined when it is not there. nginx says it on standard error. */
function ask(command: readonly string[], pattern: RegExp): string | undefined {
  try {
    const [program, ...args] = command as [string, ...string[]];
    const out = execFileSync("sh", ["-c", '"$0" "$@" 2>&1', program, ...args], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    return pattern.exec(out)?.[1];
  } catch {
    return undefined;
  }
}
