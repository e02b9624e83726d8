import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { startGilliam } from "./gilliam.ts";
import { start } from "./processes.ts";
import type { Running } from "./processes.ts";
import type { Back, Front, Scenario } from "./scenarios.ts";
import { tempPaths } from "./upstream.ts";

/** Files with a certificate for `localhost` and its key. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** What a peer is asked to do. */
export interface PeerPlan {
  readonly core: string;
  readonly port: number;
  readonly upstreamPorts: readonly number[];
  /** A folder of its own, which exists. */
  readonly folder: string;
  readonly front: Front;
  readonly back: Back;
  readonly certificate: Certificate;
}

/** A proxy to compare with. All of them: one worker, keep-alive both sides, three endpoints, no access log. */
export interface Peer {
  readonly name: string;
  /** Its version, or undefined when it is not installed. */
  version(): string | undefined;
  /** Why it cannot take part in a scenario; undefined when it can. */
  cannot(scenario: Pick<Scenario, "front" | "back" | "upgrades">): string | undefined;
  start(plan: PeerPlan): Promise<Running> | Running;
}

const PEER_FOLDER = path.join(import.meta.dirname, "peers");
const NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so";

export const PEERS: readonly Peer[] = [
  {
    name: "gilliam",
    version: () => ask(["git", "-C", import.meta.dirname, "rev-parse", "--short", "HEAD"], /(\w+)/),
    cannot: () => undefined,
    start: startGilliam,
  },
  {
    name: "nginx",
    version: () => ask(["nginx", "-v"], /nginx\/([\d.]+)/),
    cannot: ({ front }) =>
      front === "tcp" && !existsSync(NGINX_STREAM)
        ? "its stream module is not installed (libnginx-mod-stream)"
        : undefined,
    start: startNginx,
  },
  {
    name: "haproxy",
    version: () => ask(["haproxy", "-v"], /version ([\d.]+)/),
    cannot: () => undefined,
    start: startHaproxy,
  },
  {
    name: "caddy",
    version: () => ask(["caddy", "version"], /v?([\d.]+)/),
    cannot: ({ front }) => (front === "tcp" ? "it passes no TCP through" : undefined),
    start: startCaddy,
  },
  ...["node-undici", "http-proxy", "http-proxy-middleware", "httpxy", "fastify-http-proxy"].map(nodePeer),
  {
    name: "node-net",
    version: () => process.version.slice(1),
    cannot: ({ front }) => (front === "tcp" ? undefined : "it knows TCP only"),
    start: startNodePeer("node-net"),
  },
];

function nodePeer(name: string): Peer {
  const module = { "node-undici": "undici", "fastify-http-proxy": "@fastify/http-proxy" }[name] ?? name;
  return {
    name,
    version: () => {
      const file = path.join(PEER_FOLDER, "node_modules", module, "package.json");
      if (!existsSync(file)) return undefined;
      return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
    },
    cannot: ({ front, back }) =>
      back === "http1" && (front === "http1" || front === "tls") ? undefined : "it speaks HTTP/1.1 only",
    start: startNodePeer(name),
  };
}

/** peers/NAME.mjs, by the Node that runs this: the one whose engine is ours, too. */
function startNodePeer(name: string): Peer["start"] {
  return ({ core, port, upstreamPorts, front, certificate }) => {
    const program = path.join(PEER_FOLDER, `${name}.mjs`);
    const env =
      front === "tls" ? { LOADTEST_CERT: certificate.cert, LOADTEST_KEY: certificate.key } : undefined;
    return start(core, [process.execPath, program, String(port), ...upstreamPorts.map(String)], env);
  };
}

const NGINX_HTTP = `      proxy_pass http://endpoints; proxy_http_version 1.1; proxy_set_header Connection $connection_upgrade;
      proxy_set_header Upgrade $http_upgrade; proxy_request_buffering off; proxy_max_temp_file_size 0;
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Request-Id $request_id;`;
const NGINX_GRPC = `      grpc_pass grpc://endpoints; grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      grpc_set_header X-Request-Id $request_id;`;

function startNginx({ core, port, upstreamPorts, folder, front, back, certificate }: PeerPlan): Running {
  const file = path.join(folder, "nginx.conf");
  const secure = front === "tls" || front === "h2";
  const listen = `${secure ? "ssl" : ""} ${front === "h2" || front === "h2c" ? "http2" : ""}`;
  const head = `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr warn; worker_rlimit_nofile 40000;
${front === "tcp" ? `load_module ${NGINX_STREAM};` : ""}
events { worker_connections 16384; }`;
  const endpoints = upstreamPorts.map((each) => `    server 127.0.0.1:${each};`).join("\n");
  const stream = `stream {
  upstream endpoints {
    least_conn;
${endpoints}
  }
  server { listen 127.0.0.1:${port} backlog=4096; proxy_pass endpoints; }
}`;
  const http = `http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;
${tempPaths(folder)}
  map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
  upstream endpoints {
    least_conn;
${endpoints}
    keepalive 256; keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:${port} ${listen} backlog=4096;
${secure ? `    ssl_certificate ${certificate.cert}; ssl_certificate_key ${certificate.key}; ssl_protocols TLSv1.3;` : ""}
    location / {
${back === "h2c" ? NGINX_GRPC : NGINX_HTTP}
    }
  }
}`;
  writeFileSync(file, `${head}\n${front === "tcp" ? stream : http}\n`);
  return start(core, ["nginx", "-e", "stderr", "-p", folder, "-c", file]);
}

function startHaproxy({ core, port, upstreamPorts, folder, front, back, certificate }: PeerPlan): Running {
  const file = path.join(folder, "haproxy.cfg");
  const pem = path.join(folder, "both.pem");
  writeFileSync(pem, readFileSync(certificate.cert, "utf8") + readFileSync(certificate.key, "utf8"));
  const bind = {
    http1: "",
    tcp: "",
    h2c: "proto h2",
    tls: `ssl crt ${pem} ssl-min-ver TLSv1.3 alpn http/1.1`,
    h2: `ssl crt ${pem} ssl-min-ver TLSv1.3 alpn h2`,
  }[front];
  const http = `  mode http
  option forwardfor
  http-reuse always
  unique-id-format %{+X}o%ci%cp%Ts%rt
  unique-id-header X-Request-Id`;
  const checks = front === "tcp" ? "observe layer4" : "pool-max-conn 256 observe layer7";
  const proto = back === "h2c" ? "proto h2" : "";
  writeFileSync(
    file,
    `global
  nbthread 1
  no strict-limits
  maxconn 12000
defaults
${front === "tcp" ? "  mode tcp" : http}
  option redispatch
  retries 2
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
frontend public
  bind 127.0.0.1:${port} ${bind}
  default_backend endpoints
backend endpoints
  balance leastconn
${upstreamPorts.map((each, index) => `  server s${index} 127.0.0.1:${each} ${proto} ${checks} error-limit 5 on-error mark-down check inter 2s`).join("\n")}
`,
  );
  return start(core, ["haproxy", "-db", "-f", file]);
}

function startCaddy({ core, port, upstreamPorts, folder, front, back, certificate }: PeerPlan): Running {
  const file = path.join(folder, "Caddyfile");
  const secure = front === "tls" || front === "h2";
  const scheme = back === "h2c" ? "h2c://" : "";
  writeFileSync(
    file,
    `{
  admin off
  auto_https off
  servers {
    protocols h1 ${secure ? "h2" : "h2c"}
  }
}
${secure ? "https://localhost" : "http://127.0.0.1"}:${port} {
  bind 127.0.0.1
${secure ? `  tls ${certificate.cert} ${certificate.key} {\n    protocols tls1.3\n  }` : ""}
  reverse_proxy ${upstreamPorts.map((upstream) => `${scheme}127.0.0.1:${upstream}`).join(" ")} {
    lb_policy least_conn
${scheme === "" ? "    transport http {\n      keepalive_idle_conns_per_host 256\n    }" : ""}
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

/** A certificate for `localhost` that nobody trusts; P-256, as public ones are now. */
export function makeCertificate(folder: string): Certificate {
  const files = { cert: path.join(folder, "cert.pem"), key: path.join(folder, "key.pem") };
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const out = ["-keyout", files.key, "-out", files.cert, "-days", "30"];
  execFileSync("openssl", ["req", "-x509", ...key, ...out, ...subject], { stdio: "ignore" });
  return files;
}

/** Whether a program is there to be called. */
export function isInstalled(program: string): boolean {
  return ask(["command", "-v", program], /(.+)/) !== undefined;
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
