import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findLeftovers, isEmpty } from "../../bootstrap/leftovers.ts";
import {
  FREE_PORTS,
  kill,
  newStateFolder,
  Platform,
  removeStateFolder,
  requestEdge,
  ROOT,
  run,
} from "./platform.ts";
import { SHOP } from "./shop.ts";

const UP = join(ROOT, "bootstrap/up");
const isRoot = process.getuid?.() === 0;

describe("bootstrap/up refuses, and changes nothing", () => {
  let state: string;
  beforeAll(() => {
    state = newStateFolder();
  });
  afterAll(() => removeStateFolder(state));

  test("when a port is taken: the port, who has it, and the flag", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as AddressInfo;
    const ran = await run(UP, ["--state", state, ...FREE_PORTS, "--edge-port", String(port)]);
    server.close();
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain(`port ${port} is taken by`);
    expect(ran.stderr).toContain(`(process ${process.pid})`);
    expect(ran.stderr).toContain("--edge-port");
    expect(existsSync(state)).toBe(false);
  });

  test.for([
    { content: "gilliam state 0\n", says: "older Gilliam" },
    { content: "gilliam state 9\n", says: "newer Gilliam" },
  ])("when the state folder says $content", async ({ content, says }) => {
    mkdirSync(state, { mode: 0o755 });
    writeFileSync(join(state, "version"), content);
    writeFileSync(join(state, "registry.db"), "precious");
    const ran = await run(UP, ["--state", state, ...FREE_PORTS]);
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain(says);
    expect(readdirSync(state).sort()).toEqual(["registry.db", "version"]);
    rmSync(state, { recursive: true });
  });

  test("when Python is missing: the package that has it, and how to do without", async () => {
    const programs = join(state, "../programs");
    mkdirSync(programs);
    for (const program of [
      "sh",
      "uname",
      "dirname",
      "flock",
      "setpriv",
      "nsenter",
      "ip",
      "iptables",
      "env",
      "node",
    ]) {
      const found = (process.env["PATH"] ?? "").split(":").map((folder) => join(folder, program));
      const path = found.find((candidate) => existsSync(candidate));
      if (path !== undefined) symlinkSync(path, join(programs, program));
    }
    const ran = await run(UP, ["--state", state, ...FREE_PORTS], { env: { PATH: programs } });
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain("lacks python3");
    expect(ran.stderr).toContain("--formation none");
    expect(existsSync(state)).toBe(false);
  });

  test("a flag that is not known: exit code 2 and where the flags are listed", async () => {
    const ran = await run(UP, ["--state", state, "--port", "1"]);
    expect(ran.code).toBe(2);
    expect(ran.stderr).toContain("--help");
  });
});

describe("bootstrap/up and down without a formation", () => {
  test("two at once: one starts the platform, the other waits and finds it running", async () => {
    const state = newStateFolder();
    const up = () => run(UP, ["--state", state, "--formation", "none", ...FREE_PORTS]);
    const ran = await Promise.all([up(), up()]);
    expect(ran.map(({ code, stderr }) => (code === 0 ? 0 : stderr))).toEqual([0, 0]);
    expect(ran.filter(({ stderr }) => stderr.includes("runs already"))).toHaveLength(1);
    expect(ran[0]?.stdout).toContain("Gilliam is up");

    const executors = () =>
      findLeftovers(state).processes.filter(({ command }) => command.endsWith("executor/main.ts"));
    expect(executors()).toHaveLength(1);
    const before = executors();
    const again = await run(UP, ["--state", state, "--formation", "none"]);
    expect(again.code).toBe(0);
    expect(again.stderr).toContain("nothing is changed");
    expect(executors()).toEqual(before);

    const other = await run(UP, ["--state", state, "--formation", "none", "--edge-port", "1"]);
    expect(other.code).toBe(1);
    expect(other.stderr).toContain("--edge-port is");

    const down = join(ROOT, "bootstrap/down");
    expect((await run(down, ["--state", state])).code).toBe(0);
    expect(isEmpty(findLeftovers(state))).toBe(true);
    expect((await run(down, ["--state", state])).code).toBe(0);
    expect((await run(down, ["--state", state, "--purge"])).code).toBe(0);
    expect(existsSync(state)).toBe(false);
    removeStateFolder(state);
  });

  test.for(["SIGKILL", "SIGSTOP"] as const)(
    "down takes everything away when the executor is dead or hung (%s)",
    async (signal) => {
      const platform = await Platform.start({ formation: SHOP });
      // The supervisor first, or it starts the executor anew.
      const supervisors = findLeftovers(platform.state).processes.filter(({ command }) =>
        command.includes("bootstrap/supervise.sh"),
      );
      kill(
        supervisors.map(({ pid }) => pid),
        signal,
      );
      kill(platform.pidsOf("executor/main.ts"), signal);
      expect(platform.pidsOf("server.py").length).toBeGreaterThan(0);
      await platform.remove(); // Throws when anything is left.
    },
  );
});

describe.runIf(isRoot)("as an ordinary user", () => {
  test("the shop answers, with ports of the shared loopback", async () => {
    const state = newStateFolder();
    const uid = 65_534;
    const home = join(state, "../home");
    mkdirSync(home);
    for (const path of [join(state, ".."), home]) chownSync(path, uid, uid);
    chmodSync(join(state, ".."), 0o755);
    const asUser = (program: string, args: readonly string[]) =>
      run("setpriv", ["--reuid", `${uid}`, "--regid", `${uid}`, "--clear-groups", program, ...args], {
        env: { HOME: home, PATH: `${ROOT}/node_modules/.bin:/usr/local/bin:/usr/bin:/bin` },
      });
    const ran = await asUser(UP, ["--state", state, ...FREE_PORTS]);
    try {
      expect(ran.code, ran.stderr).toBe(0);
      const edge = /shop\s+http:\/\/shop\.localhost:(\d+)/.exec(ran.stdout)?.[1];
      expect((await requestEdge(`http://127.0.0.1:${edge}`)).status).toBe(200);
    } finally {
      const down = await asUser(join(ROOT, "bootstrap/down"), ["--state", state]);
      expect(down.code, down.stderr).toBe(0);
      expect(isEmpty(findLeftovers(state))).toBe(true);
      removeStateFolder(state);
    }
  });
});
