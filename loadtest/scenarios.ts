import type { Figure, Goal } from "./figures.ts";
import { echoOverWebSocket, h2load, newTlsConnections, wrk } from "./generators.ts";
import type { Load } from "./generators.ts";

/** What clients speak to a proxy: `tls` is HTTP/1.1 over TLS 1.3, `h2` HTTP/2 over it, `h2c` HTTP/2 without. */
export type Front = "http1" | "tls" | "h2" | "h2c" | "tcp";
/** What a proxy speaks to its upstreams. */
export type Back = "http1" | "h2c" | "tcp";

/** One kind of traffic, and what is to be reached. */
export interface Scenario {
  readonly name: string;
  readonly about: string;
  readonly front: Front;
  readonly back: Back;
  /** The connections are upgraded to WebSocket. */
  readonly upgrades?: boolean;
  readonly goals: readonly Goal[];
  /** Also shown for comparison, without a goal. */
  readonly besides?: readonly string[];
  /** Figures shown, in this order. */
  readonly figures: readonly Figure[];
  readonly kind: Kind;
}

export type Kind =
  /** As much as goes through. */
  | {
      readonly name: "load";
      /** `begun` is called when what it counts begins, if that is later than the call. */
      load(core: string, port: number, seconds: number, begun: () => void): Promise<Load>;
    }
  /** At half of what `reference` can do, or of its own for a slower one. */
  | {
      readonly name: "latency";
      readonly reference: string;
      load(core: string, port: number, seconds: number): Promise<Load>;
    }
  /** So many clients that have sent one request each and stay. */
  | { readonly name: "idle"; readonly connections: number };

const LOAD_FIGURES: readonly Figure[] = ["cpu", "perSecond", "residentMb", "failures"];
const NODE_PEERS = ["node-undici", "http-proxy", "http-proxy-middleware", "httpxy", "fastify-http-proxy"];
const UPGRADING = ["http-proxy", "http-proxy-middleware", "httpxy"];
/** fastify-http-proxy does not end a connection that is asked to end. */
const CLOSING = NODE_PEERS.filter((name) => name !== "fastify-http-proxy");
/** The message of a call: any 66 bytes do. */
const GRPC_CALL = { fields: ["content-type: application/grpc", "te: trailers"], body: "y".repeat(66) };

const cpuOver = (most: number, ...peers: readonly string[]): Goal[] =>
  peers.map((peer) => ({ figure: "cpu", peer, most }));
const throughputOver = (least: number, ...peers: readonly string[]): Goal[] =>
  peers.map((peer) => ({ figure: "perSecond", peer, least }));
const plain = (port: number, path = "/") => `http://127.0.0.1:${port}${path}`;
/** By name, as browsers ask: TLS says it, too. */
const secure = (port: number) => `https://localhost:${port}/`;
/** wrk sends what this script says instead of a GET. */
const CHUNKED_POST = `local piece = "2000\\r\\n" .. string.rep("z", 8192) .. "\\r\\n"
local rest = "6a0\\r\\n" .. string.rep("z", 1696) .. "\\r\\n0\\r\\n\\r\\n"
local whole = "POST /chunked HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n" .. string.rep(piece, 12) .. rest
request = function() return whole end
`;

export const SCENARIOS: readonly Scenario[] = [
  {
    name: "http1",
    about: "HTTP/1.1 keep-alive, 64 connections, GET, 66 bytes",
    front: "http1",
    back: "http1",
    goals: [...cpuOver(1, "nginx", "haproxy"), ...cpuOver(0.25, "caddy", ...NODE_PEERS)],
    figures: LOAD_FIGURES,
    kind: { name: "load", load: (core, port, seconds) => wrk(core, plain(port), 64, seconds) },
  },
  {
    name: "tls",
    about: "HTTP/1.1 over TLS 1.3, keep-alive, 64 connections, GET, 66 bytes",
    front: "tls",
    back: "http1",
    goals: [...cpuOver(1, "nginx"), ...cpuOver(0.25, "caddy", ...NODE_PEERS)],
    besides: ["haproxy"],
    figures: LOAD_FIGURES,
    kind: { name: "load", load: (core, port, seconds) => wrk(core, secure(port), 64, seconds) },
  },
  {
    name: "tls-new",
    about: "a new TLS 1.3 connection for each request, full handshakes (P-256), 4 clients",
    front: "tls",
    back: "http1",
    goals: [...cpuOver(1.5, "nginx"), ...cpuOver(0.25, "caddy", ...CLOSING)],
    besides: ["haproxy"],
    figures: LOAD_FIGURES,
    kind: { name: "load", load: (core, port, seconds) => newTlsConnections(core, port, 4, seconds) },
  },
  {
    name: "h2",
    about: "HTTP/2 over TLS 1.3, 16 connections of 16 streams, to HTTP/1.1 upstreams, GET, 66 bytes",
    front: "h2",
    back: "http1",
    goals: [...cpuOver(1, "nginx"), ...cpuOver(0.25, "caddy")],
    besides: ["haproxy"],
    figures: LOAD_FIGURES,
    kind: { name: "load", load: (core, port, seconds) => h2load(core, secure(port), 16, 16, seconds) },
  },
  {
    name: "h2c",
    about: "HTTP/2 without TLS, 16 connections of 16 streams, to HTTP/1.1 upstreams, GET, 66 bytes",
    front: "h2c",
    back: "http1",
    goals: [...cpuOver(1, "nginx"), ...cpuOver(0.25, "caddy")],
    besides: ["haproxy"],
    figures: LOAD_FIGURES,
    kind: { name: "load", load: (core, port, seconds) => h2load(core, plain(port), 16, 16, seconds) },
  },
  {
    name: "grpc",
    about:
      "HTTP/2 without TLS on both sides, 16 connections of 16 streams, POST of 66 bytes as unary gRPC sends it",
    front: "h2c",
    back: "h2c",
    goals: [...cpuOver(1, "nginx"), ...cpuOver(0.25, "caddy")],
    besides: ["haproxy"],
    figures: LOAD_FIGURES,
    kind: {
      name: "load",
      load: (core, port, seconds) => h2load(core, plain(port, "/shop.Cart/Add"), 16, 16, seconds, GRPC_CALL),
    },
  },
  {
    name: "tcp",
    about: "TCP passed through (our sidecar's local port), 64 connections, exchanges of some 100 bytes",
    front: "tcp",
    back: "tcp",
    goals: [...cpuOver(1.05, "haproxy"), ...cpuOver(0.25, "node-net")],
    besides: ["nginx"],
    figures: LOAD_FIGURES,
    kind: { name: "load", load: (core, port, seconds) => wrk(core, plain(port), 64, seconds) },
  },
  {
    name: "tcp-bulk",
    about: "TCP passed through (our sidecar's local port), 16 connections, 1 MiB answers",
    front: "tcp",
    back: "tcp",
    goals: throughputOver(1, "haproxy"),
    besides: ["nginx", "node-net"],
    figures: ["perSecond", "cpu", "residentMb", "failures"],
    kind: { name: "load", load: (core, port, seconds) => wrk(core, plain(port, "/mebibyte"), 16, seconds) },
  },
  {
    name: "bulk",
    about: "HTTP/1.1 keep-alive, 16 connections, GET, 1 MiB",
    front: "http1",
    back: "http1",
    goals: throughputOver(0.95, "nginx"),
    besides: ["haproxy", "caddy", ...NODE_PEERS],
    figures: ["perSecond", "cpu", "residentMb", "failures"],
    kind: { name: "load", load: (core, port, seconds) => wrk(core, plain(port, "/mebibyte"), 16, seconds) },
  },
  {
    name: "chunked",
    about: "HTTP/1.1 keep-alive, 32 connections, POST of 100 kB, chunked both ways",
    front: "http1",
    back: "http1",
    goals: throughputOver(0.9, "nginx"),
    besides: ["haproxy", "caddy", ...NODE_PEERS],
    figures: ["perSecond", "cpu", "residentMb", "failures"],
    kind: {
      name: "load",
      load: (core, port, seconds) => wrk(core, plain(port), 32, seconds, CHUNKED_POST),
    },
  },
  {
    name: "websocket",
    about: "WebSocket, 1,000 connections, each waits for the echo of its message before the next",
    front: "http1",
    back: "http1",
    upgrades: true,
    goals: [...cpuOver(1.1, "nginx"), ...cpuOver(0.25, "caddy", ...UPGRADING)],
    besides: ["haproxy"],
    figures: LOAD_FIGURES,
    kind: {
      name: "load",
      load: (core, port, seconds, begun) => echoOverWebSocket(core, port, 1_000, seconds, begun),
    },
  },
  {
    name: "latency",
    about:
      "HTTP/1.1 keep-alive at half of HAProxy's throughput (half of its own for a slower one), open loop",
    front: "http1",
    back: "http1",
    goals: [{ figure: "addedP99", peer: "haproxy", most: 1.2 }],
    besides: ["nginx", "caddy", ...NODE_PEERS],
    figures: ["addedP99", "p50", "p99", "p999", "perSecond", "failures"],
    kind: {
      name: "latency",
      reference: "haproxy",
      load: (core, port, seconds) => wrk(core, plain(port), 64, seconds),
    },
  },
  {
    name: "idle",
    about: "10,000 idle keep-alive connections",
    front: "http1",
    back: "http1",
    goals: [
      { figure: "held", peer: undefined, least: 10_000 },
      { figure: "idleKb", peer: undefined, most: 10 },
      { figure: "baseMb", peer: undefined, most: 60 },
    ],
    besides: ["nginx", "haproxy", "caddy", "node-undici"],
    figures: ["held", "idleKb", "baseMb"],
    kind: { name: "idle", connections: 10_000 },
  },
];

/** Who is asked to take part: us, whoever a goal names, and whoever is shown besides. */
export function invited({ goals, besides = [] }: Scenario): Set<string> {
  return new Set(["gilliam", ...goals.flatMap(({ peer }) => peer ?? []), ...besides]);
}
