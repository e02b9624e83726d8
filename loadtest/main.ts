import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, release, tmpdir, totalmem } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { median, measure, measureDirect, measureLatencies } from "./measure.ts";
import type { Bench } from "./measure.ts";
import { PEERS, installPeers } from "./peers.ts";
import type { Peer } from "./peers.ts";
import { chooseCores } from "./processes.ts";
import type { Cores } from "./processes.ts";
import { summarize, toHtml, toMarkdown } from "./report.ts";
import type { Report, ScenarioReport } from "./report.ts";
import { SCENARIOS } from "./scenarios.ts";
import type { Scenario } from "./scenarios.ts";
import { startGrpcUpstream, startHttp1Upstream } from "./upstream.ts";

const USAGE = `npm run loadtest -- peers [options]

Compares the edge with other proxies: CPU per request, throughput, latency at half load, memory.

  --scenario NAME   one of ${SCENARIOS.map(({ name }) => name).join(", ")}; may be given again (default: all)
  --peer NAME       one of ${PEERS.map(({ name }) => name).join(", ")}; may be given again (default: all installed)
  --rounds N        rounds for each peer (default 5)
  --seconds N       length of a round (default 5)
  --warm-up N       seconds of load before each round (default 3)
  --out DIR         where report.json, report.md and report.html go (default loadtest/results)
`;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      scenario: { type: "string", multiple: true },
      peer: { type: "string", multiple: true },
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "5" },
      "warm-up": { type: "string", default: "3" },
      out: { type: "string", default: path.join(import.meta.dirname, "results") },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];
  if (values.help || positionals[0] !== "peers" || !(rounds >= 1) || !(seconds >= 1)) {
    process.stdout.write(USAGE);
    process.exitCode = values.help ? 0 : 2;
    return;
  }
  const scenarios = SCENARIOS.filter(({ name }) => values.scenario?.includes(name) ?? true);
  const asked = PEERS.filter(({ name }) => values.peer?.includes(name) ?? true);
  if (asked.some(({ name }) => /http-proxy|httpxy|undici/.test(name))) installPeers();
  const peers = asked.filter((peer) => {
    if (peer.version() !== undefined) return true;
    process.stderr.write(`${peer.name} is not installed: left out\n`);
    return false;
  });
  const cores = chooseCores();
  const folder = mkdtempSync(path.join(tmpdir(), "gilliam-loadtest-"));
  const bench = { cores, folder, rounds, seconds, warmUpSeconds: Number(values["warm-up"]) };
  const reports: ScenarioReport[] = [];
  try {
    for (const scenario of scenarios) reports.push(await runScenario(scenario, peers, bench));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const command = `npm run loadtest -- ${process.argv.slice(2).join(" ")}`;
  const report = {
    command,
    takenAt: new Date().toISOString(),
    machine: machine(cores),
    rounds,
    seconds,
    scenarios: reports,
  };
  save(report, values.out);
}

/** One scenario with every peer that can take part in it. */
async function runScenario(
  scenario: Scenario,
  peers: readonly Peer[],
  around: Omit<Bench, "upstreamPorts">,
): Promise<ScenarioReport> {
  const able = peers.filter(
    ({ speaks, speaksUpstream }) =>
      speaks.includes(scenario.downstream) && speaksUpstream.includes(scenario.upstream),
  );
  const core = around.cores.upstream;
  const upstream =
    scenario.upstream === "h2c"
      ? await startGrpcUpstream(core)
      : await startHttp1Upstream(core, path.join(around.folder, `upstream-${scenario.name}`));
  try {
    const bench: Bench = { ...around, upstreamPorts: upstream.ports };
    const results = await measure(scenario, able, bench);
    if (!scenario.latency) return summarize(scenario, results, undefined);
    await measureLatencies(scenario, able, results, "nginx", bench);
    const nginx = results.find(({ peer }) => peer === "nginx");
    const rate = nginx === undefined ? 5_000 : median(nginx.rounds.map(({ perSecond }) => perSecond)) / 2;
    return summarize(scenario, results, await measureDirect(bench, rate));
  } finally {
    await upstream.stop();
  }
}

function save(report: Report, folder: string): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, "report.json"), `${JSON.stringify(report, undefined, 2)}\n`);
  writeFileSync(path.join(folder, "report.html"), toHtml(report));
  const markdown = toMarkdown(report);
  writeFileSync(path.join(folder, "report.md"), markdown);
  process.stdout.write(markdown);
  process.stderr.write(`\nsaved in ${folder}\n`);
}

function machine(cores: Cores): Record<string, string> {
  const [load] = readFileSync("/proc/loadavg", "latin1").split(" ");
  return {
    machine: `${cpus()[0]?.model ?? "unknown"}, ${cpus().length} cores, ${(totalmem() / 1e9).toFixed(0)} GB`,
    cores: `proxy ${cores.proxy}, load ${cores.load}, upstream ${cores.upstream}`,
    system: `Linux ${release()}, Node ${process.version}`,
    "load average at the end": load ?? "",
  };
}

await main();
