import { expect, test } from "vitest";
import { GRAPH } from "../testing/samples.ts";
import { graphDot, graphMermaid, graphText } from "./graph-text.ts";
import { Style } from "./style.ts";

test("the graph is a tree, with what flows beside each dependency", () => {
  expect(graphText(GRAPH, new Style(false))).toBe(
    [
      "edge",
      "└─ web.shop 2/2                          http        12/s  8.3 ms",
      "   ├─ api.shop 1/2                       :7001 http  24/s  0.5 failing/s  3.1 ms",
      "   │  ├─ db.shop 1/1                     :5432 tcp   48/s  41 ms",
      "   │  └─ mail.example.com:25 (outside)   :2525 tcp   0/s",
      "   └─ db.shop 1/1 ↑                      :5432 tcp   0.4/s",
    ]
      .join("\n")
      .replaceAll("   :", "  :")
      .replaceAll("                          http", "                         http"),
  );
});

test("a ring has no beginning and is shown all the same, once", () => {
  const ring = {
    nodes: GRAPH.nodes.slice(1, 3),
    edges: [GRAPH.edges[1]!, { ...GRAPH.edges[1]!, from: "api.shop", to: "web.shop" }],
  };
  const lines = graphText(ring, new Style(false)).split("\n");
  expect(lines).toHaveLength(3);
  expect(lines[2]).toContain("web.shop 2/2 ↑");
});

test("for Graphviz", () => {
  const dot = graphDot(GRAPH);
  expect(dot).toContain('"web.shop" [shape=box, label="web.shop\\n2/2"];');
  expect(dot).toContain('"web.shop" -> "api.shop" [label=":7001 24/s"];');
  expect(dot).toContain('"db.shop" [shape=cylinder');
});

test("for Mermaid", () => {
  const mermaid = graphMermaid(GRAPH);
  expect(mermaid).toContain('n1["web.shop"]');
  expect(mermaid).toContain('n1 -->|":7001 24/s"| n2');
});
