import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Driver, Prepared, PrepareRequest, Running, StartRequest } from "../../executor/driver.ts";

/** What differs between drivers: where instances live. */
export interface Inside {
  /** Node.js, as an instance sees it. */
  readonly node: string;
  readonly image: string | undefined;
}

const ON_THIS_MACHINE: Inside = { node: process.execPath, image: undefined };

/** Holds a driver to the promises of executor/driver.ts. `open` is called again to play a restarted executor. */
export function describeDriver(
  name: string,
  open: (stateFolder: string) => Promise<Driver>,
  inside: () => Inside = () => ON_THIS_MACHINE,
): void {
  const startRequest = (command: string, instanceId: string, prepared: Prepared) =>
    makeStartRequest(command, instanceId, prepared, inside());
  describe(`driver ${name}`, () => {
    let folder = "";
    let driver: Driver;

    beforeEach(async () => {
      folder = mkdtempSync(join(tmpdir(), "driver-"));
      chmodSync(folder, 0o711);
      driver = await open(folder);
    });
    afterEach(async () => {
      driver.close();
      const last = await open(folder);
      for (const id of await last.list()) await last.remove(id);
      await last.sweep();
      await last.dismantle();
      last.close();
      rmSync(folder, { recursive: true });
    });

    const request = (overrides: Partial<PrepareRequest> = {}): PrepareRequest => ({
      instanceId: "shop-web-r1-aaaaa",
      network: "own",
      port: undefined,
      volume: undefined,
      privileges: "none",
      resources: {},
      ...overrides,
    });
    const begin = async (
      command: string,
      overrides: Partial<PrepareRequest> = {},
    ): Promise<Running & { prepared: Prepared }> => {
      const wanted = request(overrides);
      const prepared = await driver.prepare(wanted);
      return { prepared, ...(await driver.start(startRequest(command, wanted.instanceId, prepared))) };
    };
    const restartExecutor = async () => {
      driver.close();
      driver = await open(folder);
    };

    test.for([
      { command: "exit 0", expected: { code: 0, signal: null } },
      { command: "exit 3", expected: { code: 3, signal: null } },
      { command: "no-such-program", expected: { code: 127, signal: null } },
      { command: "/etc/passwd", expected: { code: 126, signal: null } },
      { command: "kill -9 $$", expected: { code: null, signal: "SIGKILL" } },
      { command: "kill -SEGV $$", expected: { code: null, signal: "SIGSEGV" } },
    ])("$command ends with $expected", async ({ command, expected }) => {
      const { exited } = await begin(command);
      expect(await exited).toMatchObject({ ...expected, outOfMemory: false });
    });

    test("its environment is what was given, and nothing else", async () => {
      const { prepared, exited } = await begin("env");
      await exited;
      const names = readFileSync(prepared.spools.stdout, "utf8")
        .split("\n")
        .map((line) => line.split("=")[0]);
      expect(new Set(names)).toEqual(new Set(["GREETING", "HOME", "PATH", "PWD", ""]));
    });

    test("both streams go to their spools, in full", async () => {
      const { prepared, exited } = await begin("echo out; echo err >&2; printf last");
      await exited;
      expect(readFileSync(prepared.spools.stdout, "utf8")).toMatch(/^out\nlast\n?$/); // Some end an unfinished line.
      expect(readFileSync(prepared.spools.stderr, "utf8")).toBe("err\n");
    });

    test("a signal reaches it, and its last words count", async () => {
      const { exited, prepared } = await begin(
        "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done",
      );
      await waitFor(() => readFileSync(prepared.spools.stdout, "utf8").includes("up"));
      expect(await driver.signal("shop-web-r1-aaaaa", "SIGTERM")).toBe(true);
      expect(await exited).toMatchObject({ code: 7 });
      expect(readFileSync(prepared.spools.stdout, "utf8")).toBe("up\nbye\n");
      expect(await driver.signal("shop-web-r1-aaaaa", "SIGTERM")).toBe(false);
    });

    test("SIGINT is not lost on the way, as it is for a shell's background command", async () => {
      const { exited } = await begin("exec sleep 60");
      await driver.signal("shop-web-r1-aaaaa", "SIGINT");
      expect(await exited).toMatchObject({ signal: "SIGINT" });
    });

    test("kill ends one that ignores signals, with its children and those that left its session", async () => {
      const { exited, prepared } = await begin(
        "trap '' TERM; sleep 61 & setsid sleep 62 & echo $$ up; while :; do sleep 0.05; done",
      );
      await waitFor(() => readFileSync(prepared.spools.stdout, "utf8").includes("up"));
      await driver.signal("shop-web-r1-aaaaa", "SIGTERM");
      await driver.kill("shop-web-r1-aaaaa");
      expect(await exited).toMatchObject({ code: null, signal: "SIGKILL" });
      expect(await countProcesses(driver, startRequest)).toBe(0);
    });

    test("what it leaves behind when it ends by itself is killed before the exit is told", async () => {
      const { exited } = await begin("setsid sleep 63 & sleep 64 & exit 5");
      expect(await exited).toMatchObject({ code: 5 });
      expect(await countProcesses(driver, startRequest)).toBe(0);
    });

    test("a second start makes no twin", async () => {
      const first = await begin("exec sleep 65");
      const second = await begin("exec sleep 66");
      expect(second.pid).not.toBe(first.pid);
      expect(await first.exited).toMatchObject({ signal: "SIGKILL" });
      expect(isRunning(first.pid)).toBe(false);
      expect(isRunning(second.pid)).toBe(true);
    });

    test("a new executor adopts what runs: the same process, its network, its end", async () => {
      const first = await begin("exec sleep 67", { port: 8080 });
      await restartExecutor();
      expect(await driver.list()).toEqual(["shop-web-r1-aaaaa"]);
      expect(driver.prepared("shop-web-r1-aaaaa")).toEqual(first.prepared);
      const adopted = await driver.adopt("shop-web-r1-aaaaa");
      expect(adopted).toMatchObject({ pid: first.pid, startedAtMs: first.startedAtMs });
      expect(isRunning(first.pid)).toBe(true);
      process.kill(first.pid, "SIGTERM");
      expect(await adopted?.exited).toMatchObject({ signal: "SIGTERM" });
    });

    test("a new executor learns the exit that nobody saw, once", async () => {
      const { pid } = await begin("sleep 0.3; exit 9");
      driver.close();
      await waitFor(() => !isRunning(pid));
      driver = await open(folder);
      const adopted = await driver.adopt("shop-web-r1-aaaaa");
      expect(await adopted?.exited).toMatchObject({ code: 9 });
      expect(await driver.adopt("shop-web-r1-aaaaa")).toBeUndefined();
    });

    test("what was never started is not adopted", async () => {
      await driver.prepare(request());
      expect(await driver.adopt("shop-web-r1-aaaaa")).toBeUndefined();
      expect(await driver.adopt("shop-web-r1-zzzzz")).toBeUndefined();
    });

    test("it can be reached at its address", async () => {
      const { prepared } = await begin(`exec "$NODE" -e '${LISTEN}'`, { port: 8080 });
      const { host, port } = prepared.address ?? { host: "", port: 0 };
      await waitFor(() => canConnect(host, port));
      const listeners = await driver.listeners("shop-web-r1-aaaaa");
      expect(listeners).toEqual([{ host: prepared.bindHost, port }]);
    });

    test("prepare again keeps the address", async () => {
      const first = await driver.prepare(request({ port: 8080 }));
      expect(await driver.prepare(request({ port: 8080 }))).toEqual(first);
      await restartExecutor();
      expect(await driver.prepare(request({ port: 8080 }))).toEqual(first);
    });

    test("a volume outlives the instance", async () => {
      const first = await begin('echo kept > "$VOLUME/file"', { volume: "shop-db" });
      expect(await first.exited).toMatchObject({ code: 0 });
      await driver.remove("shop-web-r1-aaaaa");
      const second = await begin('cat "$VOLUME/file"', {
        instanceId: "shop-web-r1-bbbbb",
        volume: "shop-db",
      });
      expect(await second.exited).toMatchObject({ code: 0 });
      expect(readFileSync(second.prepared.spools.stdout, "utf8")).toBe("kept\n");
    });

    test("exec runs beside the instance and its abort ends it", async () => {
      const { prepared } = await begin("exec sleep 68");
      let output = "";
      const run = (command: readonly string[], signal?: AbortSignal) =>
        driver.exec({
          ...startRequest("", "shop-web-r1-aaaaa", prepared),
          command,
          stdin: Buffer.from("typed"),
          onOutput: (_stream, bytes) => (output += bytes.toString()),
          signal,
        });
      expect(await run(["sh", "-c", "cat; exit 4"])).toBe(4);
      expect(output).toBe("typed");
      const abort = new AbortController();
      const hanging = run(["sh", "-c", "sleep 69 & wait"], abort.signal);
      abort.abort();
      expect(await hanging).toBe(137);
    });

    test("remove leaves nothing, and twice is as good as once", async () => {
      const { pid } = await begin("exec sleep 70", { port: 8080 });
      await driver.remove("shop-web-r1-aaaaa");
      await driver.remove("shop-web-r1-aaaaa");
      expect(isRunning(pid)).toBe(false);
      expect(await driver.list()).toEqual([]);
      expect(driver.prepared("shop-web-r1-aaaaa")).toBeUndefined();
    });

    test("an id that names another folder is refused", async () => {
      await expect(driver.prepare(request({ instanceId: "../../etc" }))).rejects.toThrow(
        "cannot be an instance id",
      );
    });
  });
}

/** Listens where it is told and answers every connection by closing it. */
const LISTEN = 'require("net").createServer((s)=>s.end()).listen(process.env.PORT,process.env.HOST)';

function makeStartRequest(command: string, instanceId: string, prepared: Prepared, { node, image }: Inside) {
  const environment: Record<string, string> = {
    PATH: "/usr/bin:/bin",
    HOME: prepared.home,
    GREETING: "hello",
    ...(prepared.address === undefined
      ? {}
      : { PORT: String(prepared.address.port), HOST: prepared.bindHost, NODE: node }),
    ...(prepared.volume === undefined ? {} : { VOLUME: prepared.volume }),
  };
  return { instanceId, folder: "/", image, command, environment };
}

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** Processes that still listen to the instance's end: none can be, once kill or the exit has been told. */
async function countProcesses(
  driver: Driver,
  startRequest: (command: string, instanceId: string, prepared: Prepared) => StartRequest,
): Promise<number> {
  let output = "";
  const prepared = driver.prepared("shop-web-r1-aaaaa");
  if (prepared === undefined) return 0;
  await driver.exec({
    ...startRequest("", "shop-web-r1-aaaaa", prepared),
    command: ["sh", "-c", "ps -eo user,args | grep '[s]leep 6[1-4]' | wc -l"],
    onOutput: (_stream, bytes) => (output += bytes.toString()),
  });
  return Number(output);
}

function canConnect(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 500 }, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
    socket.on("timeout", () => {
      socket.destroy();
      resolve(false);
    });
  });
}

/** Polls until true; fails by name of the last error after ten seconds. */
async function waitFor(condition: () => boolean | Promise<boolean>): Promise<void> {
  await expect.poll(condition, { timeout: 10_000, interval: 20 }).toBe(true);
}
