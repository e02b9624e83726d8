import net from "node:net";
import type { Load } from "./generators.ts";

/**
 * node websocket-clients.ts PORT CONNECTIONS SECONDS: upgrades every connection and prints how many; after a line on
 * standard input keeps one message under way on each, and prints one JSON object. A message is a masked text frame of 32 bytes and comes back as it was sent.
 */
const [port, connections, seconds] = process.argv.slice(2).map(Number) as [number, number, number];

const HANDSHAKE = [
  "GET /echo HTTP/1.1",
  "Host: 127.0.0.1",
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  "\r\n",
].join("\r\n");
/** RFC 6455 5.2: FIN and text, masked with zeros, 32 bytes. */
const MESSAGE = Buffer.concat([Buffer.from([0x81, 0x80 | 32, 0, 0, 0, 0]), Buffer.alloc(32, "m")]);
const HANDSHAKES_AT_ONCE = 50;

let echoes = 0;
let failures = 0;
let ended = false;

/** Resolves when the connection is upgraded, or has failed. */
function open(): Promise<net.Socket> {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: "127.0.0.1", noDelay: true });
    let head = "";
    let upgraded = false;
    let missing = MESSAGE.length;
    socket.on("connect", () => socket.write(HANDSHAKE));
    socket.on("data", (bytes: Buffer) => {
      if (!upgraded) {
        head += bytes.toString("latin1");
        if (!head.includes("\r\n\r\n")) return;
        upgraded = true;
        if (!head.startsWith("HTTP/1.1 101")) socket.destroy();
        return resolve(socket);
      }
      missing -= bytes.length;
      if (missing > 0) return;
      if (missing < 0) failures += 1;
      missing = MESSAGE.length;
      echoes += 1;
      socket.write(MESSAGE);
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      if (!ended) failures += 1;
      resolve(socket);
    });
  });
}

const sockets: net.Socket[] = [];
while (sockets.length < connections) {
  const batch = Math.min(HANDSHAKES_AT_ONCE, connections - sockets.length);
  sockets.push(...(await Promise.all(Array.from({ length: batch }, open))));
}
process.stdout.write(`${sockets.length}\n`);
await new Promise((resolve) => process.stdin.once("data", resolve));
const startedMs = performance.now();
for (const socket of sockets) socket.write(MESSAGE);
setTimeout(() => {
  ended = true;
  const result: Load = {
    requests: echoes,
    perSecond: (echoes / (performance.now() - startedMs)) * 1_000,
    failures,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}, seconds * 1_000);
