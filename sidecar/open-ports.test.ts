import { execFile, execFileSync } from "node:child_process";
import net from "node:net";
import { promisify } from "node:util";
import { afterEach, expect, test } from "vitest";
import { systemClock } from "../base/clock.ts";
import { type BoundPort, openInNamespace, openOnLoopback } from "./open-ports.ts";

const isRoot = process.getuid?.() === 0;
if (!isRoot) console.log("skipped: entering network namespaces needs root (CAP_SYS_ADMIN)");

const name = `agtest-${process.pid}`;
const path = `/run/netns/${name}`;
const opened: BoundPort[] = [];
const keep = (ports: BoundPort[]) => {
  opened.push(...ports);
  return ports;
};
let hasNamespace = false;
afterEach(() => {
  for (const { handle } of opened.splice(0)) handle.close();
  if (hasNamespace) execFileSync("ip", ["netns", "del", name]);
  hasNamespace = false;
});

function addNamespace(): void {
  execFileSync("ip", ["netns", "add", name]);
  hasNamespace = true;
  execFileSync("ip", ["-n", name, "link", "set", "lo", "up"]);
}

const options = { clock: systemClock, environment: { PATH: process.env["PATH"] ?? "" } };
const tell = (ports: BoundPort[]) => ports.map(({ host, port }) => `${host} ${port}`);

test.runIf(isRoot)("sockets opened in a namespace serve its localhost, not the host's", async () => {
  addNamespace();
  const ports = keep(await openInNamespace(path, [7001, 7002], options));
  expect(tell(ports)).toEqual(["127.0.0.1 7001", "::1 7001", "127.0.0.1 7002", "::1 7002"]);
  const server = net.createServer((socket) => socket.end("hello")).listen(ports[2]?.handle);
  await new Promise((resolve) => server.once("listening", resolve));
  const script = 'require("net").connect(7002,"localhost").on("data",d=>console.log(String(d)))';
  const read = promisify(execFile)("nsenter", [`--net=${path}`, process.execPath, "-e", script]);
  expect((await read).stdout).toBe("hello\n");
  await expect(
    new Promise((resolve, reject) =>
      net.connect(7002, "127.0.0.1", () => resolve("connected")).on("error", reject),
    ),
  ).rejects.toThrow("ECONNREFUSED");
  server.close();
});

test.runIf(isRoot)("a missing namespace: the error names it", async () => {
  await expect(openInNamespace("/run/netns/agtest-nowhere", [7001], options)).rejects.toMatchObject({
    code: "namespace_failed",
    message: expect.stringContaining("No such file or directory") as string,
  });
});

test.runIf(isRoot)(
  "a port the instance itself listens on is told as taken, and the others are let go of",
  async () => {
    addNamespace();
    const [seven, eight] = keep(await openInNamespace(path, [7001], options));
    const server = net.createServer().listen(seven?.handle);
    await new Promise((resolve) => server.once("listening", resolve));
    eight?.handle.close();
    await expect(openInNamespace(path, [7000, 7001], options)).rejects.toMatchObject({ code: "port_taken" });
    keep(await openInNamespace(path, [7000], options));
    server.close();
  },
);

test("free ports of the shared loopback are one number on both addresses", () => {
  const ports = keep(openOnLoopback(undefined));
  expect(new Set(ports.map(({ port }) => port)).size).toBe(1);
  expect(ports.map(({ host }) => host)).toContain("127.0.0.1");
  for (const { handle } of opened.splice(0)) handle.close();
  const again = keep(openOnLoopback(ports[0]?.port));
  expect(again[0]?.port).toBe(ports[0]?.port);
});
