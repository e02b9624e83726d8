import { expect, test } from "vitest";
import { formation, HOSTS, instance, NOW_MS, plan, RELEASES, ROUTES, service } from "../testing/samples.ts";
import { planText } from "./plan-text.ts";
import { cellsOf, printable, Style, widthOf } from "./style.ts";
import { cut, renderTable, wrapText } from "./table.ts";
import {
  canaryText,
  formationText,
  hostColumns,
  instanceColumns,
  releaseColumns,
  routeColumns,
} from "./views.ts";
import { ago, count, list, rate } from "./words.ts";

const plain = new Style(false);
const text = (...lines: string[]) => lines.join("\n");

test("instances, wide", () => {
  const rows = [
    instance(),
    instance({
      id: "shop-web-r5-abcde",
      release: 5,
      phase: "failed",
      inTraffic: false,
      restarts: 3,
      startedAtMs: null,
      address: null,
      reason: "exited with code 1",
    }),
  ];
  expect(renderTable(rows, instanceColumns(plain, NOW_MS), { width: Infinity })).toBe(
    text(
      "INSTANCE           SERVICE   RELEASE  STATE   TRAFFIC  RESTARTS  STARTED   ADDRESS         HOST  WHY",
      "shop-web-r4-k3x9q  web.shop        4  ready   yes             0  1m5s ago  10.64.0.2:8080  here",
      "shop-web-r5-abcde  web.shop        5  failed  no              3                            here  exited with code 1",
    ),
  );
});

test.for([40, 50, 60, 80, 100, 140])("instances fit into %i columns", (width) => {
  const rows = [
    instance(),
    instance({ phase: "starting", reason: "runs for 3s and does not answer GET /healthz on port 8080 yet" }),
  ];
  const table = renderTable(rows, instanceColumns(new Style(true), NOW_MS), { width });
  for (const line of table.split("\n")) expect(widthOf(line)).toBeLessThanOrEqual(width);
  expect(table).toContain("INSTANCE");
});

test("what does not fit is cut with an ellipsis, and counted by what is seen", () => {
  expect(cut("abcdef", 4)).toBe("abc…");
  expect(cut("\u001b[31mabcd\u001b[39m", 4)).toBe("\u001b[31mabcd\u001b[39m");
  expect(cellsOf("é👨‍👩‍👧x")).toHaveLength(3);
  expect(cut("", 0)).toBe("");
});

test("a table of nothing is nothing, and an empty column is left out", () => {
  const columns = [
    { title: "A", cell: (row: string) => row },
    { title: "B", cell: () => "" },
  ];
  expect(renderTable([], columns, { width: 80 })).toBe("");
  expect(renderTable(["x"], columns, { width: 80 })).toBe("A\nx");
});

test("releases, hosts and routes", () => {
  expect(renderTable(RELEASES, releaseColumns(plain, NOW_MS), { width: Infinity })).toBe(
    text(
      "RELEASE  MADE    SERVICES  WHAT",
      "    3    1d ago  db web    web: source",
      "    4 *  2m ago  db web    web: LOG_LEVEL",
      "    5    1s ago  db web    web: source",
    ),
  );
  expect(renderTable(HOSTS, hostColumns(plain, NOW_MS), { width: Infinity })).toBe(
    text(
      "HOST  STATE  INSTANCES  DRIVER   NETWORK    CPU  MEMORY  SEEN    LABELS",
      "here  up             3  process  namespace    2   4 GiB  1s ago  zone=a",
    ),
  );
  expect(renderTable(ROUTES, routeColumns(), { width: Infinity })).toBe(
    text(
      "HOST            PATH    SERVICE     RELEASES",
      "shop.localhost  /       web.shop    4 90 % (2 instances), 5 10 % (1 instance)",
      "shop.localhost  /admin  admin.shop  none",
    ),
  );
});

test("a formation that is well is one line and its services", () => {
  expect(formationText(formation(), plain, 100)).toBe(
    text(
      "shop is up on release 4.  http://shop.localhost:8080",
      "  ● web  2 of 2 ready  release 4",
      "  ● db   1 of 1 ready  release 1",
    ),
  );
});

test("a formation with trouble says what and why, in lines that fit", () => {
  const view = formation({
    settled: false,
    services: [
      service({
        canary: { release: 5, weight: 10, ready: 0, wanted: 1 },
        state: "waiting",
        explanation:
          "shop-web-r5-abcde runs for 3s and does not answer GET /healthz on port 8080 yet. Release 4 keeps serving.",
      }),
      service({ name: "api", ready: 0, state: "failing", explanation: "It exited with code 1." }),
    ],
  });
  expect(formationText(view, plain, 60)).toBe(
    text(
      "shop needs attention (release 4).",
      "  ◐ web  2 of 2 ready, waiting  release 4, canary 5 at 10 % (0 of 1 ready)",
      "         shop-web-r5-abcde runs for 3s and does not answer",
      "         GET /healthz on port 8080 yet. Release 4 keeps",
      "         serving.",
      "  ▲ api  0 of 2 ready, failing  release 4",
      "         It exited with code 1.",
    ),
  );
});

test("a formation that is down says so", () => {
  expect(
    formationText(
      formation({
        state: "down",
        services: [service({ state: "down", ready: 0, explanation: "The formation is down." })],
      }),
      plain,
      80,
    ),
  ).toBe(
    text(
      "shop is down: nothing of it runs. Its releases and volumes stay; `gilliam up` runs it again.",
      "  ○ web  down  release 4",
    ),
  );
});

test("a plan reads like a diff", () => {
  expect(planText(plan({ warnings: ["careful"] }), plain)).toBe(
    text(
      "shop: release 4 → 5",
      "",
      "+ api is new",
      "    port: 8081 (http)",
      "",
      "- old is stopped and removed",
      "",
      "~ web gets new instances",
      "    environment.LOG_LEVEL: info → debug",
      "",
      "  db stays as it is",
      "",
      "! careful",
      "",
      "4 services: 1 new, 1 changed, 1 removed, 1 unchanged.",
    ),
  );
});

test("a plan of nothing says so in one line", () => {
  const nothing = plan({ to: 4, changes: [{ service: "web", action: "keep", differences: [] }] });
  expect(planText(nothing, plain)).toBe("shop: nothing changes; release 4 has all of this already");
  expect(planText(plan({ from: 0, to: 1, changes: [] }), plain)).toBe("shop: this is its first release");
});

test("the split of a canary", () => {
  expect(canaryText(service())).toBe("web: release 4 gets every request (2 ready)");
  expect(canaryText(service({ canary: { release: 5, weight: 10, ready: 1, wanted: 1 } }))).toBe(
    "web: release 4 gets 90 % (2 ready), release 5 gets 10 % (1 of 1 ready)",
  );
});

test.for([
  { text: "\u001b]0;title\u0007\u001b[2Jhi\r\u0000\u009b31m\tyou", shown: "hi\tyou" },
  { text: "\u001b[31mred\u001b[0m", shown: "red" },
])("no service can command a terminal: $shown", ({ text, shown }) => {
  expect(printable(text)).toBe(shown);
});

test("colours may stay, cursor commands may not", () => {
  expect(printable("\u001b[31mred\u001b[0m\u001b[2J\u0007", true)).toBe("\u001b[31mred\u001b[0m");
});

test("words wrap, long ones stand alone", () => {
  expect(wrapText("a bb ccc dddddddd e", 5, "> ")).toBe("a bb\n> ccc\n> dddddddd\n> e");
});

test.for([
  [ago(null, 0), ""],
  [ago(1_000, 1_500), "just now"],
  [ago(5_000, 1_000), "just now"], // The wall clock jumped back.
  [ago(0, 65_000), "1m5s ago"],
  [count(1, "proxy", "proxies"), "1 proxy"],
  [count(0, "host"), "0 hosts"],
  [list(["a", "b", "c"]), "a, b and c"],
  [rate(0), "0"],
  [rate(0.44), "0.4"],
  [rate(12.4), "12"],
  [rate(1234), "1.2k"],
  [rate(123_456), "123k"],
] as const)("%#: %s", ([shown, expected]) => {
  expect(shown).toBe(expected);
});
