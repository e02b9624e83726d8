import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { API_ROUTES } from "../model/api-routes.ts";
import { Bench, GILLIAM, MANIFEST } from "./testing/bench.ts";
import { formation, service } from "./testing/samples.ts";

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.start(process.env["PATH"]);
});
afterEach(() => bench[Symbol.asyncDispose]());

describe("every verb that shows something gives JSON of the model", () => {
  test.for([
    [["ps"], API_ROUTES.instances.answer],
    [["releases"], API_ROUTES.releases.answer],
    [["routes"], API_ROUTES.routes.answer],
    [["graph"], API_ROUTES.graph.answer],
    [["hosts"], API_ROUTES.hosts.answer],
    [["env", "web"], API_ROUTES.env.answer],
    [["plan"], API_ROUTES.plan.answer],
    [["deploy"], API_ROUTES.deploy.answer],
    [["up"], API_ROUTES.up.answer],
    [["down", "--detach"], API_ROUTES.down.answer],
    [["scale", "web=2"], API_ROUTES.scale.answer],
    [["canary", "web", "--weight", "10"], API_ROUTES.canary.answer],
    [["promote"], API_ROUTES.promote.answer],
    [["maintenance", "web", "on"], API_ROUTES.pause.answer],
    [["hold", "web", "10s"], API_ROUTES.pause.answer],
    [["rollback"], API_ROUTES.rollback.answer],
    [["status"], API_ROUTES.formation.answer],
    [["drain", "here"], API_ROUTES.drain.answer],
    [["open"], z.strictObject({ url: z.string(), urls: z.array(z.string()) })],
  ] as const)("%s", async ([args, schema]) => {
    const { stdout, code, stderr } = await bench.gilliam([...args, "--json"]);
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    expect(schema.safeParse(JSON.parse(stdout)).error).toBeUndefined();
  });

  test("status of the whole platform", async () => {
    const { stdout } = await bench.gilliam(["status", "--json"], { cwd: bench.home });
    const schema = z.strictObject({
      platform: API_ROUTES.status.answer,
      formations: API_ROUTES.formations.answer,
    });
    expect(schema.safeParse(JSON.parse(stdout)).error).toBeUndefined();
  });
});

describe("help", () => {
  test.for([
    "up",
    "down",
    "deploy",
    "plan",
    "ps",
    "status",
    "logs",
    "scale",
    "releases",
    "canary",
    "promote",
    "rollback",
    "routes",
    "graph",
    "exec",
    "run",
    "env",
    "hosts",
    "drain",
    "open",
    "doctor",
    "completion",
    "maintenance",
    "hold",
  ])("%s has examples", async (verb) => {
    const { code, stdout } = await bench.gilliam([verb, "--help"]);
    expect(code).toBe(0);
    expect(stdout).toContain("Examples:\n  ");
    expect(stdout).toContain("gilliam ");
  });
});

test("the command itself exits as it should", async () => {
  expect(await bench.command(["--version"])).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) as string,
  });
  expect(await bench.command(["deploi"])).toMatchObject({ code: 2, stdout: "" });
  expect(await bench.command(["ps"], { env: { GILLIAM_TOKEN: "guess" } })).toMatchObject({
    code: 1,
    stdout: "",
  });
});

describe("exit codes", () => {
  test.for([
    { args: ["--version"], code: 0, says: /^\d+\.\d+\.\d+\n$/ },
    { args: [], code: 2, says: /Usage: gilliam <verb>/ },
    { args: ["deploi"], code: 2, says: /unknown command 'deploi'[^]*Did you mean deploy\?/ },
    { args: ["ps", "--jsno"], code: 2, says: /unknown option '--jsno'/ },
    { args: ["scale", "web"], code: 2, says: /"web" is not SERVICE=COUNT\nLike: gilliam scale web=5/ },
    { args: ["canary", "web"], code: 2, says: /--weight/ },
    { args: ["maintenance", "web", "maybe"], code: 2, says: /say on or off; it is "maybe"/ },
    {
      args: ["maintenance", "web", "on", "--retry-after", "soon"],
      code: 2,
      says: /--retry-after must be like/,
    },
    { args: ["hold", "web", "2h"], code: 2, says: /say how long, like "10s", at most 1h, or off/ },
    {
      args: ["canary", "web", "--weight", "101"],
      code: 2,
      says: /--weight must be a whole number from 0 to 100; it is "101"/,
    },
    {
      args: ["canary", "web", "--weight", "1", "--sticky", "ip"],
      code: 2,
      says: /--sticky must be cookie:NAME or header:NAME/,
    },
    { args: ["deploy", "--timeout", "soon"], code: 2, says: /--timeout must be like "90s"/ },
    { args: ["exec", "web"], code: 2, says: /Which command\?\nLike: gilliam exec web -- ls -l/ },
    { args: ["ps", "--file", "nope.yaml"], code: 2, says: /Cannot read nope.yaml/ },
    {
      args: ["deploy", "--formation", "bank"],
      code: 2,
      says: /gilliam.yaml is of formation "shop", and --formation says "bank"/,
    },
  ])("$args → $code", async ({ args, code, says }) => {
    const result = await bench.gilliam(args);
    expect(result.stdout + result.stderr).toMatch(says);
    expect(result.code).toBe(code);
  });

  test("a bad manifest shows every problem, and nothing is asked of control", async () => {
    writeFileSync(
      join(bench.folder, "gilliam.yaml"),
      MANIFEST.replace("8080", "70000").replace("source", "sorce"),
    );
    const { code, stderr } = await bench.gilliam(["deploy"]);
    expect(code).toBe(2);
    expect(stderr).toContain("gilliam.yaml cannot be used; nothing was changed");
    expect(stderr).toContain("gilliam.yaml:3:30 processes.web.port 70000: must be a port");
    expect(stderr).toContain("processes.web.sorce: is not a key here (did you mean `source`?)");
    expect(bench.control.calls).toEqual([]);
  });

  test("a manifest that control refuses is a usage error too", async () => {
    bench.control.handlers.plan = () => ({
      problem: {
        status: 422,
        code: "bad_manifest",
        detail: "gilliam.yaml cannot be used",
        problems: ["gilliam.yaml:1:1 x: y"],
        next: "Change it.",
      },
    });
    const { code, stderr } = await bench.gilliam(["plan"]);
    expect(code).toBe(2);
    expect(stderr).toContain("gilliam: gilliam.yaml cannot be used\n  gilliam.yaml:1:1 x: y\nChange it.");
  });
});

describe("who cannot be reached", () => {
  test("control is away", async () => {
    const url = bench.control.url;
    await bench.control[Symbol.asyncDispose]();
    const { code, stderr, stdout } = await bench.gilliam(["ps"], { env: { GILLIAM_URL: url } });
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toMatch(
      /^gilliam: Cannot reach Gilliam's control at http:\/\/127\.0\.0\.1:\d+: connection refused\nIs it running\? \/.*\/bootstrap\/up\n$/,
    );
  });

  test("a wrong token", async () => {
    const { code, stderr } = await bench.gilliam(["ps"], { env: { GILLIAM_TOKEN: "guess" } });
    expect(code).toBe(1);
    expect(stderr).toContain("This token is not known\nThe token was not accepted: set GILLIAM_TOKEN");
  });

  test("no platform on this machine", async () => {
    const { code, stderr } = await bench.gilliam(["ps", "--state", join(bench.home, "none")], {
      env: { GILLIAM_URL: undefined },
    });
    expect(code).toBe(1);
    expect(stderr).toContain(`there is no ${join(bench.home, "none/platform.json")}\nStart it:`);
  });

  test("the state folder says where control is and how to be let in", async () => {
    const state = join(bench.folder, "state");
    mkdirSync(state);
    writeFileSync(join(state, "platform.json"), JSON.stringify({ controlUrl: bench.control.url, more: 1 }));
    writeFileSync(join(state, "token"), `${bench.control.token}\n`);
    const { code } = await bench.gilliam(["ps", "--state", state], {
      env: { GILLIAM_URL: undefined, GILLIAM_TOKEN: undefined },
    });
    expect(code).toBe(0);
  });

  test("an answer of another version is said to be one", async () => {
    bench.control.handlers.instances = () => ({ lines: [] });
    const { code, stderr } = await bench.gilliam(["ps"]);
    expect(code).toBe(1);
    expect(stderr).toContain('Cannot understand the answer to "instances"');
  });
});

test("canary takes the newest release and prints the split", async () => {
  bench.control.handlers.formation = () => ({
    value: formation({ services: [service({ canary: { release: 5, weight: 10, ready: 1, wanted: 1 } })] }),
  });
  const { stdout } = await bench.gilliam(["canary", "web", "--weight", "10", "--sticky", "cookie:visitor"]);
  expect(bench.called("canary")[0]?.body).toEqual({
    service: "web",
    release: 5,
    weight: 10,
    sticky: { by: "cookie", name: "visitor" },
  });
  expect(stdout).toBe("web: release 4 gets 90 % (2 ready), release 5 gets 10 % (1 of 1 ready)\n");
});

test("maintenance and hold tell control, and say how it ends", async () => {
  const on = await bench.gilliam(["maintenance", "web", "on", "--retry-after", "5m"]);
  expect(on.stdout).toBe("web: closed for maintenance; open it with: gilliam maintenance web off\n");
  const hold = await bench.gilliam(["hold", "web", "10s"]);
  expect(hold.stdout).toBe("web: requests wait, 10s at most; let them go with: gilliam hold web off\n");
  expect((await bench.gilliam(["hold", "web", "off"])).stdout).toBe("web: requests go on\n");
  expect(bench.called("pause").map(({ body }) => body)).toEqual([
    { kind: "maintenance", service: "web", retryAfterSeconds: 300 },
    { kind: "hold", service: "web", forMs: 10_000 },
    { kind: "none", service: "web" },
  ]);
});

test("env masks secrets until told otherwise", async () => {
  expect((await bench.gilliam(["env", "web"])).stdout).toContain("DB_URL    (hidden)  dependency db");
  expect((await bench.gilliam(["env", "web", "--reveal"])).stdout).toContain("hunter2");
});

test("status is 1 while something needs attention", async () => {
  bench.control.handlers.formation = () => ({
    value: formation({ services: [service({ state: "failing", explanation: "It crashed." })] }),
  });
  const { code, stdout } = await bench.gilliam(["status"]);
  expect(code).toBe(1);
  expect(stdout).toContain("shop needs attention");
});

test("doctor says how to mend what is missing", async () => {
  const { stdout } = await bench.gilliam(["doctor", "--json"]);
  const Finding = z.strictObject({
    check: z.string(),
    level: z.enum(["ok", "note", "missing"]),
    found: z.string(),
    next: z.string(),
  });
  const findings = z.array(Finding).parse(JSON.parse(stdout));
  expect(findings.map(({ check }) => check)).toContain("node");
  for (const { level, next } of findings) expect(next === "").toBe(level === "ok");
});

test("the formation is found from a folder below, the command through a link", async () => {
  const link = join(bench.folder, "g");
  symlinkSync(GILLIAM, link);
  const { code } = await bench.command(["ps"], { cwd: join(bench.folder, "web"), binary: link });
  expect(code).toBe(0);
  expect(bench.called("instances")[0]?.parameter).toBe("shop");
});

test("colours only where they are wanted", async () => {
  expect((await bench.command(["status"])).stdout).not.toContain("\u001b[");
  expect((await bench.command(["status"], { env: { FORCE_COLOR: "1" } })).stdout).toContain("\u001b[");
  expect(
    (await bench.command(["status"], { env: { FORCE_COLOR: "1", NO_COLOR: "1" } })).stdout,
  ).not.toContain("\u001b[");
  expect((await bench.command(["status", "--no-color"], { env: { FORCE_COLOR: "1" } })).stdout).not.toContain(
    "\u001b[",
  );
});

test("completion knows the services at hand", async () => {
  expect((await bench.command(["complete", "--", "logs", ""])).stdout).toContain("web\tprocess");
  expect((await bench.command(["complete", "--", "scale", ""])).stdout).toContain("web=\tprocess");
  expect((await bench.command(["completion", "bash"])).stdout).toContain("gilliam complete --");
});
