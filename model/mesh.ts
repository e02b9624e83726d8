import { z } from "zod";
import { RouteActions, RouteMatch } from "./route.ts";

/**
 * What a proxy is told: the mesh as far as it concerns that proxy. Terms follow Envoy's glossary.
 * A configuration has a number, its epoch; it applies whole or not at all.
 */

export const Protocol = z.enum(["http", "http2", "grpc", "tcp"]);
export type Protocol = z.infer<typeof Protocol>;

/** Version of the PROXY protocol, which tells the client's address (HAProxy, proxy-protocol.txt). */
export const ProxyProtocol = z.enum(["v1", "v2"]);
export type ProxyProtocol = z.infer<typeof ProxyProtocol>;

export const Endpoint = z.strictObject({
  /** The instance's id; unique in the mesh. */
  id: z.string().min(1),
  /** Where the proxy connects to: an IP address, or a host name for declared egress. */
  host: z.string().min(1),
  port: z.int().min(1).max(65_535),
  /** The release whose instance this is; 0 where there is none (declared egress). */
  release: z.int().min(0),
  /** It expects every connection to begin with a header of the PROXY protocol that names the client. */
  proxyProtocol: ProxyProtocol.optional(),
});
export type Endpoint = z.infer<typeof Endpoint>;

/** A share of a cluster's requests for one release. Weights are relative; 0 sends nothing. */
export const Split = z.strictObject({ release: z.int().min(0), weight: z.int().min(0).max(1_000_000) });
export type Split = z.infer<typeof Split>;

/** When to stop sending to a failing endpoint. Terms follow Envoy's outlier detection. */
export const OutlierPolicy = z.strictObject({
  /** Failures in a row (connect failures, resets, 5xx from the upstream) that eject an endpoint. */
  consecutiveFailuresMax: z.int().min(1).default(5),
  /** Share of an endpoint's requests, 0 to 100, that may fail within `failureIntervalMs`; more eject it. 100: never. */
  failurePercentMax: z.int().min(0).max(100).default(40),
  /** Fewer requests than this within the interval say nothing about an endpoint. */
  failureRequestsMin: z.int().min(1).default(20),
  /** In milliseconds, from a failure on. */
  failureIntervalMs: z.int().min(1).default(10_000),
  /** First ejection in milliseconds; grows with each further one. */
  ejectionMsBase: z.int().min(1).default(5_000),
  ejectionMsMax: z.int().min(1).default(60_000),
  /** Share of a cluster, 0 to 100, that may be ejected at once. At least one endpoint may be, if there are two. */
  ejectedPercentMax: z.int().min(0).max(100).default(50),
});
export type OutlierPolicy = z.infer<typeof OutlierPolicy>;

export const RetryPolicy = z.strictObject({
  /** Attempts beyond the first; 0 switches retries off. */
  retriesMax: z.int().min(0).max(10).default(2),
  /** Retries as a share of requests, 0 to 1; the budget that keeps retries from multiplying an outage. */
  budgetRatio: z.number().min(0).max(1).default(0.2),
  /** Retries that may be spent before any request has earned one. */
  budgetBurst: z.int().min(0).default(10),
  /** Also resend methods that are not idempotent when the request may have been executed. Dangerous. */
  nonIdempotent: z.boolean().default(false),
  /** Also try again after `responseTimeoutMs`, for requests that may be sent twice. */
  onTimeout: z.boolean().default(false),
  /** Upper bound of the wait before a second retry, or one at the same endpoint; full jitter, doubles each time. */
  backoffMsBase: z.int().min(0).default(25),
  backoffMsMax: z.int().min(0).default(250),
});
export type RetryPolicy = z.infer<typeof RetryPolicy>;

/** A second attempt when the first is slow, for requests that may be sent twice; the first answer wins. */
export const HedgePolicy = z.strictObject({
  /** After this long without an answer; absent: after the time in which 95 % of requests are answered. */
  delayMs: z.int().min(1).optional(),
});
export type HedgePolicy = z.infer<typeof HedgePolicy>;

/** Bounds of a limit of requests at once that follows what a cluster can take. Terms follow Netflix's Gradient2. */
export const AdaptivePolicy = z.strictObject({
  /** Where it begins. */
  limitInitial: z.int().min(1).default(20),
  limitMin: z.int().min(1).default(10),
  limitMax: z.int().min(1).default(1_000),
  /** Answers may take so many times as long as usual before the limit shrinks. */
  tolerance: z.number().min(1).max(10).default(1.5),
});
export type AdaptivePolicy = z.infer<typeof AdaptivePolicy>;

/**
 * The less busy of two, in turn, the one that answers faster of two (peak EWMA), or by consistent hash (Maglev) of what
 * `hash` names; requests without it go to the less busy of two.
 */
export const Balancing = z.enum(["least-request", "round-robin", "ewma", "maglev"]);

export const ClusterPolicy = z.strictObject({
  connectTimeoutMs: z.int().min(1).default(2_000),
  /**
   * From the request's first byte to the response's last, retries included, and the deadline of the next hops; 0 is no
   * limit: then a response that has begun may take as long as its bytes keep moving.
   */
  requestTimeoutMs: z.int().min(0).default(0),
  /** From the request's last byte to the response's head, every attempt included; 0 is no limit. */
  answerTimeoutMs: z.int().min(0).default(60_000),
  /** From the request's last byte to the response's head, one attempt; 0 is no limit. */
  responseTimeoutMs: z.int().min(0).default(30_000),
  /** No byte of a response's body for this long ends it; of a gRPC request's too. 0 is no limit. */
  streamIdleTimeoutMs: z.int().min(0).default(300_000),
  /** No byte in either direction for this long ends a TCP connection or an upgraded one; 0 is no limit. */
  idleTimeoutMs: z.int().min(0).default(3_600_000),
  connectionsPerEndpointMax: z.int().min(1).default(1_024),
  /** Requests waiting for a connection or an endpoint; beyond, 503 at once. */
  pendingMax: z.int().min(0).default(1_024),
  /** Requests that wait for their answer at once; beyond, they wait, those of low priority are refused. 0 is no limit. */
  inFlightMax: z.int().min(0).default(0),
  /** Requests and streams of one endpoint at once, to their end; 0 is no limit beyond its connections. */
  inFlightPerEndpointMax: z.int().min(0).default(0),
  /** A limit that follows what the cluster can take, beside `inFlightMax`. Absent: none. */
  adaptive: AdaptivePolicy.optional(),
  /** How much its requests matter when not all can be served; a caller inside the mesh may say otherwise. */
  priority: z.enum(["low", "normal", "high"]).default("normal"),
  balancing: Balancing.default("least-request"),
  /** For `maglev`. `name` is empty for `address`. */
  hash: z.strictObject({ by: z.enum(["header", "cookie", "query", "address"]), name: z.string() }).optional(),
  /** A new endpoint's share grows evenly over this time; 0: all of it at once. Not for `maglev`. */
  slowStartMs: z.int().min(0).default(0),
  outlier: OutlierPolicy.prefault({}),
  retry: RetryPolicy.prefault({}),
  hedge: HedgePolicy.optional(),
});
export type ClusterPolicy = z.infer<typeof ClusterPolicy>;

export const ClusterPause = z.discriminatedUnion("kind", [
  /** Everybody is told to come back later: 503. */
  z.strictObject({ kind: z.literal("maintenance"), retryAfterSeconds: z.int().min(0) }),
  /** Requests wait, `pendingMax` of them, and go on when this time is over. Another id begins it anew. */
  z.strictObject({ kind: z.literal("hold"), id: z.string().min(1), forMs: z.int().min(1) }),
]);
export type ClusterPause = z.infer<typeof ClusterPause>;

export const Cluster = z.strictObject({
  /** `service.formation`, like `api.shop`. */
  name: z.string().min(1),
  protocol: Protocol,
  /** Ready instances only. Empty means that none is ready now: answer 503 with a reason, keep the port. */
  endpoints: z.array(Endpoint),
  /**
   * Exact shares by release while a canary runs. Empty: every endpoint equally. A release with weight but no
   * endpoint gives its share to the others.
   */
  split: z.array(Split).default([]),
  /** Keeps a client on the release it was first sent to, by a cookie or by the value of a header. */
  sticky: z
    .discriminatedUnion("by", [
      z.strictObject({ by: z.literal("cookie"), name: z.string().min(1) }),
      z.strictObject({ by: z.literal("header"), name: z.string().min(1) }),
    ])
    .optional(),
  /** An operator's word: nobody is asked now. Absent, as nearly always: go on. */
  pause: ClusterPause.optional(),
  policy: ClusterPolicy.prefault({}),
});
export type Cluster = z.infer<typeof Cluster>;

/** One declared dependency: who may call whom, under which name. */
export const Edge = z.strictObject({
  /** `${from}/${dependency}`. */
  id: z.string().min(1),
  /** The calling service's address, like `web.shop`. */
  from: z.string().min(1),
  /** The key in the manifest, like `api` or `ledger.bank`. */
  dependency: z.string().min(1),
  /** The local port the manifest declares. */
  port: z.int().min(1).max(65_535),
  protocol: Protocol,
  /** Name of the cluster. */
  cluster: z.string().min(1),
  /** What happens to its requests on their way; absent, as nearly always: nothing, and it costs nothing. */
  actions: RouteActions.optional(),
});
export type Edge = z.infer<typeof Edge>;

/** A public host name, and path below it, that the edge serves. */
export const PublicRoute = z.strictObject({
  id: z.string().min(1),
  /** Lower case, without port: `shop.localhost`, or `*.shop.example` for one label more. */
  host: z.string().min(1),
  /**
   * `/` or a prefix that ends at a segment: `/api` matches `/api` and `/api/x`, never `/apiary`. With `match.kind` an
   * exact path or a pattern.
   */
  path: z.string().startsWith("/").default("/"),
  /** Absent: every request to this host and prefix. */
  match: RouteMatch.optional(),
  cluster: z.string().min(1),
  /** What happens to its requests on their way; absent, as nearly always: nothing, and it costs nothing. */
  actions: RouteActions.optional(),
});
export type PublicRoute = z.infer<typeof PublicRoute>;

export const MeshConfig = z.strictObject({
  epoch: z.int().min(0),
  clusters: z.array(Cluster),
  edges: z.array(Edge),
  routes: z.array(PublicRoute),
});
export type MeshConfig = z.infer<typeof MeshConfig>;

/** What changed between two configurations of the same proxy. Sets replace whole items by their key. */
export const MeshDelta = z.strictObject({
  epoch: z.int().min(0),
  /** Applies only on top of this epoch; otherwise ask for a whole configuration. */
  base: z.int().min(0),
  set: z.strictObject({ clusters: z.array(Cluster), edges: z.array(Edge), routes: z.array(PublicRoute) }),
  remove: z.strictObject({
    clusters: z.array(z.string()),
    edges: z.array(z.string()),
    routes: z.array(z.string()),
  }),
});
export type MeshDelta = z.infer<typeof MeshDelta>;

/** A line of the feed, control to proxy: `GET /v1/feed/{proxyId}?epoch=N`, NDJSON, one message a line. */
export const FeedMessage = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("config"), config: MeshConfig }),
  z.strictObject({ kind: z.literal("delta"), delta: MeshDelta }),
  /** Sent when nothing else was for a while, so that a silent control is noticed. */
  z.strictObject({ kind: z.literal("alive") }),
]);
export type FeedMessage = z.infer<typeof FeedMessage>;

/** Counted since the proxy started, by declared edge and release; control derives rates from differences. */
export const EdgeTraffic = z.strictObject({
  /** `web.shop`, or `edge` for public traffic. */
  from: z.string(),
  /** `api.shop`. */
  to: z.string(),
  release: z.int().min(0),
  requests: z.number(),
  /** Requests that ended with a 5xx or without a response. */
  failures: z.number(),
  retries: z.number(),
  /** Sum of durations, in milliseconds. */
  durationMsSum: z.number(),
});
export type EdgeTraffic = z.infer<typeof EdgeTraffic>;

/**
 * What a proxy tells control: `POST /v1/feed/{proxyId}/report`. Sent after every epoch (applied or refused),
 * whenever `busy` empties, and every two seconds; it is also the proxy's heartbeat.
 */
export const ProxyReport = z.strictObject({
  kind: z.enum(["edge", "sidecar"]),
  hostId: z.string(),
  /** New at every start, so that counters that begin again are told from counters that ran backwards. */
  bootId: z.string(),
  /** The epoch in force. */
  epoch: z.int().min(0),
  /** An epoch that could not be applied, and why; the one in force stays. */
  refused: z.strictObject({ epoch: z.int(), reason: z.string() }).optional(),
  /** Requests and connections in flight to endpoints that are no longer in the configuration, by endpoint id. */
  busy: z.record(z.string(), z.int().min(1)),
  /** Endpoints ejected now, by id, with the reason in plain words. */
  ejected: z.record(z.string(), z.string()),
  traffic: z.array(EdgeTraffic),
  /** Where Prometheus finds this proxy: `http://127.0.0.1:7020/metrics`. */
  metricsUrl: z.string(),
});
export type ProxyReport = z.infer<typeof ProxyReport>;
