import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, release, tmpdir, totalmem } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { measure } from "./measure.ts";
import type { Bench } from "./measure.ts";
import { PEERS, installPeers, isInstalled, makeCertificate } from "./peers.ts";
import type { Peer } from "./peers.ts";
import { chooseCores, preferOurs } from "./processes.ts";
import type { Cores } from "./processes.ts";
import { absentees, summarize, toHtml, toMarkdown } from "./report.ts";
import type { Report, ScenarioReport } from "./report.ts";
import { SCENARIOS, invited } from "./scenarios.ts";
import type { Scenario } from "./scenarios.ts";
import { measureSwaps, swapsToMarkdown } from "./swap.ts";
import { startEchoUpstream, startGrpcUpstream, startHttp1Upstream } from "./upstream.ts";

const USAGE = `npm run loadtest -- peers [options]

Compares edge and sidecar with other proxies: CPU per request, throughput, latency at half load, memory.
A short look: --rounds 1 --seconds 1 --warm-up 0.

npm run loadtest -- swap [--seconds N] [--prefer]

Replaces a configuration of 1,000 routes and 5,000 endpoints under load: errors, and how long nothing else ran.

  --scenario NAME   one of ${SCENARIOS.map(({ name }) => name).join(", ")}; may be given again (default: all)
  --peer NAME       one of ${PEERS.map(({ name }) => name).join(", ")}; may be given again (default: all installed)
  --rounds N        rounds for each peer (default 5)
  --seconds N       length of a round (default 5)
  --warm-up N       seconds of load before each round (default 3)
  --prefer          as root, take a larger share of a machine that others use, too
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
      prefer: { type: "boolean", default: false },
      out: { type: "string", default: path.join(import.meta.dirname, "results") },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];
  if (positionals[0] === "swap" && !values.help && seconds >= 1) return swapUnderLoad(seconds, values.prefer);
  if (values.help || positionals[0] !== "peers" || !(rounds >= 1) || !(seconds >= 1)) {
    process.stdout.write(USAGE);
    process.exitCode = values.help ? 0 : 2;
    return;
  }
  const scenarios = SCENARIOS.filter(({ name }) => values.scenario?.includes(name) ?? true);
  needGenerators();
  if (values.prefer) preferOurs();
  const asked = PEERS.filter(({ name }) => values.peer?.includes(name) ?? true);
  if (asked.some(({ name }) => /http-proxy|httpxy|undici/.test(name))) installPeers();
  const folder = mkdtempSync(path.join(tmpdir(), "gilliam-loadtest-"));
  const bench = {
    cores: chooseCores(),
    folder,
    certificate: makeCertificate(folder),
    rounds,
    seconds,
    warmUpSeconds: Number(values["warm-up"]),
  };
  const reports: ScenarioReport[] = [];
  try {
    for (const scenario of scenarios) reports.push(await runScenario(scenario, asked, bench));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const command = `npm run loadtest -- ${process.argv.slice(2).join(" ")}`;
  const takenAt = new Date().toISOString();
  save({ command, takenAt, machine: machine(bench.cores), rounds, seconds, scenarios: reports }, values.out);
}

async function swapUnderLoad(seconds: number, prefer: boolean): Promise<void> {
  needGenerators();
  if (prefer) preferOurs();
  const cores = chooseCores();
  const folder = mkdtempSync(path.join(tmpdir(), "gilliam-loadtest-"));
  try {
    const result = await measureSwaps(cores, folder, seconds);
    const about = Object.entries(machine(cores)).map(([key, value]) => `- ${key}: ${value}`);
    process.stdout.write(`${about.join("\n")}\n\n${swapsToMarkdown(result)}`);
    if (result.failures > 0) process.exitCode = 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @throws when a program is missing without which nothing can be measured. */
function needGenerators(): void {
  const needed = { wrk: "wrk", h2load: "nghttp2-client", nghttpd: "nghttp2-server", nginx: "nginx-light" };
  const missing = Object.entries({ ...needed, openssl: "openssl", taskset: "util-linux" })
    .filter(([program]) => !isInstalled(program))
    .map(([program, debian]) => `${program} (Debian: ${debian})`);
  if (missing.length > 0) throw new Error(`Cannot measure: not installed are ${missing.join(", ")}`);
}

/** One scenario with everybody who is invited and can take part in it. */
async function runScenario(
  scenario: Scenario,
  asked: readonly Peer[],
  around: Omit<Bench, "upstreamPorts">,
): Promise<ScenarioReport> {
  const reasons = new Map<string, string>();
  const peers = asked.filter((peer) => {
    if (!invited(scenario).has(peer.name)) return false;
    const reason =
      peer.cannot(scenario) ?? (peer.version() === undefined ? "it is not installed" : undefined);
    if (reason === undefined) return true;
    process.stderr.write(`${scenario.name}: without ${peer.name}: ${reason}\n`);
    reasons.set(peer.name, reason);
    return false;
  });
  const upstream = await startUpstream(scenario, around);
  try {
    const results = await measure(scenario, peers, { ...around, upstreamPorts: upstream.ports });
    return summarize(scenario, results, absentees(scenario, peers, reasons));
  } finally {
    await upstream.stop();
  }
}

function startUpstream({ name, back, upgrades }: Scenario, { cores, folder }: Omit<Bench, "upstreamPorts">) {
  if (back === "h2c") return startGrpcUpstream(cores.upstream);
  if (upgrades === true) return startEchoUpstream(cores.upstream);
  return startHttp1Upstream(cores.upstream, path.join(folder, `upstream-${name}`));
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
