import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { LABELS } from "../../executor/drivers/docker/container-options.ts";
import { DockerDriver } from "../../executor/drivers/docker/docker-driver.ts";
import { Engine } from "../../executor/drivers/docker/engine.ts";
import { mustRun } from "../../executor/drivers/process/command.ts";
import type { PrepareRequest } from "../../executor/driver.ts";
import { type TestEngine, startTestEngine } from "../tools/docker.ts";

/** What only containers can suffer: faults of the engine, and attempts to get out. */
describe.skipIf(process.getuid?.() !== 0)("with a Docker Engine", () => {
  const id = "shop-web-r1-aaaaa";
  let docker: TestEngine;
  let folder = "";
  let driver: DockerDriver;
  const open = (engine = docker.engine) =>
    DockerDriver.open({
      stateFolder: folder,
      engine,
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      spareNetworks: 0,
    });
  beforeAll(async () => {
    docker = await startTestEngine();
  }, 120_000);
  afterAll(() => docker.remove(), 60_000);
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "docker-faults-"));
    chmodSync(folder, 0o711);
    driver = await open();
  });
  afterEach(async () => {
    for (const one of await driver.list()) await driver.remove(one);
    await driver.dismantle();
    driver.close();
    rmSync(folder, { recursive: true });
  });

  const begin = async (command: string, overrides: Partial<PrepareRequest> = {}, image = docker.base) => {
    const prepared = await driver.prepare({
      instanceId: id,
      network: "own",
      port: 8080,
      volume: undefined,
      privileges: "none",
      resources: {},
      container: { needs: {}, hosts: ["api"], imageHealthCheck: false },
      ...overrides,
    });
    const environment = { PATH: "/usr/local/bin:/usr/bin:/bin", HOME: prepared.home };
    const running = await driver.start({ instanceId: id, folder: "/", image, command, environment });
    return { prepared, ...running };
  };
  const outputOf = ({ prepared }: { prepared: { spools: { stdout: string } } }) =>
    readFileSync(prepared.spools.stdout, "utf8");
  const containers = async () =>
    (await docker.engine.list({ [LABELS.instance]: id, [LABELS.part]: "app" })).map(({ name }) => name);

  test("an engine restarted with live restore changes nothing: same process, no line lost or doubled", async () => {
    const running = await begin(
      "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exec sleep 60",
    );
    await docker.stop("SIGKILL");
    await docker.start();
    await expect.poll(() => outputOf(running), { timeout: 20_000 }).toContain("line 399\n");
    expect(outputOf(running)).toBe(Array.from({ length: 400 }, (_, line) => `line ${line}\n`).join(""));
    expect(readFileSync(`/proc/${running.pid}/cmdline`, "utf8")).toContain("sleep 60");
    expect(await containers()).toEqual([`${driver.owner}-${id}`]);
  });

  test("the end of an instance that fell together with the engine is learnt when it is back", async () => {
    const { pid, exited } = await begin("exec sleep 61");
    await docker.stop("SIGKILL");
    process.kill(pid, "SIGKILL");
    await docker.start();
    expect(await exited).toMatchObject({ outOfMemory: false });
    expect(await driver.adopt(id)).toBeUndefined();
  });

  test("an engine that hangs is named by each call within its limit, and nothing is thought dead", async () => {
    const engine = new Engine({ socketPath: docker.socketPath, limits: { lookMs: 300, changeMs: 300 } });
    const { pid } = await begin("exec sleep 62");
    docker.signal("SIGSTOP");
    try {
      await expect(engine.inspect("anything")).rejects.toMatchObject({ code: "engine_silent" });
      await expect(engine.kill("anything", "SIGTERM")).rejects.toMatchObject({ code: "engine_silent" });
      expect(readFileSync(`/proc/${pid}/cmdline`, "utf8")).toContain("sleep 62");
    } finally {
      docker.signal("SIGCONT");
    }
    expect((await engine.inspect(id)) === undefined).toBe(true); // It answers again.
  });

  test("an executor that dies between two starts leaves no twin", async () => {
    const first = await begin("exec sleep 63");
    driver.close();
    driver = await open();
    await begin("exec sleep 64");
    expect(await containers()).toHaveLength(1);
    expect(() => process.kill(first.pid, 0)).toThrow("ESRCH");
  });

  test("out of memory is seen and named", async () => {
    const { exited } = await begin(`exec node -e 'const a=[];for(;;)a.push(Buffer.alloc(1<<20,1))'`, {
      resources: { memoryBytes: 64 * 1024 * 1024 },
    });
    expect(await exited).toMatchObject({ outOfMemory: true });
  });

  test("a missing image fails at once, with its name", async () => {
    await expect(begin("true", {}, "nobody/nothing:1")).rejects.toMatchObject({
      code: "image_missing",
      message: expect.stringContaining("nobody/nothing:1") as string,
    });
  });

  test("a container of the same name that is not ours is left alone, and named", async () => {
    const name = `${driver.owner}-${id}`;
    const foreign = await docker.engine.create(name, { Image: docker.base });
    await expect(begin("true")).rejects.toMatchObject({ code: "name_taken" });
    expect(await docker.engine.inspect(foreign)).toBeDefined();
    await docker.engine.remove(foreign);
  });

  test("a new executor goes on in the log where the old one was, and doubles nothing", async () => {
    const running = await begin("for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.1; done; exec sleep 60");
    for (let turn = 0; turn < 3; turn += 1) {
      const seen = outputOf(running);
      await expect.poll(() => outputOf(running), { timeout: 10_000 }).not.toBe(seen);
      driver.close();
      driver = await open();
      await driver.adopt(id);
    }
    await expect.poll(() => outputOf(running), { timeout: 10_000 }).toContain("9");
    expect(outputOf(running)).toBe("1\n2\n3\n4\n5\n6\n7\n8\n9\n");
  });

  test("nothing of the host, of a neighbour or of the world can be reached; declared names are its own localhost", async () => {
    const neighbour = "shop-api-r1-bbbbb";
    const there = await driver.prepare({
      instanceId: neighbour,
      network: "own",
      port: 8081,
      volume: undefined,
      privileges: "none",
      resources: {},
      container: { needs: {}, hosts: [], imageHealthCheck: false },
    });
    await driver.start({
      instanceId: neighbour,
      folder: "/",
      image: docker.base,
      command: "exec node -e 'require(`net`).createServer(s=>s.end()).listen(8081)'",
      environment: { PATH: "/usr/local/bin" },
    });
    await using host = await listenEverywhere();
    const targets = [
      ...host.addresses.map((address) => ({ host: address, port: host.port })),
      { host: there.address?.host, port: 8081 },
      { host: "169.254.169.254", port: 80 },
      { host: "192.0.2.1", port: 80 },
      { host: "::1", port: host.port },
      { host: "fe80::1", port: host.port },
    ];
    const running = await begin(`exec node -e '${ESCAPE}' '${JSON.stringify(targets)}'`);
    await running.exited;
    const found = JSON.parse(outputOf(running)) as Record<string, unknown>;
    expect(found).toEqual({
      connected: [],
      sentFromOwnPort: [],
      datagrams: 0,
      resolved: { api: "127.0.0.1", "example.com": "refused", "a.secret.example.com": "refused" },
      sockets: [],
      writable: ["/home/gilliam", "/tmp"],
      capabilities: "0000000000000000",
      newPrivileges: "1",
      seccomp: "2",
      isRoot: false,
    });
    expect(host.heard).toBe(0);
  });

  test("an instance whose link is gone cannot be reached, and gets a new one when it is prepared again", async () => {
    const { prepared } = await begin("exec node -e 'require(`net`).createServer(s=>s.end()).listen(8080)'");
    const link = prepared.namespace?.split("/").at(-1) ?? "";
    const reach = () => mustRun(["bash", "-c", `exec 3<>/dev/tcp/${prepared.address?.host}/8080`]);
    await expect
      .poll(
        () =>
          reach().then(
            () => true,
            () => false,
          ),
        { timeout: 10_000 },
      )
      .toBe(true);
    await mustRun(["ip", "link", "delete", link]);
    await expect(reach()).rejects.toThrow();
    await begin("exec node -e 'require(`net`).createServer(s=>s.end()).listen(8080)'");
    await expect
      .poll(
        () =>
          reach().then(
            () => true,
            () => false,
          ),
        { timeout: 10_000 },
      )
      .toBe(true);
  });
});

/** Tries every way out that a program has, and says what came of it. */
const ESCAPE = `
const net = require("net"), dns = require("dns"), dgram = require("dgram"), fs = require("fs");
const targets = JSON.parse(process.argv[1]);
const connect = (to, localPort) => new Promise((resolve) => {
  const socket = net.connect({ ...to, localPort, timeout: 700 }, () => { socket.destroy(); resolve(true); });
  socket.on("error", () => resolve(false));
  socket.on("timeout", () => { socket.destroy(); resolve(false); });
});
const lookup = (name) => new Promise((resolve) => dns.lookup(name, { family: 4 }, (e, a) => resolve(e ? "refused" : a)));
const canWrite = (path) => { try { fs.writeFileSync(path + "/probe", "x"); fs.unlinkSync(path + "/probe"); return true; } catch { return false; } };
(async () => {
  const connected = [], sentFromOwnPort = [];
  for (const to of targets) if (await connect(to)) connected.push(to);
  for (const to of targets) if (await connect(to, 8080)) sentFromOwnPort.push(to);
  let datagrams = 0;
  for (const { host, port } of targets.filter(({ host }) => !host.includes(":"))) {
    const socket = dgram.createSocket("udp4");
    await new Promise((resolve) => socket.send("x", port, host, (error) => { if (!error) datagrams += 1; socket.close(resolve); }));
  }
  const resolved = {};
  for (const name of ["api", "example.com", "a.secret.example.com"]) resolved[name] = await lookup(name);
  const status = fs.readFileSync("/proc/self/status", "utf8");
  const field = (name) => new RegExp("^" + name + ":\\\\s+(\\\\S+)", "m").exec(status)[1];
  console.log(JSON.stringify({
    connected, sentFromOwnPort, datagrams, resolved,
    sockets: ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"].filter((p) => fs.existsSync(p)),
    writable: ["/", "/etc", "/usr", "/var", "/root", "/proc/sys", "/sys", "/home/gilliam", "/tmp"].filter(canWrite),
    capabilities: field("CapEff"), newPrivileges: field("NoNewPrivs"), seccomp: field("Seccomp"),
    isRoot: process.getuid() === 0,
  }));
})();
`.replaceAll("'", "`");

/** A server on every address of this machine, that counts whoever gets through. */
async function listenEverywhere() {
  let heard = 0;
  const server: Server = createServer((socket) => {
    heard += 1;
    socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, "0.0.0.0", resolve));
  const addresses = Object.values(networkInterfaces()).flatMap((list = []) =>
    list.filter(({ family, internal }) => family === "IPv4" && !internal).map(({ address }) => address),
  );
  return {
    port: (server.address() as { port: number }).port,
    addresses,
    get heard() {
      return heard;
    },
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => void server.close(() => resolve())),
  };
}
