import { join } from "node:path";
import { expect, test } from "vitest";
import type { ExecMessage, LogLine } from "../../model/api.ts";
import type { BootManifest } from "../../model/boot.ts";
import { imageDigest } from "../../model/image.ts";
import { ExecutorHarness, WEB_COMMAND, isRunning, makeSpec } from "./executor-harness.ts";
import {
  freePort,
  openFiles,
  packSource,
  processesNaming,
  runSecond,
  uidOf,
  zombiesOf,
} from "./executor-probes.ts";

const web = "shop-web-r1-aaaaa";
const networks: ("namespace" | "shared")[] = process.getuid?.() === 0 ? ["namespace", "shared"] : ["shared"];

test.for(networks)(
  "an assigned instance gets its ports, runs, answers, logs and stops (%s)",
  { timeout: 60_000 },
  async (network) => {
    await using harness = await ExecutorHarness.open(network);
    harness.startExecutor();
    const spec = makeSpec({
      command: WEB_COMMAND,
      port: 8080,
      health: { kind: "http", path: "/" },
      dependencies: [
        { name: "db", port: 5432, protocol: "tcp", optional: false, url: "postgres://u:p@{host}:{port}/db" },
      ],
      environment: { LOG_LEVEL: "info" },
      secrets: { PASSWORD: "hidden" },
    });
    harness.assign([{ instanceId: web, spec, want: "run" }]);
    const waiting = await harness.until(web, ({ reason }) => reason.includes("local ports"));
    expect(waiting).toMatchObject({ phase: "pending" });
    await harness.startSidecar();

    const { address } = await harness.until(web, ({ phase }) => phase === "ready");
    expect(harness.openPorts.get(web)).toMatchObject({
      service: "web",
      ports: [{ dependency: "db", port: 5432, protocol: "tcp" }],
    });
    const answer = await fetch(`http://${address?.host}:${address?.port}/`);
    const environment = (await answer.json()) as Record<string, string>;
    expect(environment).toMatchObject({
      PORT: String(address?.port),
      HOST: network === "namespace" ? "0.0.0.0" : "127.0.0.1",
      LOG_LEVEL: "info",
      PASSWORD: "hidden",
      DB_URL: "postgres://u:p@127.0.0.1:5432/db",
      DB_HOST: "127.0.0.1",
      DB_PORT: "5432",
      GILLIAM_FORMATION: "shop",
      GILLIAM_SERVICE: "web",
      GILLIAM_INSTANCE: web,
      GILLIAM_RELEASE: "1",
    });
    expect(Object.keys(environment).filter((name) => name.startsWith("GILLIAM_")).length).toBe(4);
    const logs = await harness.lines<LogLine>("GET", "/v1/logs?formation=shop");
    expect(logs.some(({ stream, text }) => stream === "stdout" && text.startsWith("listening on"))).toBe(
      true,
    );

    harness.assign([{ instanceId: web, spec, want: "stop" }]);
    await harness.until(web, ({ phase }) => phase === "stopped");
    expect(harness.openPorts.size).toBe(0);
    harness.assign([]);
    await expect.poll(() => harness.status(web)).toBeUndefined();
  },
);

test.for(networks)(
  "kill -9 of the executor: instances run on and are adopted, no twin (%s)",
  { timeout: 60_000 },
  async (network) => {
    await using harness = await ExecutorHarness.open(network);
    harness.startExecutor();
    const spec = makeSpec({ command: WEB_COMMAND, port: 8080, health: { kind: "http", path: "/" } });
    harness.assign([{ instanceId: web, spec, want: "run" }]);
    const before = await harness.until(web, ({ phase }) => phase === "ready");
    await harness.killExecutor();
    expect(isRunning(before.pid ?? 0)).toBe(true);
    harness.startExecutor();
    const after = await harness.until(web, () => true);
    // Ready from the first report on: a restarted executor must not take anything out of traffic.
    expect(after).toMatchObject({ phase: "ready", pid: before.pid, address: before.address, restarts: 0 });

    process.kill(before.pid ?? 0, "SIGKILL");
    const again = await harness.until(web, ({ phase, pid }) => phase === "ready" && pid !== before.pid);
    expect(again).toMatchObject({ restarts: 1, lastExit: { signal: "SIGKILL", outOfMemory: false } });
  },
);

const part = (command: string, port: number): BootManifest => ({
  formation: "gilliam",
  instances: [
    {
      instanceId: "gilliam-control-1",
      spec: makeSpec({
        formation: "gilliam",
        service: "control",
        command,
        port,
        health: { kind: "http", path: "/" },
      }),
      privileges: "none",
    },
  ],
});

test(
  "a part of the platform is back within a second, and restarted when its manifest changed",
  {
    timeout: 60_000,
  },
  async () => {
    await using harness = await ExecutorHarness.open("shared");
    const control = "gilliam-control-1";
    harness.writeBoot(part(WEB_COMMAND, await freePort()));
    harness.startExecutor();
    const first = await harness.until(control, ({ phase }) => phase === "ready");
    expect(first.boot?.service).toBe("control");
    if (process.getuid?.() === 0) expect(uidOf(first.pid)).toBe(199_999);

    const killedAtMs = performance.now();
    process.kill(first.pid ?? 0, "SIGKILL");
    const second = await harness.until(control, ({ phase, pid }) => phase === "ready" && pid !== first.pid);
    expect(performance.now() - killedAtMs).toBeLessThan(1_500); // The second of the promise, and a slow machine's start.

    // Control may list what it adopted; only the manifest decides.
    harness.assign([{ instanceId: control, spec: makeSpec({ command: "false" }), want: "stop" }]);
    await harness.killExecutor();
    harness.startExecutor();
    expect(await harness.until(control, () => true)).toMatchObject({ phase: "ready", pid: second.pid });

    await harness.killExecutor();
    harness.writeBoot(part(WEB_COMMAND, await freePort()));
    harness.startExecutor();
    const third = await harness.until(control, ({ phase, pid }) => phase === "ready" && pid !== second.pid);
    expect(third.address).not.toEqual(second.address);
    expect(isRunning(second.pid ?? 0)).toBe(false);
  },
);

test(
  "while control is away a crashed instance is restarted, by a restarted executor too",
  {
    timeout: 60_000,
  },
  async () => {
    await using harness = await ExecutorHarness.open("shared");
    harness.startExecutor();
    const spec = makeSpec({ command: WEB_COMMAND, port: 8080, health: { kind: "http", path: "/" } });
    harness.assign([{ instanceId: web, spec, want: "run" }]);
    const { pid = 0 } = await harness.until(web, ({ phase }) => phase === "ready");
    await harness.stopControl();
    await harness.killExecutor();
    harness.startExecutor();
    process.kill(pid, "SIGKILL");
    harness.assign([]); // A control that lost everything: nothing is stopped because it is missing.
    await harness.startControl();
    const again = await harness.until(web, ({ phase, pid: now }) => phase === "ready" && now !== pid);
    expect(again.restarts).toBe(1);
  },
);

test.for(networks)(
  "a crash loop is shown as one, with its last words, and leaves nothing (%s)",
  {
    timeout: 90_000,
  },
  async (network) => {
    await using harness = await ExecutorHarness.open(network);
    harness.startExecutor({ GILLIAM_RESTART_BASE: "10ms", GILLIAM_RESTART_MAX: "10ms" });
    const spec = makeSpec({
      command: "echo about to fail; sleep 303 & setsid sleep 304 & exit 3",
      port: 8080,
    });
    harness.assign([{ instanceId: web, spec, want: "run" }]);
    const looping = await harness.until(web, ({ phase, restarts }) => phase === "failed" && restarts > 2);
    expect(looping.reason).toMatch(/^crash loop, \d+ times in a row: exited with code 3 after \d/);
    expect(looping.lastLines.at(-1)).toBe("about to fail");
    expect(looping.lastExit).toMatchObject({ code: 3, signal: null });
    const before = openFiles(harness.executorPid);
    await harness.until(web, ({ restarts }) => restarts >= 30, 60_000);
    expect(openFiles(harness.executorPid)).toBeLessThanOrEqual(before + 5);
    expect(zombiesOf(harness.executorPid)).toBe(0);
    harness.assign([{ instanceId: web, spec, want: "stop" }]);
    await harness.until(web, ({ phase }) => phase === "stopped");
    expect(processesNaming(join(harness.folder, "executor/instances"))).toBe(0);
  },
);

test.for([
  {
    name: "python that is not there",
    spec: { command: "python9 server.py" },
    says: /python9 is not installed on host host-1/,
  },
  {
    name: "the wrong port",
    spec: { command: WEB_COMMAND.replace("process.env.PORT, ", "0, "), port: 8080, health: { kind: "tcp" } },
    says: /it listens on .*, not on port \d+ \(\$PORT\)/,
  },
  {
    name: "a health check that fails",
    spec: {
      command: WEB_COMMAND.replace("r.end(", 'r.writeHead(500).end("no database" || '),
      port: 8080,
      health: { kind: "http", path: "/healthz" },
    },
    says: /GET \/healthz on port \d+ answered 500: "no database"/,
  },
  {
    name: "a command that says why not",
    spec: { command: "exec sleep 60", health: { kind: "command", command: "echo not yet; exit 1" } },
    says: /"echo not yet; exit 1" exited with code 1: "not yet"/,
  },
] as const)("why it is not ready, in plain words: $name", { timeout: 60_000 }, async ({ spec, says }) => {
  await using harness = await ExecutorHarness.open("shared");
  harness.startExecutor();
  harness.assign([{ instanceId: web, spec: makeSpec(spec), want: "run" }]);
  const { phase } = await harness.until(web, ({ reason }) => says.test(reason));
  expect(phase).not.toBe("ready");
});

test.runIf(networks.includes("namespace"))(
  "in a namespace: listening on 127.0.0.1 only is named, and nothing undeclared can be reached",
  { timeout: 60_000 },
  async () => {
    await using harness = await ExecutorHarness.open("namespace");
    harness.startExecutor();
    const command = WEB_COMMAND.replace("process.env.HOST)", '"127.0.0.1")');
    const spec = makeSpec({ command, port: 80, health: { kind: "tcp" } });
    harness.assign([{ instanceId: web, spec, want: "run" }]);
    await harness.until(web, ({ reason }) => reason.includes("listens on 127.0.0.1:80 only"));
    const { executorUrl = "" } = harness.reports.at(-1) ?? {};
    for (const url of [executorUrl, "http://192.0.2.2/"]) {
      const script = `fetch(${JSON.stringify(url)}).then(() => console.log("reached"), (e) => console.log(e.cause.code))`;
      const lines = await harness.lines<ExecMessage>("POST", `/v1/instances/${web}/exec`, {
        command: ["node", "-e", script],
      });
      expect(lines.map((line) => (line.kind === "output" ? line.data : "")).join("")).toMatch(
        /ENETUNREACH|ECONNREFUSED/,
      );
    }
  },
);

test.runIf(process.getuid?.() === 0)("out of memory is seen and named", { timeout: 60_000 }, async () => {
  await using harness = await ExecutorHarness.open("shared");
  harness.startExecutor();
  const command = "exec node -e 'const a=[];for(;;)a.push(Buffer.alloc(1e6,1))'";
  const spec = makeSpec({ command, resources: { memoryBytes: 80 * 1024 * 1024 } });
  harness.assign([{ instanceId: web, spec, want: "run" }]);
  const { reason, lastExit } = await harness.until(web, ({ phase }) => phase === "failed");
  expect(reason).toContain("its limit of 80 MiB; raise resources.memory");
  expect(lastExit?.outOfMemory).toBe(true);
});

test("one that ignores SIGTERM is killed after its grace", { timeout: 60_000 }, async () => {
  await using harness = await ExecutorHarness.open("shared");
  harness.startExecutor();
  const spec = makeSpec({
    command: "trap '' TERM; while :; do sleep 0.1; done",
    stop: { signal: "SIGTERM", graceMs: 500 },
  });
  harness.assign([{ instanceId: web, spec, want: "run" }]);
  await harness.until(web, ({ phase }) => phase === "ready");
  harness.assign([{ instanceId: web, spec, want: "stop" }]);
  const { reason, lastExit } = await harness.until(web, ({ phase }) => phase === "stopped");
  expect(reason).toBe("stopped by control; SIGTERM sent, then SIGKILL: it still ran after 500 ms");
  expect(lastExit?.signal).toBe("SIGKILL");
});

test("exec runs inside, run runs beside and leaves nothing", { timeout: 60_000 }, async () => {
  await using harness = await ExecutorHarness.open(networks[0] ?? "shared");
  await harness.startSidecar();
  harness.startExecutor();
  const spec = makeSpec({
    command: WEB_COMMAND,
    port: 8080,
    dependencies: [
      { name: "api", port: 7001, protocol: "http", optional: false, url: "http://{host}:{port}" },
    ],
  });
  harness.assign([{ instanceId: web, spec, want: "run" }]);
  await harness.until(web, ({ phase }) => phase === "ready");
  const inside = await harness.lines<ExecMessage>("POST", `/v1/instances/${web}/exec`, {
    command: ["sh", "-c", 'cat; echo "$GILLIAM_INSTANCE" >&2; exit 5'],
    stdin: Buffer.from("ü").toString("base64"),
  });
  expect(inside).toEqual([
    { kind: "output", stream: "stdout", data: "ü" },
    { kind: "output", stream: "stderr", data: `${web}\n` },
    { kind: "exit", code: 5 },
  ]);
  const beside = await harness.lines<ExecMessage>("POST", "/v1/run", {
    spec,
    command: ["sh", "-c", 'echo "$API_URL $GILLIAM_INSTANCE"'],
  });
  expect(beside[0]).toMatchObject({
    data: expect.stringMatching(/^http:\/\/127.0.0.1:7001 shop-web-run-/) as string,
  });
  expect(beside.at(-1)).toEqual({ kind: "exit", code: 0 });
  expect([...harness.openPorts.keys()]).toEqual([web]);
  expect((await harness.request("POST", "/v1/instances/nobody/exec", { command: ["true"] })).status).toBe(
    404,
  );
});

test("the API wants the token; health and metrics do not", { timeout: 60_000 }, async () => {
  await using harness = await ExecutorHarness.open("shared");
  harness.startExecutor();
  await harness.request("GET", "/v1/instances");
  const url = harness.reports.at(-1)?.executorUrl;
  const statusOf = async (path: string, token?: string) =>
    (
      await fetch(
        `${url}${path}`,
        token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } },
      )
    ).status;
  expect(await statusOf("/v1/instances")).toBe(401);
  expect(await statusOf("/v1/instances", "wrong")).toBe(401);
  expect(await statusOf("/healthz")).toBe(200);
  expect(await (await fetch(`${url}/metrics`)).text()).toContain("gilliam_control_connected");
  expect(await statusOf("/v1/nothing", "host-token-of-the-test")).toBe(404);
});

test("a second executor on the same state refuses, and the first goes on", { timeout: 60_000 }, async () => {
  await using harness = await ExecutorHarness.open("shared");
  harness.startExecutor();
  await harness.request("GET", "/v1/instances");
  const { code, output } = await runSecond(harness.folder);
  expect(code).toBe(75);
  expect(output).toContain("Another executor runs");
  expect((await harness.request("GET", "/v1/instances")).status).toBe(200);
});

test("sidecar and executor agree again after the sidecar lost its list", { timeout: 60_000 }, async () => {
  await using harness = await ExecutorHarness.open("shared");
  await harness.startSidecar();
  harness.startExecutor();
  const dependencies = [{ name: "api", port: 7001, protocol: "http", optional: false, url: "u" }] as const;
  const spec = makeSpec({ command: "exec sleep 60", dependencies: [...dependencies] });
  harness.assign([{ instanceId: web, spec, want: "run" }]);
  await harness.until(web, ({ phase }) => phase === "ready");
  harness.forgetOpenPorts();
  await expect.poll(() => harness.openPorts.has(web), { timeout: 15_000 }).toBe(true);
});

test(
  "logs lose nothing over a kill -9 of the executor, and the build's image runs",
  { timeout: 60_000 },
  async () => {
    await using harness = await ExecutorHarness.open("shared");
    const { digest, bytes } = await packSource({
      "server.js": "let n = 0; setInterval(() => console.log(`line ${n++}`), 5);",
      "package.json": "{}",
    });
    harness.addBlob(digest, bytes);
    harness.startExecutor();
    const image = imageDigest({ source: digest });
    const { command: _none, ...rest } = makeSpec({
      command: "x",
      image: { kind: "source", image, source: digest },
    });
    harness.assign([{ instanceId: web, spec: rest, want: "run" }], { builds: [{ image, source: digest }] });
    await harness.until(web, ({ phase }) => phase === "ready");
    expect(harness.reports.at(-1)?.builds[0]).toMatchObject({
      state: "ready",
      defaultCommand: "node server.js",
    });
    await harness.killExecutor();
    harness.startExecutor();
    await harness.until(web, ({ phase }) => phase === "ready");
    const lines = await harness.lines<LogLine>("GET", `/v1/logs?instance=${web}`);
    const numbers = lines
      .filter(({ stream }) => stream === "stdout")
      .map(({ text }) => Number(text.slice(5)));
    expect(numbers.length).toBeGreaterThan(100);
    expect(numbers).toEqual(numbers.map((_, at) => at));
  },
);
