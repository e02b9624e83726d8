import { describe, expect, test } from "vitest";
import type { BuildStatus } from "../model/host.ts";
import type { InstanceStatus } from "../model/instance.ts";
import {
  formation,
  host,
  instance,
  NOW_MS,
  proxy,
  release,
  SETTINGS,
  world,
} from "../test/fixtures/world.ts";
import { explain, explainInstance } from "./explain.ts";
import type { InstanceRecord, World } from "./world.ts";

const IMAGE = {
  kind: "source" as const,
  image: `sha256:${"a".repeat(64)}`,
  source: `sha256:${"b".repeat(64)}`,
};
const ONE = release(1, { web: { edge: [{ host: "shop.localhost", path: "/" }] } });
const TWO = release(2, {
  web: { spec: { image: IMAGE, health: { kind: "http", path: "/healthz" } } },
});

function view(state: World) {
  return explain(state, state.formations[0]!);
}

function deploying(fresh: Partial<InstanceStatus> | undefined, more: Partial<World> = {}): World {
  const status: InstanceStatus | undefined =
    fresh === undefined
      ? undefined
      : { instanceId: "w2", phase: "starting", reason: "", restarts: 0, lastLines: [], ...fresh };
  const record: InstanceRecord = {
    ...instance("w2", { release: 2, createdAtMs: NOW_MS - 10_000, spec: TWO.services["web"]!.spec }),
    ...(status === undefined ? {} : { status }),
  };
  return world({
    formations: [formation({ web: { release: 2 } })],
    instances: [instance("w1", { phase: "ready" }), record],
    proxies: [proxy("edge-1", ["w1"])],
    builds: builds({ state: "ready" }),
    ...more,
    releases: [ONE, TWO],
  });
}

function builds(status: Partial<BuildStatus>): World["builds"] {
  const whole = {
    image: IMAGE.image,
    state: "ready" as const,
    explanation: "",
    reason: "",
    lastLines: [],
    ...status,
  };
  return new Map([[IMAGE.image, new Map([["a", whole]])]]);
}

const exit = { code: 1, signal: null, atMs: NOW_MS, outOfMemory: false };

test.for([
  {
    name: "waiting for a build",
    state: deploying(undefined, { builds: new Map() }),
    expected: ["waiting", "Waits for host a to build its image. Release 1 keeps serving."],
  },
  {
    name: "building",
    state: deploying(undefined, {
      builds: builds({ state: "building", explanation: "Node, from package.json" }),
    }),
    expected: [
      "waiting",
      "Its image is being built on host a: Node, from package.json. Release 1 keeps serving.",
    ],
  },
  {
    name: "a failed build",
    state: deploying(undefined, {
      builds: builds({ state: "failed", reason: "npm ci exited with 1", lastLines: ["E404 left-pad"] }),
    }),
    expected: [
      "failing",
      'Its image could not be built: npm ci exited with 1. Last lines: "E404 left-pad". Mend it and deploy again. Release 1 keeps serving.',
    ],
  },
  {
    name: "not taken up yet",
    state: deploying(undefined),
    expected: ["waiting", "w2 waits for host a to take it up. Release 1 keeps serving."],
  },
  {
    name: "starting",
    state: deploying({ startedAtMs: NOW_MS - 4_000, reason: "connection refused" }),
    expected: [
      "waiting",
      "w2 runs for 4s and does not answer GET /healthz on port 8080 yet: connection refused. Release 1 keeps serving.",
    ],
  },
  {
    name: "a health check that fails for long",
    state: deploying(
      { startedAtMs: NOW_MS - 4_000, reason: "answered 500" },
      { settings: { ...SETTINGS, readyMsMax: 9_999 } },
    ),
    expected: [
      "failing",
      "w2 runs for 4s and does not answer GET /healthz on port 8080 yet: answered 500. Check that it listens where `port` and `health` say; `gilliam logs web` shows its output. Release 1 keeps serving.",
    ],
  },
  {
    name: "a crash loop",
    state: deploying({
      phase: "failed",
      restarts: 3,
      lastExit: exit,
      nextStartAtMs: NOW_MS + 8_000,
      lastLines: ["Error: no DB_URL", ""],
    }),
    expected: [
      "failing",
      'w2 exited with code 1. Next start in 8s, restart 4. Last lines: "Error: no DB_URL". Release 1 keeps serving.',
    ],
  },
  {
    name: "a missing command",
    state: deploying({ phase: "failed", lastExit: { ...exit, code: 127 } }),
    expected: [
      "failing",
      "w2 exited with code 127 (command not found: check `command`). Release 1 keeps serving.",
    ],
  },
  {
    name: "too little memory",
    state: deploying({ phase: "failed", lastExit: { ...exit, signal: "SIGKILL", outOfMemory: true } }),
    expected: [
      "failing",
      "w2 was killed for using more memory than `resources.memory` allows. Release 1 keeps serving.",
    ],
  },
  {
    name: "a proxy that must acknowledge",
    state: deploying(
      { phase: "ready", address: { host: "10.0.0.2", port: 1 } },
      { proxies: [proxy("edge-1", ["w1"], { wantedEndpoints: new Set(["w1", "w2"]), wantedEpoch: 12 })] },
    ),
    expected: ["changing", "w2 is ready; edge-1 must acknowledge epoch 12 before it counts."],
  },
  {
    name: "a proxy that refuses",
    state: deploying(
      { phase: "ready", address: { host: "10.0.0.2", port: 1 } },
      {
        proxies: [
          proxy("edge-1", ["w1"], {
            wantedEndpoints: new Set(["w1", "w2"]),
            refused: { epoch: 12, reason: "bad route" },
          }),
        ],
      },
    ),
    expected: ["failing", "edge-1 refused epoch 12: bad route. Release 1 keeps serving."],
  },
  {
    name: "an old instance to go",
    state: deploying(
      { phase: "ready", address: { host: "10.0.0.2", port: 1 } },
      {
        proxies: [proxy("edge-1", ["w1", "w2"])],
        instances: [
          instance("w1", { phase: "ready", want: "drain", drainSinceMs: NOW_MS }),
          instance("w2", { phase: "ready", release: 2 }),
        ],
      },
    ),
    expected: ["changing", "1 old instance to go: w1 waits for edge-1 to let go of it."],
  },
  {
    name: "no host",
    state: deploying(undefined, { instances: [], hosts: [host("a", { draining: true })] }),
    expected: ["waiting", "0 of 1 instances are placed: no host takes new instances: host a is draining."],
  },
  {
    name: "a silent host",
    state: deploying(undefined, {
      instances: [instance("w2", { release: 2, phase: "ready" })],
      hosts: [host("a", { lastSeenMs: NOW_MS - 12_000 })],
    }),
    expected: [
      "failing",
      "Host a of w2 has been silent for 12s; its instances are replaced on other hosts after 30s. Look at its executor.",
    ],
  },
  {
    name: "a release the registry lost",
    state: { ...deploying(undefined), releases: new Map() },
    expected: [
      "waiting",
      "Nothing is changed, because release 2 with web is missing from the registry; deploy again to write it.",
    ],
  },
])("says what is going on: $name", ({ state, expected }) => {
  const [service] = view(state).services;
  expect([service?.state, service?.explanation]).toEqual(expected);
  expect(view(state).settled).toBe(false);
});

describe("settled", () => {
  const state = (more: Partial<World> = {}) =>
    world({
      formations: [formation({ web: { release: 1 } })],
      instances: [instance("w1", { phase: "ready" })],
      proxies: [proxy("edge-1", ["w1"])],
      ...more,
      releases: [ONE, TWO],
    });

  test("when all is as wanted and acknowledged", () => {
    expect(view(state())).toMatchObject({ settled: true, urls: ["shop.localhost"] });
    expect(view(state()).services).toEqual([
      {
        name: "web",
        kind: "process",
        release: 1,
        wanted: 1,
        ready: 1,
        canary: null,
        state: "ready",
        explanation: "",
        image: "platform",
      },
    ]);
  });

  test("not while a proxy still has an instance it should not", () => {
    const behind = proxy("edge-1", ["w1"], { acknowledgedEndpoints: new Set() });
    expect(view(state({ proxies: [behind] })).settled).toBe(false);
  });

  test("a canary is a state one may stay in, and how to end it is said", () => {
    const canary = state({
      formations: [formation({ web: { release: 1, canary: { release: 2, weight: 10 } } })],
      instances: [instance("w1", { phase: "ready" }), instance("w2", { phase: "ready", release: 2 })],
      proxies: [proxy("edge-1", ["w1", "w2"])],
      builds: builds({ state: "ready" }),
    });
    const { settled, services } = view(canary);
    expect(settled).toBe(true);
    expect(services[0]?.canary).toEqual({ release: 2, weight: 10, ready: 1, wanted: 1 });
    expect(services[0]?.explanation).toBe(
      "Release 2 gets 10 % of the requests; `gilliam promote` or `gilliam rollback` ends the canary.",
    );
  });

  test("down when nothing is left", () => {
    const down = [formation({ web: { release: 1 } }, { state: "down" })];
    expect(view(state({ formations: down }))).toMatchObject({ settled: false, state: "down" });
    expect(view(state({ formations: down, instances: [], proxies: [] }))).toMatchObject({
      settled: true,
      services: [{ state: "down", explanation: "The formation is down." }],
    });
  });
});

test("an instance says why it drains and what it waits for", () => {
  const record = instance("w1", {
    phase: "ready",
    want: "drain",
    drainSinceMs: NOW_MS,
    drainReason: "release 2 replaces it",
  });
  const state = world({ instances: [record], proxies: [proxy("edge-1", ["w1"])] });
  expect(explainInstance(state, record)).toMatchObject({
    phase: "draining",
    reason: "release 2 replaces it; waits for edge-1 to let go of it",
    inTraffic: true,
  });
});
