import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { Cluster } from "../../../model/mesh.ts";
import { startControlDouble } from "../agent/control-double.ts";
import { endPrograms, startProgram } from "../agent/program.ts";
import { RawClient, get, until } from "../kit.ts";

/** A process that runs out of descriptors, as its users run it. */

const folder = mkdtempSync(join(tmpdir(), "descriptors-"));
afterEach(async () => {
  await endPrograms();
  rmSync(folder, { recursive: true });
}, 60_000);

test("out of descriptors accepting pauses: nobody in service is hurt, and those in the queue are served later", async () => {
  const upstream = http.createServer((_, response) => response.end("from the shop")).listen(0, "127.0.0.1");
  await once(upstream, "listening");
  const control = await startControlDouble();
  control.config = {
    epoch: 3,
    clusters: [
      Cluster.parse({
        name: "web.shop",
        protocol: "http",
        endpoints: [
          { id: "i0", host: "127.0.0.1", port: (upstream.address() as AddressInfo).port, release: 1 },
        ],
      }),
    ],
    edges: [],
    routes: [{ id: "r", host: "shop.test", path: "/", cluster: "web.shop" }],
  };
  const settings = {
    GILLIAM_STATE: folder,
    GILLIAM_CONTROL_URL: control.url,
    GILLIAM_HOST_TOKEN: control.token,
    GILLIAM_HOST_ID: "host-1",
    GILLIAM_INSTANCE: "gilliam-edge-1",
    GILLIAM_EDGE_LISTEN: "127.0.0.1:0",
    GILLIAM_EDGE_ADMIN: "127.0.0.1:0",
    GILLIAM_LIMIT_LINGER_TIMEOUT_MS: "60000", // Those that were answered 503 keep their descriptors.
  };
  const edge = startProgram("proxy/main.ts", settings, ["prlimit", "--nofile=200:200"]);
  await edge.waitForLog("the edge is ready");
  const port = Number(edge.address("public").split(":").at(-1));
  const worker = edge.workerPid();
  await until(() => control.reports.at(-1)?.epoch === 3, "the configuration");

  await using first = await RawClient.connect(port);
  first.write(get("/1"));
  await first.untilText("from the shop");
  const flood = await Promise.all(Array.from({ length: 400 }, () => RawClient.connect(port)));
  for (const client of flood) client.write(get());
  await edge.waitForLog("too many sockets are open: accepting pauses");
  first.write(get("/2"));
  await first.until(({ text }) => text.split("from the shop").length === 3, "the second answer");
  await until(() => flood.some(({ text }) => text.includes("too_many_connections")), "a refusal");
  const queued = flood.filter(({ text, closed }) => text === "" && !closed);
  expect(queued.length).toBeGreaterThan(200);
  for (const { text } of flood) expect(text).not.toContain("sockets_exhausted");

  for (const client of flood) if (!queued.includes(client)) client.socket.destroy();
  await edge.waitForLog("accepting again");
  await queued[0]!.untilText("from the shop");
  for (const client of queued) client.socket.destroy();
  await until(() => queued.every(({ closed }) => closed), "the end of the flood");
  let answer = "";
  for (let tries = 0; !answer.includes("200 OK") && tries < 50; tries += 1) {
    await using late = await RawClient.connect(port);
    late.write(get("/late"));
    await late.until(({ text, ended, closed }) => text.includes("\r\n\r\n") || ended || closed, "an answer");
    answer = late.text;
  }
  expect(answer).toContain("from the shop");
  expect(edge.workerPid()).toBe(worker);
  expect(edge.child.exitCode).toBeNull();
  await control.stop();
  upstream.close();
  upstream.closeAllConnections();
}, 90_000);
