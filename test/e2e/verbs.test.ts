import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Platform, ROOT, until } from "./platform.ts";
import { SHOP, SHOP_V2 } from "./shop.ts";

/** Every verb against the real thing, and what people and programs can see of a running shop. */
describe("the command line on a running shop", () => {
  let platform: Platform;
  beforeAll(async () => {
    platform = await Platform.start({ formation: SHOP });
    await platform.order();
    await platform.settled();
  });
  afterAll(() => platform?.remove());

  const shop = (verb: string, ...args: string[]) => platform.mustCli(verb, "--formation", "shop", ...args);
  const json = async (verb: string, ...args: string[]) =>
    JSON.parse(await shop(verb, "--json", ...args)) as unknown;

  test("plan shows what deploy would change, and changes nothing", async () => {
    const plan = await platform.cli("plan", "--file", join(SHOP_V2, "gilliam.yaml"));
    expect(plan.code).toBe(0);
    expect(plan.stdout).toContain("web");
    expect((await platform.formation())?.current).toBe(1);
    const nothing = await platform.cli("plan", "--json", "--file", join(SHOP, "gilliam.yaml"));
    expect(JSON.parse(nothing.stdout)).toMatchObject({ from: 1, to: 1 });
  });

  test("a bad manifest gets all its problems at once, with exit code 2", async () => {
    const file = join(platform.state, "../bad.yaml");
    const text = "formation: shop\nprocesses:\n  web: { prot: 8080, source: ., dependencies: { api: 1 } }\n";
    writeFileSync(file, text);
    const ran = await platform.cli("deploy", "--file", file);
    expect(ran.code).toBe(2);
    expect(ran.stderr).toMatch(/bad\.yaml:3:\d+ .*prot/);
    expect(ran.stderr).toMatch(/bad\.yaml:3:\d+ .*api/);
    expect((await platform.formation())?.current).toBe(1);
  });

  test.for(["status", "ps", "releases", "routes", "graph", "hosts"])(
    "%s in words and as JSON",
    async (verb) => {
      expect((await shop(verb)).length).toBeGreaterThan(10);
      expect(await json(verb)).toBeTypeOf("object");
    },
  );

  test("graph tells the live rate of each declared edge", async () => {
    await until("requests to be counted", 20_000, async () => {
      await platform.get("/");
      return /web[\s\S]*api[^\n]* [1-9.]+\d*\/s/.test(await shop("graph"));
    });
  });

  test("env hides secrets, and shows them when asked", async () => {
    expect(await shop("env", "api")).toMatch(/DB_URL +postgres:\/\/gilliam:\(hidden\)@/);
    expect(await shop("env", "--reveal", "api")).toMatch(/DB_URL +postgres:\/\/gilliam:[^(@]{16,}@/);
  });

  test("exec runs inside an instance, run beside them; output and exit codes pass through", async () => {
    expect(await shop("exec", "web", "printenv", "GILLIAM_SERVICE")).toBe("web\n");
    const failed = await platform.cli(
      "exec",
      "--formation",
      "shop",
      "web",
      "sh",
      "-c",
      "echo no >&2; exit 7",
    );
    expect([failed.code, failed.stderr]).toEqual([7, "no\n"]);
    const sum = "import store, os; print(store.Store(os.environ['DB_URL']).orders(1)['count'])";
    expect(Number(await shop("run", "api", "python3", "-c", sum))).toBeGreaterThan(0);
  });

  test("logs of every instance, and new lines as they come", async () => {
    const lines = await shop("logs", "--tail", "50");
    expect(lines).toContain("listens on");
    expect(lines).toContain("PostgreSQL");
    const child = spawn(
      join(ROOT, "cli/gilliam"),
      ["logs", "-f", "--tail", "0", "--formation", "shop", "api"],
      {
        env: { ...process.env, GILLIAM_STATE: platform.state },
      },
    );
    let followed = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (followed += text));
    const ended = new Promise((resolve) => child.once("close", resolve));
    await until("a new instance to log", 60_000, async () => {
      await platform.cli("scale", "api=3", "--formation", "shop");
      return followed.includes("listens on");
    });
    child.kill("SIGINT");
    await ended;
    await shop("scale", "api=2");
  });

  test("what is not declared cannot be reached: not another instance, not the host, not the world", async () => {
    const [host] =
      (await platform.ask({ parse: (value) => value as { network: string }[] }, "/v1/hosts")) ?? [];
    const db = (await platform.instances("db"))[0]?.address ?? "";
    const targets = [db, new URL(platform.addresses.controlUrl).host, "192.0.2.1:80"];
    const program = `
      const net = require("node:net");
      Promise.all(${JSON.stringify(targets)}.map((target) => new Promise((resolve) => {
        const [host, port] = target.split(":");
        const socket = net.connect({ host, port: Number(port), timeout: 2000 });
        socket.on("connect", () => { socket.destroy(); resolve("reached " + target); });
        socket.on("timeout", () => { socket.destroy(); resolve("no"); });
        socket.on("error", () => resolve("no"));
      }))).then((answers) => console.log(answers.join(",")));`;
    const said = await shop("exec", "web", "node", "-e", program);
    // Without root all share one loopback, and nothing can be closed off there.
    if (host?.network === "namespace") expect(said).toBe("no,no,no\n");
    else expect(said).toContain(",no");
  });

  test("down stops the formation's instances and keeps its data, up brings it back", async () => {
    const before = await platform.get("/orders");
    await shop("down");
    expect((await platform.instances()).length).toBe(0);
    expect((await platform.get("/")).status).toBeGreaterThanOrEqual(500);
    await shop("up");
    await platform.settled();
    const { orders } = JSON.parse(before.body) as { orders: { count: number } };
    expect(JSON.parse((await platform.get("/orders")).body)).toMatchObject({
      orders: { count: orders.count },
    });
  });

  test("draining the only host moves nothing away, says so, and can be undone", async () => {
    const { hostId } = platform.addresses;
    await platform.mustCli("drain", hostId);
    expect((await platform.get("/orders")).status).toBe(200);
    expect(await platform.mustCli("hosts")).toContain("draining");
    await platform.mustCli("drain", "--undo", hostId);
    await platform.settled();
    expect((await platform.get("/orders")).status).toBe(200);
  });

  test("doctor finds this machine fit", async () => {
    expect(await platform.mustCli("doctor")).toContain("This machine can run Gilliam");
  });

  test("metrics of all four parts, in Prometheus' own format", async () => {
    for (const [part, url] of Object.entries(platform.addresses.metricsUrls)) {
      const answer = await fetch(url);
      expect(answer.status, part).toBe(200);
      expect(await answer.text(), part).toMatch(/^# HELP \w+ .+\n# TYPE \w+ (?:counter|gauge|histogram)/m);
    }
    const edge = await (await fetch(platform.addresses.metricsUrls["edge"] ?? "")).text();
    expect(edge).toMatch(/\{[^}]*release="1"[^}]*\} [1-9]/);
  });

  test("a request without a route is refused in plain words", async () => {
    const answer = await fetch(platform.addresses.edgeUrl);
    expect(answer.status).toBe(404);
    expect(answer.headers.get("x-gilliam-reason")).toBeTruthy();
    expect(await answer.text()).toMatch(/host|route/i);
  });
});
