import net from "node:net";
import { expect, test } from "vitest";
import { createMetrics } from "../../base/metrics.ts";
import { seededRandom } from "../../base/random.ts";
import { LOCAL, cluster, get, rawServer, rig } from "./kit.ts";

const MiB = 1024 * 1024;

/** Bytes held by buffers and strings outside and inside the heap. */
function memoryBytes(): number {
  const { arrayBuffers, heapUsed } = process.memoryUsage();
  return arrayBuffers + heapUsed;
}

test("a response of 128 MiB to a slow client takes constant memory, and arrives whole", async () => {
  const total = 128 * MiB;
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${total}\r\n\r\n`);
      pour(socket, total);
    });
  });
  await using edge = await rig([server.port]);
  const before = memoryBytes();
  let highest = 0;
  let received = 0;
  const client = net.connect(edge.port, "127.0.0.1");
  client.write(get());
  for await (const bytes of client) {
    received += (bytes as Buffer).length;
    if (received < 8 * MiB) await new Promise((resolve) => setTimeout(resolve, 5));
    highest = Math.max(highest, memoryBytes());
    if (received > total) break;
  }
  expect(received).toBeGreaterThan(total);
  expect(highest - before).toBeLessThan(96 * MiB);
});

test("a request of 128 MiB in chunks to a slow upstream takes constant memory, and arrives whole", async () => {
  const total = 128 * MiB;
  let received = 0;
  const upstream = net.createServer((socket) => {
    socket.on("error", () => undefined);
    void (async () => {
      let tail = "";
      for await (const bytes of socket) {
        received += (bytes as Buffer).length;
        if (received < 8 * MiB) await new Promise((resolve) => setTimeout(resolve, 5));
        tail = (tail + (bytes as Buffer).toString("latin1", Math.max(0, (bytes as Buffer).length - 5))).slice(
          -5,
        );
        if (tail === "0\r\n\r\n") socket.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone");
      }
    })();
  });
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
  await using edge = await rig([(upstream.address() as net.AddressInfo).port]);
  const before = memoryBytes();
  let highest = 0;
  await using client = await edge.client();
  client.write("POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n");
  const chunk = Buffer.from(`10000\r\n${"x".repeat(65_536)}\r\n`);
  for (let sent = 0; sent < total; sent += 65_536) {
    if (!client.socket.write(chunk)) await new Promise((resolve) => client.socket.once("drain", resolve));
    highest = Math.max(highest, memoryBytes());
  }
  client.write("0\r\n\r\n");
  await client.untilText("done");
  expect(received).toBeGreaterThan(total);
  expect(highest - before).toBeLessThan(96 * MiB);
  await client[Symbol.asyncDispose]();
  upstream.close();
});

test("a TCP tunnel has backpressure both ways", async () => {
  const total = 64 * MiB;
  await using server = await rawServer((socket) => socket.pipe(socket));
  const tcp = cluster("api.shop", [server.port], { protocol: "tcp" });
  await using mesh = await rig([], { clusters: [tcp], routes: [], listener: { ...LOCAL, protocol: "tcp" } });
  const client = net.connect(mesh.port, "127.0.0.1");
  pour(client, total);
  let received = 0;
  for await (const bytes of client) {
    received += (bytes as Buffer).length;
    if (received < 4 * MiB) await new Promise((resolve) => setTimeout(resolve, 5));
    if (received === total) break;
  }
  expect(received).toBe(total);
});

/** Writes `total` bytes as fast as the socket takes them. */
function pour(socket: net.Socket, total: number): void {
  const piece = Buffer.alloc(65_536, "x");
  let left = total;
  const more = (): void => {
    while (left > 0) {
      const flowing = socket.write(left >= piece.length ? piece : piece.subarray(0, left));
      left -= Math.min(left, piece.length);
      if (!flowing) {
        socket.once("drain", more);
        return;
      }
    }
  };
  more();
}

test.for([1, 2])(
  "nothing is left of thousands of requests with random aborts on both sides (SEED=%i)",
  async (seed) => {
    const random = seededRandom(seed);
    const server = net.createServer((socket) => {
      socket.on("error", () => undefined);
      socket.on("data", () => {
        const dice = random();
        if (dice < 0.05) socket.destroy();
        else if (dice < 0.1) socket.resetAndDestroy();
        else if (dice < 0.15) socket.end("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort");
        else if (dice < 0.2) socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nbad");
        else if (dice < 0.3)
          socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        else if (dice < 0.4)
          setTimeout(() => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate"), 3);
        else socket.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine");
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as net.AddressInfo;
    const policy = {
      outlier: { ejectedPercentMax: 0 },
      responseTimeoutMs: 300,
      connectionsPerEndpointMax: 20,
    };
    const edge = await rig([], {
      clusters: [cluster("web.shop", [port], { policy })],
      limits: {
        upstreamIdleTimeoutMs: 200,
        downstreamIdleTimeoutMs: 300,
        lingerTimeoutMs: 100,
        pendingTimeoutMs: 300,
        bodyStallTimeoutMs: 300,
      },
    });
    const requests = [
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
    const one = (): Promise<void> =>
      new Promise((resolve) => {
        const socket = net.connect(edge.port, "127.0.0.1");
        let turns = Math.ceil(random() * 4);
        const turn = (): void => {
          turns -= 1;
          if (turns < 0 || socket.destroyed)
            return void (random() < 0.5 ? socket.destroy() : socket.resetAndDestroy());
          socket.write(requests[Math.floor(random() * requests.length)]!);
          if (random() < 0.3) socket.end();
          setTimeout(turn, random() * 6);
        };
        socket.on("error", () => undefined);
        socket.on("data", () => undefined);
        socket.on("close", () => resolve());
        socket.once("connect", turn);
      });
    const worker = async (): Promise<void> => {
      for (let count = 0; count < 50; count += 1) await one();
    };
    await Promise.all(Array.from({ length: 30 }, worker));
    const metrics = createMetrics("test", { defaults: false });
    edge.engine.registerMetrics(metrics);
    let text = "";
    const settled = () =>
      [
        'gilliam_in_flight{part="test"} 0',
        'gilliam_waiting{part="test"} 0',
        'gilliam_connections{side="downstream",part="test"} 0',
        'gilliam_connections{side="upstream",part="test"} 0',
        'gilliam_deadlines{part="test"} 0',
      ].every((line) => text.includes(line));
    for (const deadline = AbortSignal.timeout(8_000); !settled() && !deadline.aborted;) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      text = await metrics.metrics();
    }
    expect(text).toContain('gilliam_in_flight{part="test"} 0');
    expect(text).toContain('gilliam_waiting{part="test"} 0');
    expect(text).toContain('gilliam_connections{side="downstream",part="test"} 0');
    expect(text).toContain('gilliam_connections{side="upstream",part="test"} 0');
    expect(text).toContain('gilliam_deadlines{part="test"} 0');
    expect(text).toContain('gilliam_faults_total{part="test"} 0');
    expect(edge.engine.report().busy).toEqual({});
    const open = await new Promise<number>((resolve, reject) =>
      server.getConnections((error, count) => (error === null ? resolve(count) : reject(error))),
    );
    expect(open).toBe(0);
    await edge[Symbol.asyncDispose]();
    await new Promise((resolve) => server.close(resolve));
  },
);
