import type { GraphView } from "../../model/api.ts";
import type { Style } from "./style.ts";
import { widthOf } from "./style.ts";
import { rate } from "./words.ts";

type Edge = GraphView["edges"][number];
type Node = GraphView["nodes"][number];

/**
 * The declared graph as a tree, from what nobody calls downwards, each dependency once with what flows on it now;
 * a service shown further up is named with `↑` and not unfolded again.
 */
export function graphText({ nodes, edges }: GraphView, style: Style): string {
  const called = new Set(edges.map(({ to }) => to));
  const byAddress = new Map(nodes.map((node) => [node.address, node]));
  const outgoing = Map.groupBy(edges, ({ from }) => from);
  const roots = nodes.filter(({ address }) => !called.has(address)).toSorted(byKindThenName);
  const rows: { tree: string; flow: string }[] = [];
  const shown = new Set<string>();

  const walk = (address: string, branch: string, indent: string, edge: Edge | undefined): void => {
    const again = shown.has(address);
    shown.add(address);
    const label = nodeLabel(byAddress.get(address), address, style);
    rows.push({
      tree: `${branch}${label}${again ? style.dim(" ↑") : ""}`,
      flow: edge ? flowText(edge, style) : "",
    });
    if (again) return;
    const below = (outgoing.get(address) ?? []).toSorted((a, b) => (a.to < b.to ? -1 : 1));
    below.forEach((next, index) => {
      const last = index === below.length - 1;
      walk(
        next.to,
        `${indent}${style.dim(last ? "└─" : "├─")} `,
        `${indent}${last ? "   " : `${style.dim("│")}  `}`,
        next,
      );
    });
  };
  for (const { address } of roots) walk(address, "", "", undefined);
  // A ring that nothing outside calls (optional dependencies allow it) has no root: it begins anywhere.
  for (const { address } of nodes) if (!shown.has(address)) walk(address, "", "", undefined);

  const width = Math.max(0, ...rows.map(({ tree }) => widthOf(tree)));
  return rows
    .map(({ tree, flow }) => (flow === "" ? tree : `${tree}${" ".repeat(width - widthOf(tree))}  ${flow}`))
    .join("\n");
}

function byKindThenName(a: Node, b: Node): number {
  const order = { edge: 0, process: 1, auxiliary: 2, external: 3 };
  return order[a.kind] - order[b.kind] || (a.address < b.address ? -1 : 1);
}

function nodeLabel(node: Node | undefined, address: string, style: Style): string {
  if (node === undefined || node.kind === "external") return `${address} ${style.dim("(outside)")}`;
  if (node.kind === "edge") return style.bold(address);
  const amount = `${node.ready}/${node.wanted}`;
  const color = node.ready >= node.wanted ? style.green : node.ready === 0 ? style.red : style.yellow;
  return `${style.bold(address)} ${color(amount)}`;
}

/** ":7001 http  12/s  0.5 failing/s  3 ms". */
function flowText(
  { port, protocol, requestsPerSecond, failuresPerSecond, meanMs }: Edge,
  style: Style,
): string {
  const where = `${port > 0 ? `:${port} ` : ""}${protocol}`;
  const failing = failuresPerSecond > 0 ? `  ${style.red(`${rate(failuresPerSecond)} failing/s`)}` : "";
  const time = meanMs === null ? "" : `  ${meanMs >= 10 ? Math.round(meanMs) : meanMs.toFixed(1)} ms`;
  return `${style.dim(where.padEnd(10))}  ${rate(requestsPerSecond)}/s${failing}${time}`;
}

/** For Graphviz: `gilliam graph --dot | dot -Tsvg`. */
export function graphDot({ nodes, edges }: GraphView): string {
  const shape = { edge: "house", process: "box", auxiliary: "cylinder", external: "cloud" } as const;
  return [
    "digraph gilliam {",
    '  rankdir=LR; node [fontname="sans-serif"]; edge [fontname="sans-serif", fontsize=10];',
    ...nodes.map(
      ({ address, kind, ready, wanted }) =>
        `  ${quote(address)} [shape=${shape[kind] === "cloud" ? "ellipse, style=dashed" : shape[kind]}, label=${quote(kind === "process" || kind === "auxiliary" ? `${address}\n${ready}/${wanted}` : address)}];`,
    ),
    ...edges.map((edge) => `  ${quote(edge.from)} -> ${quote(edge.to)} [label=${quote(edgeLabel(edge))}];`),
    "}",
  ].join("\n");
}

/** For Markdown: a fenced block with the language `mermaid`. */
export function graphMermaid({ nodes, edges }: GraphView): string {
  const ids = new Map(nodes.map(({ address }, index) => [address, `n${index}`]));
  const shape = (node: Node): string => {
    const label = node.address.replaceAll('"', "'");
    if (node.kind === "auxiliary") return `[("${label}")]`;
    return node.kind === "edge" ? `(["${label}"])` : `["${label}"]`;
  };
  return [
    "flowchart LR",
    ...nodes.map((node) => `  ${ids.get(node.address)}${shape(node)}`),
    ...edges.map((edge) => `  ${ids.get(edge.from)} -->|"${edgeLabel(edge)}"| ${ids.get(edge.to)}`),
  ].join("\n");
}

function edgeLabel({ port, requestsPerSecond }: Edge): string {
  return `${port > 0 ? `:${port} ` : ""}${rate(requestsPerSecond)}/s`;
}

function quote(text: string): string {
  return `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`;
}
