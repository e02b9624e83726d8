import { median } from "./measure.ts";
import type { PeerResult } from "./measure.ts";
import type { Latencies } from "./generators.ts";
import type { Scenario } from "./scenarios.ts";

export interface Report {
  readonly command: string;
  readonly takenAt: string;
  readonly machine: Readonly<Record<string, string>>;
  readonly rounds: number;
  readonly seconds: number;
  readonly scenarios: readonly ScenarioReport[];
}

export interface ScenarioReport {
  readonly name: string;
  readonly about: string;
  /** The upstream without a proxy, at nginx's rate. */
  readonly direct: Latencies | undefined;
  readonly rows: readonly Row[];
}

export interface Row {
  readonly peer: string;
  readonly version: string;
  /** Medians over the rounds. */
  readonly cpuMicrosecondsPerRequest: number;
  readonly cpuLeast: number;
  readonly cpuMost: number;
  readonly perSecond: number;
  readonly residentMegabytes: number;
  readonly failures: number;
  /** Our CPU per request over this peer's. */
  readonly ratio: number;
  readonly target: number | undefined;
  readonly latencies: Latencies | undefined;
}

/** Medians, and how we stand to each peer. */
export function summarize(
  scenario: Scenario,
  results: readonly PeerResult[],
  direct: Latencies | undefined,
): ScenarioReport {
  const cpu = (result: PeerResult) => result.rounds.map((round) => round.cpuMicrosecondsPerRequest);
  const ours = results.find(({ peer }) => peer === "gilliam");
  const ourCpu = ours === undefined ? Number.NaN : median(cpu(ours));
  const rows = results.map((result): Row => {
    const all = cpu(result);
    return {
      peer: result.peer,
      version: result.version,
      cpuMicrosecondsPerRequest: median(all),
      cpuLeast: Math.min(...all),
      cpuMost: Math.max(...all),
      perSecond: median(result.rounds.map(({ perSecond }) => perSecond)),
      residentMegabytes: median(result.rounds.map(({ residentBytes }) => residentBytes)) / 1e6,
      failures: result.rounds.reduce((sum, { failures }) => sum + failures, 0),
      ratio: ourCpu / median(all),
      target: scenario.targets[result.peer],
      latencies: result.latencies,
    };
  });
  return { name: scenario.name, about: scenario.about, direct, rows };
}

const HEADINGS = [
  "proxy",
  "version",
  "CPU µs/request",
  "least–most",
  "requests/s",
  "p50 ms",
  "p99 ms",
  "p99.9 ms",
  "at /s",
  "memory MB",
  "failures",
  "ours ÷ it",
  "target",
  "reached",
];

function cells(row: Row): string[] {
  const { latencies, target, ratio } = row;
  const ms = (value: number | undefined) => (value === undefined ? "" : value.toFixed(2));
  return [
    row.peer,
    row.version,
    row.cpuMicrosecondsPerRequest.toFixed(1),
    `${row.cpuLeast.toFixed(1)}–${row.cpuMost.toFixed(1)}`,
    String(Math.round(row.perSecond)),
    ms(latencies?.msP50),
    ms(latencies?.msP99),
    ms(latencies?.msP999),
    latencies === undefined ? "" : String(Math.round(latencies.perSecond)),
    row.residentMegabytes.toFixed(0),
    String(row.failures + (latencies?.failures ?? 0)),
    row.peer === "gilliam" || Number.isNaN(ratio) ? "" : ratio.toFixed(2),
    target === undefined ? "" : `≤ ${target}`,
    target === undefined || Number.isNaN(ratio)
      ? ""
      : ratio <= target
        ? "yes"
        : `no, by ${((ratio / target - 1) * 100).toFixed(0)} %`,
  ];
}

/** The report as Markdown. */
export function toMarkdown(report: Report): string {
  const lines = [
    "# Load test",
    "",
    `\`${report.command}\`, ${report.takenAt}; medians of ${report.rounds} rounds of ${report.seconds} s, interleaved.`,
    "",
    ...Object.entries(report.machine).map(([key, value]) => `- ${key}: ${value}`),
  ];
  for (const { name, about, direct, rows } of report.scenarios) {
    lines.push(
      "",
      `## ${name}: ${about}`,
      "",
      `| ${HEADINGS.join(" | ")} |`,
      `|${"---|".repeat(HEADINGS.length)}`,
    );
    for (const row of rows) lines.push(`| ${cells(row).join(" | ")} |`);
    if (direct !== undefined) {
      const { msP50, msP99, msP999, perSecond } = direct;
      lines.push(
        "",
        `Without a proxy, at ${Math.round(perSecond)}/s: p50 ${msP50.toFixed(2)} ms, p99 ${msP99.toFixed(2)} ms, p99.9 ${msP999.toFixed(2)} ms.`,
      );
    }
  }
  return `${lines.join("\n")}\n`;
}

/** The report as one HTML page without scripts: tables, and bars of CPU per request. */
export function toHtml(report: Report): string {
  const sections = report.scenarios.map(({ name, about, rows }) => {
    const head = HEADINGS.map((heading) => `<th>${escape(heading)}</th>`).join("");
    const body = rows
      .map(
        (row) =>
          `<tr>${cells(row)
            .map((cell) => `<td>${escape(cell)}</td>`)
            .join("")}</tr>`,
      )
      .join("\n");
    return `<h2>${escape(name)}: ${escape(about)}</h2>\n${bars(rows)}\n<table><tr>${head}</tr>\n${body}</table>`;
  });
  const machine = Object.entries(report.machine).map(
    ([key, value]) => `<li>${escape(`${key}: ${value}`)}</li>`,
  );
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Load test</title>
<style>body{font:15px system-ui;margin:2rem;max-width:80rem}table{border-collapse:collapse}td,th{padding:.2rem .6rem;border-bottom:1px solid #ccc;text-align:right}td:first-child,th:first-child{text-align:left}</style>
<h1>Load test</h1><p><code>${escape(report.command)}</code>, ${escape(report.takenAt)}; medians of ${report.rounds} rounds of ${report.seconds} s, interleaved.</p>
<ul>${machine.join("")}</ul>
${sections.join("\n")}
</html>
`;
}

function bars(rows: readonly Row[]): string {
  const most = Math.max(...rows.map((row) => row.cpuMicrosecondsPerRequest));
  const lines = rows.map((row, index) => {
    const width = Math.max(1, (row.cpuMicrosecondsPerRequest / most) * 600);
    const y = index * 26;
    const colour = row.peer === "gilliam" ? "#c2410c" : "#64748b";
    const label = `${row.cpuMicrosecondsPerRequest.toFixed(1)} µs`;
    return `<text x="165" y="${y + 17}" text-anchor="end">${escape(row.peer)}</text><rect x="175" y="${y + 3}" width="${width.toFixed(0)}" height="20" fill="${colour}"/><text x="${(182 + width).toFixed(0)}" y="${y + 17}">${label}</text>`;
  });
  return `<svg width="880" height="${rows.length * 26 + 6}" role="img" aria-label="CPU per request" font-family="system-ui" font-size="13">${lines.join("")}</svg>`;
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
