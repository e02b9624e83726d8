import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { API_ROUTES, type ApiRouteName } from "../model/api-routes.ts";
import { DeployRequest } from "../model/api.ts";
import { runCommandLine } from "./program.ts";
import type { Sink } from "./shell.ts";
import { FakeControl } from "./testing/fake-control.ts";
import {
  formation,
  GRAPH,
  HOSTS,
  instance,
  plan,
  platform,
  RELEASES,
  ROUTES,
  service,
} from "./testing/samples.ts";

const GILLIAM = fileURLToPath(new URL("gilliam", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "gilliam-cli-test-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const MANIFEST = `formation: shop
processes:
  web: { source: ./web, port: 8080, edge: [shop.localhost] }
`;

let control: FakeControl;
let folder: string;
let folders = 0;

beforeEach(async () => {
  folders += 1;
  folder = join(scratch, String(folders));
  mkdirSync(join(folder, "web"), { recursive: true });
  writeFileSync(join(folder, "gilliam.yaml"), MANIFEST);
  writeFileSync(join(folder, "web/server.js"), "console.log('hello')\n");
  control = await FakeControl.start({
    status: () => ({ value: platform() }),
    formations: () => ({ value: [formation()] }),
    formation: () => ({ value: formation() }),
    instances: () => ({ value: [instance()] }),
    releases: () => ({ value: RELEASES }),
    routes: () => ({ value: ROUTES }),
    hosts: () => ({ value: HOSTS }),
    graph: () => ({ value: GRAPH }),
    plan: () => ({ value: plan() }),
    deploy: () => ({ value: { formation: "shop", release: 5, created: true, plan: plan() } }),
    up: () => ({ value: formation() }),
    down: () => ({ value: formation() }),
    scale: () => ({ value: formation() }),
    canary: () => ({ value: formation() }),
    promote: () => ({ value: formation() }),
    rollback: () => ({ value: formation({ current: 3 }) }),
    drain: () => ({ value: HOSTS[0] }),
    env: ({ query }) => ({
      value: {
        service: "web",
        release: 4,
        variables: [
          {
            name: "DB_URL",
            value: query["reveal"] === "true" ? "postgres://u:hunter2@h" : "(hidden)",
            secret: true,
            from: "dependency db",
          },
          { name: "PORT", value: "8080", secret: false, from: "port" },
        ],
      },
    }),
  });
});
afterEach(() => control[Symbol.asyncDispose]());

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface Options {
  readonly env?: Record<string, string | undefined>;
  readonly cwd?: string;
  readonly stdin?: string;
}

const environment = (change: Options["env"] = {}) => ({
  PATH: process.env["PATH"],
  HOME: scratch,
  GILLIAM_URL: control.url,
  GILLIAM_TOKEN: control.token,
  ...change,
});

/** The command line within this process: everything but main.ts and the launcher. */
async function gilliam(
  args: readonly string[],
  { env, cwd = folder, stdin = "" }: Options = {},
): Promise<Result> {
  const written = { stdout: "", stderr: "" };
  const sink = (name: keyof typeof written): Sink => ({
    write: (text) => void (written[name] += text),
    isTerminal: false,
    columns: () => Infinity,
    color: false,
  });
  const code = await runCommandLine(args, {
    env: environment(env),
    cwd,
    uid: 1000,
    clock: systemClock,
    stdout: sink("stdout"),
    stderr: sink("stderr"),
    readStdin: () => Promise.resolve(Buffer.from(stdin)),
    confirm: () => Promise.resolve(undefined),
    signal: new AbortController().signal,
  });
  return { code, ...written };
}

/** The real command, as a process of its own. */
function command(args: readonly string[], options: Options & { binary?: string } = {}): Promise<Result> {
  const { env, cwd = folder, stdin = "", binary = GILLIAM } = options;
  return new Promise((resolve) => {
    const child = execFile(
      binary,
      [...args],
      { env: environment(env), cwd, timeout: 30_000 },
      (error, stdout, stderr) => {
        resolve({
          code: error === null ? 0 : typeof error.code === "number" ? error.code : -1,
          stdout,
          stderr,
        });
      },
    );
    child.stdin?.end(stdin);
  });
}

const called = (route: ApiRouteName) => control.calls.filter((call) => call.route === route);

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
    [["rollback"], API_ROUTES.rollback.answer],
    [["status"], API_ROUTES.formation.answer],
    [["drain", "here"], API_ROUTES.drain.answer],
    [["open"], z.strictObject({ url: z.string(), urls: z.array(z.string()) })],
  ] as const)("%s", async ([args, schema]) => {
    const { stdout, code, stderr } = await gilliam([...args, "--json"]);
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    expect(schema.safeParse(JSON.parse(stdout)).error).toBeUndefined();
  });

  test("status of the whole platform", async () => {
    const { stdout } = await gilliam(["status", "--json"], { cwd: scratch });
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
  ])("%s has examples", async (verb) => {
    const { code, stdout } = await gilliam([verb, "--help"]);
    expect(code).toBe(0);
    expect(stdout).toContain("Examples:\n  ");
    expect(stdout).toContain("gilliam ");
  });
});

test("the command itself exits as it should", async () => {
  expect(await command(["--version"])).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) as string,
  });
  expect(await command(["deploi"])).toMatchObject({ code: 2, stdout: "" });
  expect(await command(["ps"], { env: { GILLIAM_TOKEN: "guess" } })).toMatchObject({ code: 1, stdout: "" });
});

describe("exit codes", () => {
  test.for([
    { args: ["--version"], code: 0, says: /^\d+\.\d+\.\d+\n$/ },
    { args: [], code: 2, says: /Usage: gilliam <verb>/ },
    { args: ["deploi"], code: 2, says: /unknown command 'deploi'[^]*Did you mean deploy\?/ },
    { args: ["ps", "--jsno"], code: 2, says: /unknown option '--jsno'/ },
    { args: ["scale", "web"], code: 2, says: /"web" is not SERVICE=COUNT\nLike: gilliam scale web=5/ },
    { args: ["canary", "web"], code: 2, says: /--weight/ },
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
    const result = await gilliam(args);
    expect(result.stdout + result.stderr).toMatch(says);
    expect(result.code).toBe(code);
  });

  test("a bad manifest shows every problem, and nothing is asked of control", async () => {
    writeFileSync(join(folder, "gilliam.yaml"), MANIFEST.replace("8080", "70000").replace("source", "sorce"));
    const { code, stderr } = await gilliam(["deploy"]);
    expect(code).toBe(2);
    expect(stderr).toContain("gilliam.yaml cannot be used; nothing was changed");
    expect(stderr).toContain("gilliam.yaml:3:30 processes.web.port 70000: must be a port");
    expect(stderr).toContain("processes.web.sorce: is not a key here (did you mean `source`?)");
    expect(control.calls).toEqual([]);
  });

  test("a manifest that control refuses is a usage error too", async () => {
    control.handlers.plan = () => ({
      problem: {
        status: 422,
        code: "bad_manifest",
        detail: "gilliam.yaml cannot be used",
        problems: ["gilliam.yaml:1:1 x: y"],
        next: "Change it.",
      },
    });
    const { code, stderr } = await gilliam(["plan"]);
    expect(code).toBe(2);
    expect(stderr).toContain("gilliam: gilliam.yaml cannot be used\n  gilliam.yaml:1:1 x: y\nChange it.");
  });
});

describe("who cannot be reached", () => {
  test("control is away", async () => {
    const url = control.url;
    await control[Symbol.asyncDispose]();
    const { code, stderr, stdout } = await gilliam(["ps"], { env: { GILLIAM_URL: url } });
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toMatch(
      /^gilliam: Cannot reach Gilliam's control at http:\/\/127\.0\.0\.1:\d+: connection refused\nIs it running\? \/.*\/bootstrap\/up\n$/,
    );
    control = await FakeControl.start({});
  });

  test("a wrong token", async () => {
    const { code, stderr } = await gilliam(["ps"], { env: { GILLIAM_TOKEN: "guess" } });
    expect(code).toBe(1);
    expect(stderr).toContain("This token is not known\nThe token was not accepted: set GILLIAM_TOKEN");
  });

  test("no platform on this machine", async () => {
    const { code, stderr } = await gilliam(["ps", "--state", join(scratch, "none")], {
      env: { GILLIAM_URL: undefined },
    });
    expect(code).toBe(1);
    expect(stderr).toContain(`there is no ${join(scratch, "none/platform.json")}\nStart it:`);
  });

  test("the state folder says where control is and how to be let in", async () => {
    const state = join(folder, "state");
    mkdirSync(state);
    writeFileSync(join(state, "platform.json"), JSON.stringify({ controlUrl: control.url, more: 1 }));
    writeFileSync(join(state, "token"), `${control.token}\n`);
    const { code } = await gilliam(["ps", "--state", state], {
      env: { GILLIAM_URL: undefined, GILLIAM_TOKEN: undefined },
    });
    expect(code).toBe(0);
  });

  test("an answer of another version is said to be one", async () => {
    control.handlers.instances = () => ({ lines: [] });
    const { code, stderr } = await gilliam(["ps"]);
    expect(code).toBe(1);
    expect(stderr).toContain('Cannot understand the answer to "instances"');
  });
});

describe("deploy", () => {
  test("sends only what is missing, shows the plan, waits, and says where it is", async () => {
    const first = await command(["deploy"]);
    expect(first).toMatchObject({ code: 0, stdout: "shop is on release 5.\n  http://shop.localhost:8080\n" });
    expect(first.stderr).toContain("shop: release 4 → 5");
    const { sources } = DeployRequest.parse(called("deploy")[0]?.body);
    expect([...control.blobs.keys()]).toEqual([sources["web"]]);
    const second = await gilliam(["deploy"]);
    expect(second.stderr).toContain("Sources are there already");
  });

  test("asks control to stage, and waits for nothing", async () => {
    const { stdout } = await gilliam(["deploy", "--stage"]);
    expect(called("deploy")[0]?.body).toMatchObject({ mode: "stage" });
    expect(called("formation")).toEqual([]);
    expect(stdout).toContain(
      "Release 5 of shop is staged. Send it a share: gilliam canary SERVICE --release 5 --weight 10",
    );
  });

  test("follows progress line by line and ends when it is settled", async () => {
    const states = [
      service({ state: "changing", ready: 0, explanation: "Its image is being built." }),
      service({ state: "changing", ready: 1, explanation: "web runs for 900ms and does not answer." }),
      service({ state: "changing", ready: 1, explanation: "web runs for 1s and does not answer." }),
      service(),
    ];
    control.handlers.formation = () => ({ value: formation({ services: [states.shift() ?? service()] }) });
    const { code, stderr } = await gilliam(["deploy"]);
    expect(code).toBe(0);
    expect(stderr).toContain(
      "  web: 0 of 2 ready; Its image is being built.\n  web: 1 of 2 ready; web runs for 900ms and does not answer.\nshop is settled\n",
    );
  });

  test("a failed build ends it at once, with the last lines and what still serves", async () => {
    const explanation =
      'Its image could not be built: `npm ci` ended with 1. Last lines: "no such package". Mend it and deploy again.';
    control.handlers.formation = () => ({
      value: formation({ services: [service({ state: "failing", explanation })] }),
    });
    const { code, stderr, stdout } = await gilliam(["deploy"]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain(`gilliam: Release 5 of shop does not become ready\n  web: ${explanation}\n`);
    expect(stderr).toContain(
      "Release 4 keeps serving; `gilliam rollback --formation shop` gives this one up.",
    );
  });

  test("a crash loop ends it; a first crash does not", async () => {
    let asked = 0;
    control.handlers.formation = () => ({
      value: formation({ services: [service({ state: "failing", explanation: "exited with code 1." })] }),
    });
    control.handlers.instances = () => {
      asked += 1;
      return { value: [instance({ phase: "failed", restarts: asked })] };
    };
    const { code } = await gilliam(["deploy"]);
    expect({ code, asked }).toEqual({ code: 1, asked: 3 });
  });

  test("a wait has an end", async () => {
    control.handlers.formation = () => ({
      value: formation({ services: [service({ state: "waiting", explanation: "No host has room." })] }),
    });
    const { code, stderr } = await gilliam(["deploy", "--timeout", "500ms"]);
    expect(code).toBe(1);
    expect(stderr).toContain("does not become ready within 1 seconds\n  web: No host has room.");
  });

  test("says which folder is missing", async () => {
    rmSync(join(folder, "web"), { recursive: true });
    const { code, stderr } = await gilliam(["plan"]);
    expect(code).toBe(2);
    expect(stderr).toContain('processes.web.source "./web": there is no such folder');
  });
});

describe("logs, exec and run", () => {
  const line = (change: object) => ({
    atMs: 1_000,
    service: "web",
    instanceId: "shop-web-r4-k3x9q",
    release: 4,
    stream: "stdout",
    text: "hello",
    ...change,
  });

  test("lines carry the name of their instance and no control characters", async () => {
    control.handlers.logs = () => ({
      lines: [line({}), line({ service: "api", instanceId: "shop-api-r1-zzzzz", text: "\u001b[2Jx" })],
    });
    const { stdout } = await gilliam(["logs"]);
    expect(stdout).toBe("web.k3x9q │ hello\napi.zzzzz │ x\n");
  });

  test("several services are filtered, one is asked for", async () => {
    control.handlers.logs = () => ({ lines: [line({}), line({ service: "db" })] });
    expect((await gilliam(["logs", "web", "api", "--json"])).stdout.trim().split("\n")).toHaveLength(1);
    await gilliam(["logs", "web", "-n", "5"]);
    expect(called("logs").at(-1)?.query).toEqual({ service: "web", tail: "5" });
  });

  test("following goes on where it was when control comes back", async () => {
    const answers = [[line({})], [line({}), line({ atMs: 2_000, text: "again" })]];
    control.handlers.logs = () => {
      const lines = answers.shift();
      return lines === undefined ? { problem: { status: 404, code: "gone", detail: "gone" } } : { lines };
    };
    const { stdout, stderr } = await gilliam(["logs", "-f"]);
    expect(stdout).toBe("web.k3x9q │ hello\nweb.k3x9q │ again\n");
    expect(stderr).toContain("waiting for it");
  });

  test("exec passes the command, standard input, output and exit code through", async () => {
    control.handlers.exec = () => ({
      lines: [
        { kind: "output", stream: "stdout", data: "out" },
        { kind: "output", stream: "stderr", data: "err" },
        { kind: "exit", code: 7 },
      ],
    });
    const result = await command(["exec", "web", "--", "cat", "-A", "--json"], { stdin: "in" });
    expect(result).toEqual({ code: 7, stdout: "out", stderr: "err" });
    expect(called("exec")[0]).toMatchObject({
      parameter: "shop-web-r4-k3x9q",
      body: { command: ["cat", "-A", "--json"], stdin: Buffer.from("in").toString("base64") },
    });
  });

  test("exec names what there is when it finds nothing", async () => {
    const { code, stderr } = await gilliam(["exec", "wbe", "ls"]);
    expect(code).toBe(1);
    expect(stderr).toContain('No instance "wbe" exists in shop\nServices with instances: web.');
  });

  test("run fails in plain words", async () => {
    control.handlers.run = () => ({ lines: [{ kind: "failed", message: "No host has room." }] });
    const { code, stderr } = await gilliam(["run", "web", "true"]);
    expect({ code, stderr }).toEqual({ code: 1, stderr: "gilliam: No host has room.\n" });
  });
});

test("canary takes the newest release and prints the split", async () => {
  control.handlers.formation = () => ({
    value: formation({ services: [service({ canary: { release: 5, weight: 10, ready: 1, wanted: 1 } })] }),
  });
  const { stdout } = await gilliam(["canary", "web", "--weight", "10", "--sticky", "cookie:visitor"]);
  expect(called("canary")[0]?.body).toEqual({
    service: "web",
    release: 5,
    weight: 10,
    sticky: { by: "cookie", name: "visitor" },
  });
  expect(stdout).toBe("web: release 4 gets 90 % (2 ready), release 5 gets 10 % (1 of 1 ready)\n");
});

test("env masks secrets until told otherwise", async () => {
  expect((await gilliam(["env", "web"])).stdout).toContain("DB_URL    (hidden)  dependency db");
  expect((await gilliam(["env", "web", "--reveal"])).stdout).toContain("hunter2");
});

test("status is 1 while something needs attention", async () => {
  control.handlers.formation = () => ({
    value: formation({ services: [service({ state: "failing", explanation: "It crashed." })] }),
  });
  const { code, stdout } = await gilliam(["status"]);
  expect(code).toBe(1);
  expect(stdout).toContain("shop needs attention");
});

test("doctor says how to mend what is missing", async () => {
  const { stdout } = await gilliam(["doctor", "--json"]);
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
  const link = join(folder, "g");
  symlinkSync(GILLIAM, link);
  const { code } = await command(["ps"], { cwd: join(folder, "web"), binary: link });
  expect(code).toBe(0);
  expect(called("instances")[0]?.parameter).toBe("shop");
});

test("colours only where they are wanted", async () => {
  expect((await command(["status"])).stdout).not.toContain("\u001b[");
  expect((await command(["status"], { env: { FORCE_COLOR: "1" } })).stdout).toContain("\u001b[");
  expect((await command(["status"], { env: { FORCE_COLOR: "1", NO_COLOR: "1" } })).stdout).not.toContain(
    "\u001b[",
  );
  expect((await command(["status", "--no-color"], { env: { FORCE_COLOR: "1" } })).stdout).not.toContain(
    "\u001b[",
  );
});

test("completion knows the services at hand", async () => {
  expect((await command(["complete", "--", "logs", ""])).stdout).toContain("web\tprocess");
  expect((await command(["complete", "--", "scale", ""])).stdout).toContain("web=\tprocess");
  expect((await command(["completion", "bash"])).stdout).toContain("gilliam complete --");
});
