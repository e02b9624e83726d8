import type {
  FormationView,
  GraphView,
  InstanceView,
  Plan,
  PlatformView,
  ReleaseView,
  RouteView,
  ServiceView,
} from "../../model/api.ts";
import type { HostView } from "../../model/host.ts";

/** A small world for tests of the command line; each maker takes what a test wants different. */

/** 2026-11-22 12:00:00 UTC. */
export const NOW_MS = Date.UTC(2026, 10, 22, 12);

export function service(change: Partial<ServiceView> = {}): ServiceView {
  return {
    name: "web",
    kind: "process",
    release: 4,
    wanted: 2,
    ready: 2,
    canary: null,
    state: "ready",
    explanation: "",
    image: "aaaaaaaaaaaa",
    ...change,
  };
}

export function formation(change: Partial<FormationView> = {}): FormationView {
  return {
    name: "shop",
    state: "up",
    current: 4,
    settled: true,
    services: [
      service(),
      service({ name: "db", kind: "auxiliary", wanted: 1, ready: 1, release: 1, image: "gear postgres 18" }),
    ],
    urls: ["http://shop.localhost:8080"],
    boot: false,
    ...change,
  };
}

export function instance(change: Partial<InstanceView> = {}): InstanceView {
  return {
    id: "shop-web-r4-k3x9q",
    formation: "shop",
    service: "web",
    release: 4,
    hostId: "here",
    phase: "ready",
    reason: "",
    restarts: 0,
    startedAtMs: NOW_MS - 65_000,
    address: "10.64.0.2:8080",
    inTraffic: true,
    lastLines: [],
    ...change,
  };
}

export function plan(change: Partial<Plan> = {}): Plan {
  return {
    formation: "shop",
    from: 4,
    to: 5,
    changes: [
      { service: "api", action: "create", differences: ["port: 8081 (http)"] },
      { service: "db", action: "keep", differences: [] },
      { service: "old", action: "remove", differences: [] },
      { service: "web", action: "replace", differences: ["environment.LOG_LEVEL: info → debug"] },
    ],
    warnings: [],
    ...change,
  };
}

export function platform(change: Partial<PlatformView> = {}): PlatformView {
  return {
    version: "0.1.0",
    registry: "embedded (/var/lib/gilliam/control/registry.db)",
    startedAtMs: NOW_MS - 3_600_000,
    hosts: 1,
    formations: ["gilliam", "shop"],
    epoch: 12,
    proxies: [
      {
        id: "edge-here",
        kind: "edge",
        hostId: "here",
        epoch: 12,
        behind: false,
        refused: null,
        lastSeenMs: NOW_MS - 500,
        metricsUrl: "http://127.0.0.1:7030/metrics",
      },
    ],
    alarms: [],
    ...change,
  };
}

export const RELEASES: ReleaseView[] = [
  {
    number: 3,
    createdAtMs: NOW_MS - 86_400_000,
    current: false,
    services: ["db", "web"],
    summary: "web: source",
  },
  {
    number: 4,
    createdAtMs: NOW_MS - 120_000,
    current: true,
    services: ["db", "web"],
    summary: "web: LOG_LEVEL",
  },
  { number: 5, createdAtMs: NOW_MS - 1_000, current: false, services: ["db", "web"], summary: "web: source" },
];

export const ROUTES: RouteView[] = [
  {
    host: "shop.localhost",
    path: "/",
    service: "web.shop",
    split: [
      { release: 4, weight: 9, endpoints: 2 },
      { release: 5, weight: 1, endpoints: 1 },
    ],
  },
  { host: "shop.localhost", path: "/admin", service: "admin.shop", split: [] },
];

export const HOSTS: HostView[] = [
  {
    hostId: "here",
    state: "up",
    driver: "process",
    network: "namespace",
    capacity: { cpu: 2, memoryBytes: 4 * 1024 ** 3 },
    labels: { zone: "a" },
    instances: 3,
    lastSeenMs: NOW_MS - 1_500,
  },
];

export const GRAPH: GraphView = {
  nodes: [
    { address: "edge", kind: "edge", ready: 1, wanted: 1 },
    { address: "web.shop", kind: "process", ready: 2, wanted: 2 },
    { address: "api.shop", kind: "process", ready: 1, wanted: 2 },
    { address: "db.shop", kind: "auxiliary", ready: 1, wanted: 1 },
    { address: "mail.example.com:25", kind: "external", ready: 0, wanted: 0 },
  ],
  edges: [
    edge("edge", "web.shop", 0, "http", 12.4, 0, 8.25),
    edge("web.shop", "api.shop", 7001, "http", 24.1, 0.5, 3.1),
    edge("web.shop", "db.shop", 5432, "tcp", 0.4, 0, null),
    edge("api.shop", "db.shop", 5432, "tcp", 48, 0, 41),
    edge("api.shop", "mail.example.com:25", 2525, "tcp", 0, 0, null),
  ],
};

function edge(
  from: string,
  to: string,
  port: number,
  protocol: string,
  requestsPerSecond: number,
  failuresPerSecond: number,
  meanMs: number | null,
): GraphView["edges"][number] {
  return { from, to, dependency: to, port, protocol, requestsPerSecond, failuresPerSecond, meanMs };
}
