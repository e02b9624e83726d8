import { createHash } from "node:crypto";
import net from "node:net";
import { expect, test } from "vitest";
import { createMetrics } from "../../base/metrics.ts";
import { seededRandom } from "../../base/random.ts";
import { LOCAL, cluster, get, rawServer, rig, until } from "./kit.ts";

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

/** Clients in all, in each run; `ABORT_RUNS=1000000 SEED=7` for the long one. */
const ABORT_RUNS = Number(process.env["ABORT_RUNS"] ?? 1_500);
const SEEDS = process.env["SEED"] === undefined ? [1, 2] : [Number(process.env["SEED"])];

test.for(SEEDS)(
  "nothing is left of thousands of requests with random aborts on both sides (SEED=%i)",
  { timeout: Math.max(30_000, ABORT_RUNS * 20) },
  async (seed) => {
    const random = seededRandom(seed);
    let open = 0;
    const server = net.createServer((socket) => {
      open += 1;
      socket.on("close", () => {
        open -= 1;
      });
      socket.on("error", () => undefined);
      socket.on("data", () => answerAtRandom(socket, random));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as net.AddressInfo;
    const policy = {
      outlier: { ejectedPercentMax: 0 },
      responseTimeoutMs: 300,
      streamIdleTimeoutMs: 300,
      connectionsPerEndpointMax: 20,
      inFlightMax: 30,
      hedge: { delayMs: 2 },
    };
    const edge = await rig([], {
      clusters: [cluster("web.shop", [port, port], { policy })],
      limits: {
        upstreamIdleTimeoutMs: 200,
        downstreamIdleTimeoutMs: 300,
        lingerTimeoutMs: 100,
        pendingTimeoutMs: 300,
        bodyStallTimeoutMs: 300,
      },
    });
    const worker = async (): Promise<void> => {
      for (let count = 0; count < ABORT_RUNS / 30; count += 1) await abuse(edge.port, random);
    };
    await Promise.all(Array.from({ length: 30 }, worker));
    const metrics = createMetrics("test", { defaults: false });
    edge.engine.registerMetrics(metrics);
    const zeros = [
      'gilliam_in_flight{part="test"} 0',
      'gilliam_waiting{part="test"} 0',
      'gilliam_connections{side="downstream",part="test"} 0',
      'gilliam_connections{side="upstream",part="test"} 0',
      'gilliam_deadlines{part="test"} 0',
      'gilliam_faults_total{part="test"} 0',
    ];
    let text = "";
    for (const deadline = AbortSignal.timeout(8_000); !deadline.aborted;) {
      text = await metrics.metrics();
      if (zeros.every((line) => text.includes(line))) break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(zeros.filter((line) => !text.includes(line))).toEqual([]);
    expect(edge.engine.report().busy).toEqual({});
    await until(() => open === 0, "the end of every connection upstream");
    await edge[Symbol.asyncDispose]();
    await new Promise((resolve) => server.close(resolve));
  },
);

/** Right, wrong, late, or not at all. */
function answerAtRandom(socket: net.Socket, random: () => number): void {
  const dice = random();
  if (dice < 0.05) socket.destroy();
  else if (dice < 0.1) socket.resetAndDestroy();
  else if (dice < 0.15) socket.end("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort");
  else if (dice < 0.2) socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnever\r\n");
  else if (dice < 0.25) socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nf\r\nstalled");
  else if (dice < 0.35)
    socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  else if (dice < 0.45) setTimeout(() => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate"), 3);
  else socket.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine");
}

const ABUSES = [
  get(),
  get() + get() + get(),
  "GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n",
  "GET / HTTP/1.1\r\nHost: sh",
  "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello",
  "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 50\r\n\r\nhello",
  "PUT / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
  "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz",
  "\u0000\u0001\u0002",
];

/** One client that sends a few things and leaves, one way or another. */
function abuse(port: number, random: () => number): Promise<void> {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    let turns = Math.ceil(random() * 4);
    const turn = (): void => {
      turns -= 1;
      if (socket.destroyed) return;
      if (turns < 0) {
        if (random() < 0.5) socket.destroy();
        else socket.resetAndDestroy();
        return;
      }
      socket.write(ABUSES[Math.floor(random() * ABUSES.length)]!);
      if (random() < 0.3) socket.end();
      setTimeout(turn, random() * 6);
    };
    socket.on("error", () => undefined);
    socket.on("data", () => undefined);
    socket.on("close", () => resolve());
    socket.once("connect", turn);
  });
}
