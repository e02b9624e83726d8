import { join } from "node:path";
import { systemClock } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import { readSettings } from "../base/settings.ts";
import { writeCompileCacheSoon } from "./agent/compile-cache.ts";
import { Orphans } from "./agent/orphans.ts";
import * as run from "./agent/run-keeper.ts";
import { edgeSettings } from "./agent/settings.ts";
import { edgeTlsSettings, ticketSecrets, tlsWorkerSettings } from "./agent/tls-settings.ts";
import { http2Settings } from "./http2/limits.ts";
import { limitSettings } from "./limits.ts";

/** The edge: a keeper that owns the public and the admin socket, and the workers that serve them. */
async function main(): Promise<void> {
  if (process.argv.includes("--warm-cache")) return; // Everything is loaded by now: Node writes its cache and ends.
  const settings = readSettings("edge", { ...edgeSettings, ...edgeTlsSettings }, process.env);
  const http2Limits = readSettings("edge", http2Settings, process.env);
  const limits = readSettings("edge", limitSettings, process.env);
  const stateDir = settings.stateDir === "" ? run.defaultStateDir(process.env) : settings.stateDir;
  const around = run.prepare("edge", stateDir, systemClock, systemRandom);
  const token = run.readHostToken(settings, stateDir);
  const orphans = new Orphans(around.folder, around.clock, around.log);
  const { workers } = settings;
  const listen = await run.inheritOrBind("public", settings.listen, around, orphans, workers);
  const secure =
    settings.tlsListen === null
      ? undefined
      : await run.inheritOrBind("secure", settings.tlsListen, around, orphans, workers);
  const admin = await run.bindPatiently(settings.admin, around);
  const tls = tlsWorkerSettings(settings, around.folder, secure?.address.port);
  const answer =
    tls === undefined || tls.sessionMs === 0 ? undefined : await ticketSecrets(tls.sessionMs, systemClock);
  const keeper = run.createKeeper(
    {
      part: "edge",
      settings,
      http2Limits,
      limits,
      workerEntry: join(import.meta.dirname, "agent/edge-worker.ts"),
      environment: { PATH: process.env["PATH"] ?? "", HOME: process.env["HOME"] ?? "" },
      tls,
      proxyProtocolFrom: settings.proxyProtocol === "required" ? settings.proxyProtocolFrom : undefined,
      ...(answer === undefined ? {} : { onRequest: answer }),
    },
    around,
    token,
    admin.address,
  );
  run.obeySignals(keeper, around.log, (code) => process.exit(code));
  orphans.forget();
  keeper.start(orphans.all);
  try {
    await Promise.all([
      run.openListener(keeper, { kind: "admin", id: "admin" }, admin, around.log),
      run.openListener(keeper, { kind: "edge", id: "public" }, listen, around.log),
      ...(secure === undefined
        ? []
        : [run.openListener(keeper, { kind: "edge", id: "secure", secure: true }, secure, around.log)]),
    ]);
  } catch (error) {
    await keeper.stop(0);
    throw error;
  }
  writeCompileCacheSoon(systemClock);
  around.log.info({ pid: process.pid }, "the edge is ready");
}

main().catch((error: unknown) => {
  const { text, code } = run.startFailure(error);
  process.stderr.write(text);
  process.exit(code);
});
