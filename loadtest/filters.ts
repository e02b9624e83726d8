import { fork } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { MeshConfig } from "../model/mesh.ts";
import { createEngine } from "../proxy/engine.ts";
import { FilterHost } from "../proxy/filters/host.ts";
import { usesIn } from "../proxy/filters/uses.ts";
import { median } from "./figures.ts";
import { wrk } from "./generators.ts";
import { chooseCores, cpuMicroseconds } from "./processes.ts";
import { startHttp1Upstream } from "./upstream.ts";

/**
 * `node loadtest/filters.ts [rounds] [seconds]`: what filters cost. One edge, one host for each kind of filter, rounds
 * interleaved; processor time of the proxy and of its filters' processes per request, and the difference to no filter.
 */
const KINDS = {
  none: "",
  "head, request": `onRequest(request) { if (request.headers.get("x-key") !== null) request.headers.set("x-user", "u"); }`,
  "head, request and response": `
    onRequest(request, context) { context.state.set("q", request.path); },
    onResponse(response) { response.headers.set("x-frame-options", "DENY"); }`,
  "head, async": `async onRequest(request) { if (request.headers.get("x-key") !== null) request.headers.set("x-user", "u"); }`,
  "response body": `
    body: { response: true },
    async onResponse(response) {
      return new Response((await response.text()).replaceAll("y", "z"), { status: response.status, headers: response.headers });
    }`,
} as const;
type Kind = keyof typeof KINDS;
const kinds = Object.keys(KINDS) as Kind[];
const hostOf = (kind: Kind) => `${kind.replaceAll(/\W+/g, "-")}.test`;

if (process.send === undefined) await main();
else await serve(process.argv.slice(2).map(Number));

/** The proxy alone, in a process of its own. */
async function serve(ports: readonly number[]): Promise<void> {
  const sources = new Map<string, string>();
  const digestOf = (kind: Kind) => {
    const source = `module.exports = { default: { ${KINDS[kind]} } };`;
    const digest = `sha256:${createHash("sha256").update(source).digest("hex")}`;
    sources.set(digest, source);
    return digest;
  };
  const engine = createEngine({
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    name: "edge",
    onAccess: () => undefined,
  });
  const filters = new FilterHost({
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    load: (digest) => Promise.resolve(sources.get(digest) ?? ""),
  });
  engine.useFilters(filters);
  const config = MeshConfig.parse({
    epoch: 1,
    clusters: [
      {
        name: "web.load",
        protocol: "http",
        endpoints: ports.map((port, index) => ({ id: `i${index}`, host: "127.0.0.1", port, release: 1 })),
      },
    ],
    edges: [],
    routes: kinds.map((kind) => ({
      id: hostOf(kind),
      host: hostOf(kind),
      path: "/",
      cluster: "web.load",
      ...(kind === "none"
        ? {}
        : { actions: { filters: [{ file: kind, owner: "web.load", digest: digestOf(kind) }] } }),
    })),
  });
  const problems = await filters.prepare(usesIn(config));
  const outcome = engine.apply(config);
  if (problems.length > 0 || !outcome.ok) throw new Error("the configuration does not apply");
  const { address } = await engine.listen({ kind: "edge", id: "public" }, { host: "127.0.0.1", port: 0 });
  process.send?.({ port: address.port });
}

async function main(): Promise<void> {
  const [rounds = 5, seconds = 3] = process.argv.slice(2).map(Number);
  const cores = chooseCores();
  const folder = mkdtempSync(path.join(tmpdir(), "gilliam-filters-"));
  const upstream = await startHttp1Upstream(cores.upstream, folder);
  const proxy = fork(import.meta.filename, upstream.ports.map(String), { execPath: process.execPath });
  try {
    const port = await new Promise<number>((resolve, reject) => {
      proxy.once("message", (message) => resolve((message as { port: number }).port));
      proxy.once("exit", () => reject(new Error("the proxy ended")));
    });
    const samples = new Map<Kind, number[]>(kinds.map((kind) => [kind, []]));
    for (let round = 0; round <= rounds; round++) {
      for (const kind of kinds) {
        const before = cpuMicroseconds(proxy.pid ?? 0);
        const script = `wrk.headers["Host"] = "${hostOf(kind)}"; wrk.headers["x-key"] = "k"; wrk.headers["accept"] = "*/*"; wrk.headers["user-agent"] = "wrk"`;
        const load = await wrk(cores.load, `http://127.0.0.1:${port}/`, 64, seconds, script);
        if (load.failures > 0) throw new Error(`${kind}: ${load.failures} requests failed`);
        // The first round warms up.
        if (round > 0) samples.get(kind)?.push((cpuMicroseconds(proxy.pid ?? 0) - before) / load.requests);
      }
    }
    const base = median(samples.get("none") ?? []);
    process.stdout.write("| filter | µs per request | more than none |\n| --- | --- | --- |\n");
    for (const kind of kinds) {
      const cost = median(samples.get(kind) ?? []);
      process.stdout.write(`| ${kind} | ${cost.toFixed(1)} | ${(cost - base).toFixed(1)} |\n`);
    }
  } finally {
    proxy.kill("SIGKILL");
    await upstream.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}
