import { createServer, type AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { choosePorts, holderOf } from "./ports.ts";

const ALL_FREE = { edge: 0, control: 0, executor: 0, sidecar: 0, edgeAdmin: 0 };

async function listening() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  return { server, port: (server.address() as AddressInfo).port };
}

test("0 gives free ports, each another one", async () => {
  const ports = await choosePorts(ALL_FREE, undefined, "127.0.0.1");
  expect(new Set(Object.values(ports)).size).toBe(5);
});

test("a taken port is refused with its holder and the flag, before anything is changed", async () => {
  const { server, port } = await listening();
  await expect(choosePorts({ ...ALL_FREE, control: port }, undefined, "127.0.0.1")).rejects.toMatchObject({
    code: "port_taken",
    problems: [
      expect.stringMatching(
        new RegExp(`^port ${port} is taken by .+ \\(process ${process.pid}\\).*--control-port$`),
      ),
    ],
  });
  server.close();
});

test("ports of an earlier start are kept unless others are asked for", async () => {
  const before = await choosePorts(ALL_FREE, undefined, "127.0.0.1");
  expect(await choosePorts({}, before, "127.0.0.1")).toEqual(before);
  const moved = await choosePorts({ edge: 0 }, before, "127.0.0.1");
  expect(moved).toEqual({ ...before, edge: moved.edge });
});

test("nobody holds a port that nobody listens on", async () => {
  const { server, port } = await listening();
  expect(holderOf(port)).toContain(`(process ${process.pid})`);
  await new Promise((resolve) => server.close(resolve));
  expect(holderOf(port)).toBeUndefined();
});
