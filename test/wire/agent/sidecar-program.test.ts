import { execFileSync, spawn } from "node:child_process";
import { chownSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { LocalPortsAnswer, LocalPortsList, type LocalPortsRequest } from "../../../model/local-ports.ts";
import { Cluster, type MeshConfig } from "../../../model/mesh.ts";
import { type ControlDouble, startControlDouble } from "./control-double.ts";
import { type Program, ask, endPrograms, get, longestOutage, memoryOf, startProgram } from "./program.ts";

const isRoot = process.getuid?.() === 0;
if (!isRoot) console.log("skipped: local ports inside network namespaces need root (CAP_SYS_ADMIN)");

/** The uid platform parts run under when the executor starts them as root. */
const PLATFORM_UID = 199_999;
const namespace = `agwire-${process.pid}`;
const namespacePath = `/run/netns/${namespace}`;

let folder = "";
let control: ControlDouble;
let upstream: http.Server;
let hasNamespace = false;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "sidecar-"));
  control = await startControlDouble();
  upstream = http.createServer((_, response) => response.end("from the api"));
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
});
afterEach(async () => {
  await endPrograms();
  await control.stop();
  upstream.close();
  upstream.closeAllConnections();
  if (hasNamespace) execFileSync("ip", ["netns", "del", namespace]);
  hasNamespace = false;
  rmSync(folder, { recursive: true });
}, 60_000);

function mesh(epoch: number, cluster = "api.shop"): MeshConfig {
  const { port } = upstream.address() as AddressInfo;
  const endpoints = [{ id: "shop-api-r1-abcde", host: "127.0.0.1", port, release: 1 }];
  return {
    epoch,
    clusters: [Cluster.parse({ name: cluster, protocol: "http", endpoints })],
    edges: [
      { id: "web.shop/api", from: "web.shop", dependency: "api", port: 7001, protocol: "http", cluster },
    ],
    routes: [],
  };
}

const settings = () => ({
  GILLIAM_STATE: folder,
  GILLIAM_CONTROL_URL: control.url,
  GILLIAM_HOST_TOKEN: control.token,
  GILLIAM_HOST_ID: "host-1",
  GILLIAM_INSTANCE: "gilliam-sidecar-1",
  GILLIAM_SIDECAR_ADMIN: "127.0.0.1:0",
});

const startSidecar = (): Program => startProgram("sidecar/main.ts", settings());

/** As the executor starts it: another uid, and of all capabilities only CAP_SYS_ADMIN. */
function startConfined(): Program {
  chownSync(folder, PLATFORM_UID, PLATFORM_UID);
  const caps = [
    "--inh-caps=-all,+sys_admin",
    "--ambient-caps=-all,+sys_admin",
    "--bounding-set=-all,+sys_admin",
  ];
  const ids = [`--reuid=${PLATFORM_UID}`, `--regid=${PLATFORM_UID}`, "--clear-groups"];
  return startProgram("sidecar/main.ts", { ...settings(), NODE_COMPILE_CACHE: join(folder, "cache") }, [
    "setpriv",
    ...ids,
    ...caps,
    "--no-new-privs",
  ]);
}

const request: LocalPortsRequest = {
  instanceId: "shop-web-r1-abcde",
  formation: "shop",
  service: "web",
  release: 1,
  namespace: null,
  ports: [{ dependency: "api", port: 7001, protocol: "http" }],
};

const socketPath = () => join(folder, "run/sidecar.sock");
const call = (method: string, path: string, body?: unknown) =>
  ask({
    socketPath: socketPath(),
    method,
    path,
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });

async function put(body: LocalPortsRequest): Promise<LocalPortsAnswer> {
  const answer = await call("PUT", `/v1/instances/${body.instanceId}`, body);
  expect(answer, answer.body).toMatchObject({ status: 200 });
  return LocalPortsAnswer.parse(JSON.parse(answer.body));
}

/** Fetches from inside the namespace, by the name a program there would use. */
async function getInside(host: string): Promise<string> {
  const script = `require("http").get("http://${host}:7001/", { agent: false }, (r) => r.pipe(process.stdout)).on("error", (e) => console.log(e.code))`;
  const child = spawn("nsenter", [`--net=${namespacePath}`, process.execPath, "-e", script]);
  return text(child.stdout);
}

const reported = (epoch: number) =>
  vi.waitFor(() => expect(control.reports.at(-1)?.epoch).toBe(epoch), { timeout: 30_000, interval: 20 });

test("on a shared loopback: PUT opens, again the same, GET lists, DELETE closes", async () => {
  control.config = mesh(2);
  const sidecar = startSidecar();
  await sidecar.waitForLog("the sidecar is ready");
  expect(statSync(socketPath()).mode & 0o777).toBe(0o600);
  const answer = await put(request);
  await reported(2);
  const port = answer.ports[0]!.port;
  expect(await get(`127.0.0.1:${port}`)).toMatchObject({ status: 200, body: "from the api" });
  expect(await put(request)).toEqual(answer);
  const list = LocalPortsList.parse(JSON.parse((await call("GET", "/v1/instances")).body));
  expect(list.instances).toEqual([
    { ...answer, formation: "shop", service: "web", release: 1, namespace: null, state: "open", reason: "" },
  ]);
  const page = await get(sidecar.address("admin"), "/instances");
  const { listeners } = JSON.parse(page.body) as { listeners: unknown[] };
  expect(listeners[0]).toMatchObject({ dependency: "api", cluster: "api.shop", declared: true });
  expect((await call("DELETE", `/v1/instances/${request.instanceId}`)).body).toBe('{"closed":true}');
  await expect(get(`127.0.0.1:${port}`)).rejects.toThrow("ECONNREFUSED");
  expect((await call("DELETE", `/v1/instances/${request.instanceId}`)).body).toBe('{"closed":false}');
}, 90_000);

test("an edge that leads to another cluster than its name moves the open port there", async () => {
  const sidecar = startSidecar();
  await sidecar.waitForLog("the sidecar is ready");
  const { ports } = await put(request);
  control.send({ kind: "config", config: mesh(2, "egress.api") });
  await reported(2);
  await vi.waitFor(
    async () => expect(await get(`127.0.0.1:${ports[0]!.port}`)).toMatchObject({ status: 200 }),
    {
      timeout: 5_000,
    },
  );
}, 90_000);

test("kill -9 of the worker and of the keeper while control is away: same ports, and with the keeper nobody is refused", async () => {
  control.config = mesh(2);
  const sidecar = startSidecar();
  await sidecar.waitForLog("the sidecar is ready");
  const { ports } = await put(request);
  await reported(2);
  await sidecar.warmUp();
  await control.stop();
  const fetchApi = () =>
    get(`127.0.0.1:${ports[0]!.port}`).then(
      ({ status }) => status === 200,
      () => false,
    );
  const worker = await longestOutage(fetchApi, async () => {
    process.kill(sidecar.workerPid(), "SIGKILL");
    await sidecar.waitForLog("worker serves", 3);
  });
  const refused: string[] = [];
  const keeper = await longestOutage(
    () =>
      fetchApi().then((good) => {
        if (!good) refused.push("after kill -9 of the keeper");
        return good;
      }),
    async () => {
      sidecar.child.kill("SIGKILL");
      const next = startSidecar();
      await next.waitForLog("the sidecar is ready");
      await next.waitForLog("worker serves");
    },
  );
  expect(refused).toEqual([]); // Its worker goes on, and the next keeper takes over its sockets.
  console.log(`longest outage after kill -9 of the worker: ${worker} ms, of the keeper: ${keeper} ms`);
}, 90_000);

test("requests nobody understands get a problem that says so", async () => {
  const sidecar = startSidecar();
  await sidecar.waitForLog("the sidecar is ready");
  const path = `/v1/instances/${request.instanceId}`;
  const wrong = await call("PUT", path, { ...request, ports: [{ dependency: "api", port: 0 }] });
  expect(wrong).toMatchObject({ status: 400, headers: { "content-type": "application/problem+json" } });
  expect(JSON.parse(wrong.body)).toMatchObject({
    code: "bad_request",
    problems: expect.any(Array) as unknown,
  });
  expect(await call("PUT", path, "{")).toMatchObject({ status: 400 });
  expect(await call("PUT", "/v1/instances/other", request)).toMatchObject({ status: 400 });
  expect(await call("PUT", path, "x".repeat(300_000)).catch(() => ({ status: 413 }))).toMatchObject({
    status: 413,
  });
  expect(await call("POST", path)).toMatchObject({ status: 404 });
  const gone = await call("PUT", path, { ...request, namespace: "/run/netns/agwire-nowhere" });
  expect(gone.status).toBe(409);
  expect(JSON.parse(gone.body)).toMatchObject({ code: "namespace_failed" });
}, 90_000);

test.runIf(isRoot)(
  "inside a namespace, confined as the executor confines it, and through kill -9",
  async () => {
    execFileSync("ip", ["netns", "add", namespace]);
    hasNamespace = true;
    execFileSync("ip", ["-n", namespace, "link", "set", "lo", "up"]);
    control.config = mesh(2);
    const sidecar = startConfined();
    await sidecar.waitForLog("the sidecar is ready");
    const answer = await put({ ...request, namespace: namespacePath });
    expect(answer.ports).toEqual([{ dependency: "api", host: "127.0.0.1", port: 7001 }]);
    await reported(2);
    expect(await getInside("127.0.0.1")).toBe("from the api");
    expect(await getInside("[::1]")).toBe("from the api");
    const status = (pid: number, name: string) =>
      new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    expect(status(sidecar.child.pid ?? 0, "CapEff")).toBe("0000000000200000");
    expect(status(sidecar.workerPid(), "CapEff")).toBe("0000000000000000");
    expect(status(sidecar.workerPid(), "CapPrm")).toBe("0000000000000000");
    expect(status(sidecar.workerPid(), "Uid")).toBe(String(PLATFORM_UID));
    process.kill(sidecar.workerPid(), "SIGKILL");
    expect(await getInside("localhost")).toBe("from the api");
    sidecar.child.kill("SIGKILL");
    const next = startConfined();
    await next.waitForLog("the sidecar is ready");
    expect(await getInside("localhost")).toBe("from the api");
    expect(await put({ ...request, namespace: namespacePath })).toEqual(answer);
    console.log(
      `sidecar: keeper ${JSON.stringify(memoryOf(next.child.pid ?? 0))}, worker ${JSON.stringify(memoryOf(next.workerPid()))}`,
    );
    next.child.kill("SIGTERM");
    expect(await next.exited).toBe(0);
    expect(await getInside("127.0.0.1")).toBe("ECONNREFUSED\n");
  },
  120_000,
);
