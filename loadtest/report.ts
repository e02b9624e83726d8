import { FIGURES, goalText, median, shortfall } from "./figures.ts";
import type { Figure, Goal, Sample } from "./figures.ts";
import { medians } from "./measure.ts";
import type { PeerResult } from "./measure.ts";
import { invited } from "./scenarios.ts";
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
  /** What is shown of each proxy, the first with its spread. */
  readonly figures: readonly Figure[];
  readonly rows: readonly Row[];
  readonly verdicts: readonly Verdict[];
}

export interface Row {
  readonly peer: string;
  readonly version: string;
  /** Medians over the rounds; failures are added up. */
  readonly medians: Sample;
  /** Of the first figure, over the rounds. */
  readonly least: number;
  readonly most: number;
  /** Ours over this peer's, of the first figure; NaN when either is missing. */
  readonly ratio: number;
}

export interface Verdict {
  readonly goal: Goal;
  /** What the goal is about: a ratio, or the figure itself; NaN when not measured. */
  readonly value: number;
  /** `reached`, by how much it is missed, or why it was not measured. */
  readonly text: string;
}

/** Medians, how we stand to each peer, and what is reached. `absent`: why somebody did not take part. */
export function summarize(
  scenario: Scenario,
  results: readonly PeerResult[],
  absent: ReadonlyMap<string, string>,
): ScenarioReport {
  const { name, about, figures, goals } = scenario;
  const main = figures[0]!;
  const ours = results.find(({ peer }) => peer === "gilliam");
  const our = medians(ours?.samples ?? []);
  const rows = results.map(({ peer, version, samples }): Row => {
    const all = samples.flatMap((sample) => sample[main] ?? []);
    const ratio = (our[main] ?? Number.NaN) / median(all);
    const spread = { least: Math.min(...all), most: Math.max(...all) };
    return { peer, version, medians: medians(samples), ...spread, ratio };
  });
  const verdicts = goals.map((goal): Verdict => {
    const value = valueOf(goal, our, rows);
    if (!Number.isNaN(value)) return { goal, value, text: verdictText(goal, value) };
    const missing = ours === undefined ? "gilliam" : (goal.peer ?? "gilliam");
    return { goal, value, text: `not measured: ${missing}: ${absent.get(missing) ?? "not asked for"}` };
  });
  return { name, about, figures, rows, verdicts };
}

/** Everybody who is invited and not there, with the reason. */
export function absentees(
  scenario: Scenario,
  here: readonly { readonly name: string }[],
  reasons: ReadonlyMap<string, string>,
): Map<string, string> {
  const names = [...invited(scenario)].filter((name) => !here.some((peer) => peer.name === name));
  return new Map(names.map((name) => [name, reasons.get(name) ?? "not asked for"]));
}

function valueOf({ figure, peer }: Goal, our: Sample, rows: readonly Row[]): number {
  const own = our[figure] ?? Number.NaN;
  if (peer === undefined) return own;
  return own / (rows.find((row) => row.peer === peer)?.medians[figure] ?? Number.NaN);
}

function verdictText(goal: Goal, value: number): string {
  const missed = shortfall(goal, value);
  return missed === 0 ? "reached" : `missed by ${(missed * 100).toFixed(0)} %`;
}

const number = (figure: Figure, value: number | undefined) =>
  value === undefined || Number.isNaN(value) ? "" : value.toFixed(FIGURES[figure].digits);

function headings({ figures }: ScenarioReport): string[] {
  const [main, ...others] = figures.map((figure) => FIGURES[figure].heading);
  return ["proxy", "version", main!, "least–most", "ours ÷ it", ...others];
}

function cells({ figures }: ScenarioReport, row: Row): string[] {
  const [main, ...others] = figures as [Figure, ...Figure[]];
  return [
    row.peer,
    row.version,
    number(main, row.medians[main]),
    `${number(main, row.least)}–${number(main, row.most)}`,
    row.peer === "gilliam" || Number.isNaN(row.ratio) ? "" : row.ratio.toFixed(2),
    ...others.map((figure) => number(figure, row.medians[figure])),
  ];
}

const VERDICT_HEADINGS = ["scenario", "figure", "goal", "measured", "verdict"];

function verdictCells({ name }: ScenarioReport, { goal, value, text }: Verdict): string[] {
  const heading = FIGURES[goal.figure].heading;
  const digits = goal.peer === undefined ? FIGURES[goal.figure].digits : 2;
  return [
    name,
    goal.peer === undefined ? heading : `${heading} ÷ ${goal.peer}`,
    goalText(goal),
    Number.isNaN(value) ? "" : value.toFixed(digits),
    text,
  ];
}

function tables(report: Report): { title: string; headings: string[]; rows: string[][]; bars: string }[] {
  const verdicts = report.scenarios.flatMap((scenario) =>
    scenario.verdicts.map((verdict) => verdictCells(scenario, verdict)),
  );
  return [
    { title: "What is reached", headings: VERDICT_HEADINGS, rows: verdicts, bars: "" },
    ...report.scenarios.map((scenario) => ({
      title: `${scenario.name}: ${scenario.about}`,
      headings: headings(scenario),
      rows: scenario.rows.map((row) => cells(scenario, row)),
      bars: bars(scenario),
    })),
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
  for (const { title, headings: names, rows } of tables(report)) {
    lines.push("", `## ${title}`, "", `| ${names.join(" | ")} |`, `|${"---|".repeat(names.length)}`);
    for (const row of rows) lines.push(`| ${row.join(" | ")} |`);
  }
  return `${lines.join("\n")}\n`;
}

/** The report as one HTML page without scripts: tables, and bars of each scenario's first figure. */
export function toHtml(report: Report): string {
  const row = (tag: string, texts: readonly string[]) =>
    `<tr>${texts.map((text) => `<${tag}>${escape(text)}</${tag}>`).join("")}</tr>`;
  const sections = tables(report).map(
    ({ title, headings: names, rows, bars: drawing }) =>
      `<h2>${escape(title)}</h2>\n${drawing}\n<table>${row("th", names)}\n${rows.map((texts) => row("td", texts)).join("\n")}</table>`,
  );
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

function bars({ figures, rows }: ScenarioReport): string {
  const main = figures[0]!;
  const most = Math.max(...rows.map((row) => row.medians[main] ?? 0));
  const lines = rows.map((row, index) => {
    const value = row.medians[main] ?? 0;
    const width = Math.max(1, (value / most) * 600);
    const y = index * 26;
    const colour = row.peer === "gilliam" ? "#c2410c" : "#64748b";
    const label = `${number(main, value)} ${FIGURES[main].heading}`;
    return `<text x="165" y="${y + 17}" text-anchor="end">${escape(row.peer)}</text><rect x="175" y="${y + 3}" width="${width.toFixed(0)}" height="20" fill="${colour}"/><text x="${(182 + width).toFixed(0)}" y="${y + 17}">${escape(label)}</text>`;
  });
  return `<svg width="960" height="${rows.length * 26 + 6}" role="img" aria-label="${escape(FIGURES[main].heading)}" font-family="system-ui" font-size="13">${lines.join("")}</svg>`;
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
