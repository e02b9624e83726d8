import { createHash } from "node:crypto";
import net from "node:net";
import { expect, test } from "vitest";
import { LOCAL, cluster, get, rawServer, rig } from "./kit.ts";

const MiB = 1024 * 1024;
const TOTAL = Number(process.env["BODY_MIB"] ?? 96) * MiB;
const PIECE = 65_536;

/** Piece number `index` of a body in which no two pieces are alike. */
function piece(index: number): Buffer {
  const bytes = Buffer.alloc(PIECE, `piece ${index}, `);
  bytes.writeUInt32BE(index, PIECE - 4);
  return bytes;
}

const EXPECTED = (() => {
  const hash = createHash("sha256");
  for (let index = 0; index < TOTAL / PIECE; index += 1) hash.update(piece(index));
  return hash.digest("hex");
})();

/** How much of the body its sender got rid of so far. */
interface Progress {
  bytes: number;
}

/** Writes the body as fast as the socket takes it; `frame` puts chunk framing around a piece. */
async function pour(
  socket: net.Socket,
  progress: Progress,
  frame = (bytes: Buffer): Buffer => bytes,
): Promise<void> {
  for (let index = 0; index < TOTAL / PIECE && !socket.destroyed; index += 1) {
    if (!socket.write(frame(piece(index)))) await new Promise((resolve) => socket.once("drain", resolve));
    progress.bytes += PIECE;
  }
}

const asChunk = (bytes: Buffer): Buffer =>
  Buffer.concat([Buffer.from("10000\r\n"), bytes, Buffer.from("\r\n")]);

/**
 * Reads nothing until the sender is stuck, and notes how much all the buffers on the way took until then; then
 * everything, as `decode` yields it.
 */
async function drink(
  socket: net.Socket,
  progress: Progress,
  decode: (bytes: Buffer) => Buffer[],
): Promise<{ digest: string; absorbed: number }> {
  socket.pause();
  for (let before = -1, same = 0; same < 10; before = progress.bytes) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    same = progress.bytes === before && progress.bytes > 0 ? same + 1 : 0;
  }
  const absorbed = progress.bytes;
  const hash = createHash("sha256");
  let received = 0;
  for await (const bytes of socket) {
    for (const part of decode(bytes as Buffer)) {
      hash.update(part);
      received += part.length;
    }
    if (received >= TOTAL) break;
  }
  return { digest: hash.digest("hex"), absorbed };
}

/** Takes the head off. */
function afterHead(): (bytes: Buffer) => Buffer[] {
  let head = "";
  return (bytes) => {
    if (head.includes("\r\n\r\n")) return [bytes];
    const before = head.length;
    head += bytes.toString("latin1");
    const end = head.indexOf("\r\n\r\n");
    return end < 0 ? [] : [bytes.subarray(Math.max(0, end + 4 - before))];
  };
}

/** Takes head and chunk framing off, trusting it. */
function afterChunks(): (bytes: Buffer) => Buffer[] {
  const body = afterHead();
  let missing = 0;
  let line = "";
  return (bytes) => {
    const parts: Buffer[] = [];
    for (const span of body(bytes)) {
      for (let at = 0; at < span.length;) {
        if (missing > 2) {
          const take = Math.min(missing - 2, span.length - at);
          parts.push(span.subarray(at, at + take));
          missing -= take;
          at += take;
        } else if (missing > 0) {
          missing -= 1;
          at += 1;
        } else {
          line += String.fromCharCode(span[at]!);
          at += 1;
          if (!line.endsWith("\r\n")) continue;
          missing = Number.parseInt(line, 16) + 2;
          line = "";
        }
      }
    }
    return parts;
  };
}

/** Two connections' worth of kernel buffers, with the kernel's default maxima; nothing to speak of is ours. */
const ABSORBED_MAX = 32 * MiB;

test.for([
  ["with a length", `HTTP/1.1 200 OK\r\ncontent-length: ${TOTAL}\r\n\r\n`, undefined, afterHead],
  ["in chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", asChunk, afterChunks],
  ["without a length", "HTTP/1.1 200 OK\r\n\r\n", undefined, afterChunks],
] as const)(
  "a big response %s waits for a client that does not read, and arrives whole",
  async ([, head, frame, decoder]) => {
    const progress = { bytes: 0 };
    await using server = await rawServer((socket) => {
      socket.once("data", () => {
        socket.write(head);
        void pour(socket, progress, frame);
      });
    });
    await using edge = await rig([server.port]);
    const client = net.connect(edge.port, "127.0.0.1");
    client.write(get());
    const { digest, absorbed } = await drink(client, progress, decoder());
    expect(absorbed).toBeLessThan(ABSORBED_MAX);
    expect(digest).toBe(EXPECTED);
  },
);

test.for([
  ["with a length", `Content-Length: ${TOTAL}\r\n`, undefined, afterHead],
  ["in chunks", "Transfer-Encoding: chunked\r\n", asChunk, afterChunks],
] as const)(
  "a big request %s waits for an upstream that does not read, and arrives whole",
  async ([, field, frame, decoder]) => {
    const progress = { bytes: 0 };
    const arrived = Promise.withResolvers<{ digest: string; absorbed: number }>();
    const server = net.createServer((socket) => {
      socket.on("error", () => undefined);
      drink(socket, progress, decoder()).then(arrived.resolve, arrived.reject);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    await using edge = await rig([(server.address() as net.AddressInfo).port]);
    const client = net.connect(edge.port, "127.0.0.1");
    client.on("error", () => undefined);
    client.write(`POST / HTTP/1.1\r\nHost: shop.test\r\n${field}\r\n`);
    void pour(client, progress, frame);
    const { digest, absorbed } = await arrived.promise;
    expect(absorbed).toBeLessThan(ABSORBED_MAX);
    expect(digest).toBe(EXPECTED);
    client.destroy();
    server.close();
  },
);

test("a TCP tunnel waits both ways, and carries everything", async () => {
  await using server = await rawServer((socket) => socket.pipe(socket));
  const tcp = cluster("api.shop", [server.port], { protocol: "tcp" });
  await using mesh = await rig([], { clusters: [tcp], routes: [], listener: { ...LOCAL, protocol: "tcp" } });
  const client = net.connect(mesh.port, "127.0.0.1");
  const progress = { bytes: 0 };
  void pour(client, progress);
  const { digest, absorbed } = await drink(client, progress, (bytes) => [bytes]);
  expect(absorbed).toBeLessThan(2 * ABSORBED_MAX); // There and back again.
  expect(digest).toBe(EXPECTED);
});
