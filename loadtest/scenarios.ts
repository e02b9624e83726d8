import type { PeerPlan } from "./peers.ts";
import { h2load, wrk } from "./generators.ts";
import type { Load } from "./generators.ts";

/** The message of a call: any 66 bytes do. */
const GRPC_CALL = { fields: ["content-type: application/grpc", "te: trailers"], body: "y".repeat(66) };

/** One kind of traffic, and what is to be reached: our CPU per request over a peer's, at most. */
export interface Scenario {
  readonly name: string;
  readonly about: string;
  readonly downstream: PeerPlan["downstream"];
  readonly upstream: PeerPlan["upstream"];
  readonly targets: Readonly<Record<string, number>>;
  /** Whether latency is measured at half load; only over HTTP/1.1. */
  readonly latency: boolean;
  load(core: string, port: number, seconds: number): Promise<Load>;
}

export const SCENARIOS: readonly Scenario[] = [
  {
    name: "http1",
    about: "HTTP/1.1 keep-alive, 64 connections, GET, 66 bytes",
    downstream: "http1",
    upstream: "http1",
    targets: {
      nginx: 1,
      haproxy: 1,
      caddy: 0.25,
      "node-undici": 0.25,
      "http-proxy": 0.25,
      "http-proxy-middleware": 0.25,
      httpxy: 0.25,
      "fastify-http-proxy": 0.25,
    },
    latency: true,
    load: (core, port, seconds) => wrk(core, `http://127.0.0.1:${port}/`, 64, seconds),
  },
  {
    name: "h2c",
    about: "HTTP/2 without TLS, 16 connections of 16 streams, to HTTP/1.1 upstreams, GET, 66 bytes",
    downstream: "h2c",
    upstream: "http1",
    targets: { nginx: 1, caddy: 0.25 },
    latency: false,
    load: (core, port, seconds) => h2load(core, `http://127.0.0.1:${port}/`, 16, 16, seconds),
  },
  {
    name: "grpc",
    about:
      "HTTP/2 without TLS on both sides, 16 connections of 16 streams, POST of 66 bytes as unary gRPC sends it",
    downstream: "h2c",
    upstream: "h2c",
    targets: { nginx: 1 },
    latency: false,
    load: (core, port, seconds) =>
      h2load(core, `http://127.0.0.1:${port}/shop.Cart/Add`, 16, 16, seconds, GRPC_CALL),
  },
];
