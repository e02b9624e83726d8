import type { FormationView, InstanceView, ReleaseView, RouteView, ServiceView } from "../../model/api.ts";
import type { HostView } from "../../model/host.ts";
import { formatBytes } from "../../base/units.ts";
import { printable, type Style } from "./style.ts";
import { cut, wrapText, type Column } from "./table.ts";
import { ago, count } from "./words.ts";

/** Tables and texts of what control tells, apart from how they get out: pure, so that tests can read them. */

export function instanceColumns(style: Style, nowMs: number): Column<InstanceView>[] {
  return [
    { title: "INSTANCE", cell: ({ id }) => id, widthMin: 16 },
    { title: "SERVICE", cell: ({ service, formation }) => `${service}.${formation}`, drop: 1 },
    { title: "RELEASE", cell: ({ release }) => String(release), align: "right" },
    { title: "STATE", cell: ({ phase }) => phaseText(phase, style) },
    { title: "TRAFFIC", cell: ({ inTraffic }) => (inTraffic ? "yes" : "no"), drop: 0 },
    { title: "RESTARTS", cell: ({ restarts }) => String(restarts), align: "right", drop: 2 },
    { title: "STARTED", cell: ({ startedAtMs }) => ago(startedAtMs, nowMs), drop: 3 },
    { title: "ADDRESS", cell: ({ address }) => address ?? "", drop: 5 },
    { title: "HOST", cell: ({ hostId }) => hostId, drop: 4 },
    { title: "WHY", cell: whyText, widthMin: 20, drop: 6 },
  ];
}

const WHY_LENGTH_MAX = 160;

/** The reason without the instance's own name; `gilliam status` has all of it. */
function whyText({ id, reason }: InstanceView): string {
  const words = printable(reason).replaceAll("\n", " ");
  return cut(words.startsWith(`${id} `) ? words.slice(id.length + 1) : words, WHY_LENGTH_MAX);
}

function phaseText(phase: InstanceView["phase"], style: Style): string {
  switch (phase) {
    case "ready":
      return style.green(phase);
    case "failed":
      return style.red(phase);
    case "pending":
    case "starting":
    case "draining":
      return style.yellow(phase);
    case "stopped":
      return style.dim(phase);
  }
}

export function releaseColumns(style: Style, nowMs: number): Column<ReleaseView>[] {
  return [
    {
      title: "RELEASE",
      cell: ({ number, current }) => (current ? style.bold(`${number} *`) : `${number}  `),
      align: "right",
    },
    { title: "MADE", cell: ({ createdAtMs }) => ago(createdAtMs, nowMs) },
    { title: "SERVICES", cell: ({ services }) => services.join(" "), widthMin: 10, drop: 1 },
    { title: "WHAT", cell: ({ summary }) => printable(summary), widthMin: 20 },
  ];
}

export function routeColumns(): Column<RouteView>[] {
  return [
    { title: "HOST", cell: ({ host }) => host },
    { title: "PATH", cell: ({ path }) => path },
    { title: "ONLY", cell: ({ match }) => match ?? "", widthMin: 8, drop: 1 },
    { title: "SERVICE", cell: ({ service }) => service },
    { title: "RELEASES", cell: ({ split }) => splitText(split), widthMin: 20 },
    { title: "DOES", cell: ({ actions }) => printable((actions ?? []).join("; ")), widthMin: 20, drop: 2 },
  ];
}

function splitText(split: RouteView["split"]): string {
  const total = split.reduce((sum, { weight }) => sum + weight, 0);
  if (split.length === 0) return "none";
  return split
    .map(({ release, weight, endpoints }) => {
      const share = total === 0 ? "" : ` ${percent(weight / total)}`;
      return `${release}${share} (${count(endpoints, "instance")})`;
    })
    .join(", ");
}

function percent(share: number): string {
  const value = share * 100;
  return `${Number.isInteger(value) ? value : value.toFixed(1)} %`;
}

export function hostColumns(style: Style, nowMs: number): Column<HostView>[] {
  return [
    { title: "HOST", cell: ({ hostId }) => hostId },
    {
      title: "STATE",
      cell: ({ state }) =>
        state === "up" ? style.green(state) : state === "silent" ? style.red(state) : style.yellow(state),
    },
    { title: "INSTANCES", cell: ({ instances }) => String(instances), align: "right" },
    { title: "DRIVER", cell: ({ driver }) => driver, drop: 2 },
    { title: "NETWORK", cell: ({ network }) => network, drop: 3 },
    { title: "CPU", cell: ({ capacity }) => String(capacity.cpu), align: "right", drop: 1 },
    { title: "MEMORY", cell: ({ capacity }) => formatBytes(capacity.memoryBytes), align: "right", drop: 1 },
    { title: "SEEN", cell: ({ lastSeenMs }) => ago(lastSeenMs, nowMs) },
    {
      title: "LABELS",
      cell: ({ labels }) =>
        Object.entries(labels)
          .map(([key, value]) => `${key}=${value}`)
          .join(" "),
      widthMin: 8,
      drop: 4,
    },
  ];
}

/** A formation in plain words: a line for each service, and below it what is wrong and what to do. */
export function formationText(view: FormationView, style: Style, width: number): string {
  const nameWidth = Math.max(0, ...view.services.map(({ name }) => name.length));
  const lines = [headline(view, style)];
  for (const service of view.services) {
    const { name, release, explanation, canary } = service;
    const [mark, word] = stateText(service, style);
    const share =
      canary === null
        ? ""
        : `, canary ${canary.release} at ${canary.weight} % (${canary.ready} of ${canary.wanted} ready)`;
    lines.push(`  ${mark} ${name.padEnd(nameWidth)}  ${word}  ${style.dim(`release ${release}`)}${share}`);
    if (explanation !== "" && view.state !== "down") {
      const indent = " ".repeat(nameWidth + 6);
      const room = Math.max(30, Math.min(width, 110));
      lines.push(indent + wrapText(printable(explanation), room - indent.length, indent));
    }
  }
  return lines.join("\n");
}

function headline({ name, state, settled, current, services, urls }: FormationView, style: Style): string {
  const title = style.bold(name);
  if (state === "down")
    return `${title} is down: nothing of it runs. Its releases and volumes stay; \`gilliam up\` runs it again.`;
  if (services.some((service) => service.state === "failing"))
    return `${title} ${style.red("needs attention")} (release ${current}).`;
  const at = urls.length === 0 ? "" : `  ${urls.map((url) => style.cyan(url)).join("  ")}`;
  return settled
    ? `${title} is up on release ${current}.${at}`
    : `${title} is ${style.yellow("changing")} (release ${current}).${at}`;
}

function stateText({ state, ready, wanted }: ServiceView, style: Style): [mark: string, words: string] {
  const amount = `${ready} of ${wanted} ready`;
  switch (state) {
    case "ready":
      return [style.green("●"), amount];
    case "changing":
    case "waiting":
      return [style.yellow("◐"), `${amount}, ${style.yellow(state)}`];
    case "failing":
      return [style.red("▲"), `${amount}, ${style.red("failing")}`];
    case "down":
      return [style.dim("○"), "down"];
  }
}

/** "web: release 3 gets 90 % (2 ready), release 4 gets 10 % (1 ready)". */
export function canaryText({ name, release, ready, canary }: ServiceView): string {
  if (canary === null) return `${name}: release ${release} gets every request (${ready} ready)`;
  const rest = 100 - canary.weight;
  return `${name}: release ${release} gets ${rest} % (${ready} ready), release ${canary.release} gets ${canary.weight} % (${canary.ready} of ${canary.wanted} ready)`;
}
