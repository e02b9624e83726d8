import net from "node:net";
import { expect, test } from "vitest";
import { checkHealth, type CheckFacts } from "./health.ts";

const V2 = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

test.for([
  {
    proxyProtocol: "v1",
    health: { kind: "http", path: "/up" },
    sent: "PROXY UNKNOWN\r\nGET /up HTTP/1.1\r\n",
  },
  { proxyProtocol: "v2", health: { kind: "http", path: "/up" }, sent: `${V2}GET /up HTTP/1.1\r\n` },
  { proxyProtocol: "v2", health: { kind: "tcp" }, sent: V2 },
  { proxyProtocol: undefined, health: { kind: "http", path: "/up" }, sent: "GET /up HTTP/1.1\r\n" },
] as const)("$health.kind, $proxyProtocol: what is sent first", async ({ proxyProtocol, health, sent }) => {
  const received = Promise.withResolvers<string>();
  const server = net.createServer((socket) => {
    let text = "";
    socket.on("data", (bytes: Buffer) => {
      text += bytes.toString("latin1");
      if (text.includes("GET")) socket.end("HTTP/1.1 204 No Content\r\n\r\n");
    });
    socket.on("end", () => received.resolve(text));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  const driver = {
    prepared: () => ({ address: { host: "127.0.0.1", port }, bindHost: "127.0.0.1" }),
    listeners: async () => [],
    exec: async () => 0,
  } as unknown as CheckFacts["driver"];
  const facts = { instanceId: "w1", driver, folder: "/", environment: {}, timeoutMs: 5_000 };
  expect(await checkHealth({ ...facts, health, proxyProtocol })).toEqual({ ok: true, detail: "" });
  expect((await received.promise).slice(0, sent.length)).toBe(sent);
  await new Promise((resolve) => server.close(resolve));
});
