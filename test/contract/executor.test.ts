import { expect, test } from "vitest";
import type { LogLine } from "../../model/api.ts";
import { ExecutorHarness, WEB_COMMAND, isRunning, makeSpec } from "./executor-harness.ts";

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
