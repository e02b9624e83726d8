import fs from "node:fs";
import { dirname, join } from "node:path";
import { systemClock } from "../base/clock.ts";
import { readDurable, writeDurable } from "../base/durable-file.ts";
import { systemRandom } from "../base/random.ts";
import { readSettings } from "../base/settings.ts";
import { writeCompileCacheSoon } from "../proxy/agent/compile-cache.ts";
import { bindUnix, removeStaleSocket } from "../proxy/agent/handles.ts";
import { Orphans } from "../proxy/agent/orphans.ts";
import * as run from "../proxy/agent/run-keeper.ts";
import { http2Settings } from "../proxy/http2/limits.ts";
import { limitSettings } from "../proxy/limits.ts";
import type { PortsRequest } from "./api.ts";
import { withoutCapabilities } from "./capabilities.ts";
import { InstancePorts, type InstanceRecord } from "./instance-ports.ts";
import { openInNamespace, openOnLoopback } from "./open-ports.ts";
import { sidecarSettings } from "./settings.ts";

/** The sidecar: a keeper that owns the local ports of every instance of this host, and one worker that serves them. */
async function main(): Promise<void> {
  if (process.argv.includes("--warm-cache")) {
    await import("./namespace-helper.ts"); // Everything else is loaded by now: Node writes its cache and ends.
    return;
  }
  const settings = readSettings("sidecar", sidecarSettings, process.env);
  const http2Limits = readSettings("sidecar", http2Settings, process.env);
  const limits = readSettings("sidecar", limitSettings, process.env);
  const stateDir = settings.stateDir === "" ? run.defaultStateDir(process.env) : settings.stateDir;
  const around = run.prepare("sidecar", stateDir, systemClock, systemRandom);
  const { clock, folder, log } = around;
  const token = run.readHostToken(settings, stateDir);
  const orphans = new Orphans(folder, clock, log);
  await orphans.look();
  const admin = await run.bindPatiently(settings.admin, around);
  const socketPath = settings.socket === "" ? join(stateDir, "run/sidecar.sock") : settings.socket;
  fs.mkdirSync(dirname(socketPath), { recursive: true });
  removeStaleSocket(socketPath);
  const api = bindUnix(socketPath);
  const environment = pick(process.env, ["PATH", "NODE_COMPILE_CACHE"]);
  const keeper = run.createKeeper(
    {
      part: "sidecar",
      settings,
      http2Limits,
      limits,
      workerEntry: join(import.meta.dirname, "worker.ts"),
      environment: pick(process.env, ["PATH", "HOME", "NODE_EXTRA_CA_CERTS"]),
      prefix: withoutCapabilities(),
      onRequest: (body) => obey(ports, body as PortsRequest),
    },
    around,
    token,
    admin.address,
  );
  const statePath = join(folder, "instances.json");
  const ports = new InstancePorts({
    openListener: (plan, handle) => keeper.open(plan, handle),
    closeListener: (id) => keeper.close(id),
    openInNamespace: (path, wanted) =>
      openInNamespace(path, wanted, { clock, environment, timeoutMs: settings.namespaceTimeout }),
    openOnLoopback,
    inherit: (id) => orphans.inherit(id)?.handles[0],
    namespaceIdentity,
    save: (records) => writeDurable(statePath, records),
    clock,
    log,
    instancesMax: settings.instancesMax,
    parallelMax: settings.namespaceParallel,
  });
  run.obeySignals(keeper, log, (code) => process.exit(code));
  keeper.start(orphans.all);
  try {
    const restored = ports.restore(loadRecords(statePath, log));
    await Promise.all([
      run.openListener(keeper, { kind: "admin", id: "admin" }, admin, log),
      keeper.open({ kind: "api", id: "api" }, api),
      restored,
    ]);
    orphans.forget();
  } catch (error) {
    await keeper.stop(0);
    throw error;
  }
  writeCompileCacheSoon(clock);
  log.info({ pid: process.pid, socket: socketPath }, "the sidecar is ready");
}

async function obey(ports: InstancePorts, request: PortsRequest): Promise<unknown> {
  switch (request.verb) {
    case "put":
      return ports.put(request.request);
    case "delete":
      return { closed: await ports.delete(request.instanceId) };
    case "list":
      return ports.list();
  }
}

/** What was open before; nothing when nothing is known, which is said. */
function loadRecords(path: string, log: run.Surroundings["log"]): InstanceRecord[] {
  const read = readDurable(path);
  if (read.kind === "read") {
    if (read.damaged) log.warn({ path }, "the list of open ports is damaged; using the one before it");
    return read.value as InstanceRecord[];
  }
  if (read.kind === "damaged") log.error({ path, reason: read.reason }, "the list of open ports is damaged");
  return [];
}

function namespaceIdentity(path: string): string | undefined {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? undefined : `${stat.dev}:${stat.ino}`;
}

function pick(environment: NodeJS.ProcessEnv, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = environment[name];
      return value === undefined ? [] : [[name, value]];
    }),
  );
}

main().catch((error: unknown) => {
  const { text, code } = run.startFailure(error);
  process.stderr.write(text);
  process.exit(code);
});
