import http2 from "node:http2";
import net from "node:net";
import { expect, test } from "vitest";
import { createMetrics } from "../../../base/metrics.ts";
import { type Random, seededRandom } from "../../../base/random.ts";
import { cluster, get, rig, until } from "../kit.ts";

/** Requests in all, in each run; `ABORT_RUNS=1000000 SEED=7` for the long one. */
const ABORT_RUNS = Number(process.env["ABORT_RUNS"] ?? 4_000);
const SEEDS = process.env["SEED"] === undefined ? [1, 2] : [Number(process.env["SEED"])];
const CLIENTS_AT_ONCE = 30;

test.for(SEEDS)(
  "nothing is left of thousands of requests with random aborts on both sides (SEED=%i)",
  { timeout: Math.max(30_000, ABORT_RUNS * 10) },
  async (seed) => {
    const random = seededRandom(seed);
    await using one = await crookedServer(random);
    await using two = await crookedHttp2Server(random);
    const policy = {
      outlier: { ejectedPercentMax: 0 },
      responseTimeoutMs: 300,
      streamIdleTimeoutMs: 300,
      connectionsPerEndpointMax: 20,
      inFlightMax: 30,
      hedge: { delayMs: 2 },
    };
    const edge = await rig([], {
      clusters: [
        cluster("web.shop", [one.port, one.port], { policy }),
        cluster("rpc.shop", [two.port, two.port], { policy, protocol: "http2" }),
      ],
      routes: [
        { id: "r", host: "shop.test", path: "/", cluster: "web.shop" },
        { id: "s", host: "two.test", path: "/", cluster: "rpc.shop" },
      ],
      limits: {
        upstreamIdleTimeoutMs: 200,
        downstreamIdleTimeoutMs: 300,
        lingerTimeoutMs: 100,
        pendingTimeoutMs: 300,
        bodyStallTimeoutMs: 300,
        halfCloseTimeoutMs: 300,
      },
      onAccess: () => undefined, // A million events are not kept.
    });
    const sent = { requests: 0 };
    const note = (requests: number): void => {
      sent.requests += requests;
    };
    const client = async (): Promise<void> => {
      while (sent.requests < ABORT_RUNS) await (random() < 0.25 ? abuse2 : abuse)(edge.port, random, note);
    };
    await Promise.all(Array.from({ length: CLIENTS_AT_ONCE }, client));
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
    // HTTP/2 connections upstream stay until they were idle.
    for (const deadline = AbortSignal.timeout(8_000); !deadline.aborted;) {
      text = await metrics.metrics();
      if (zeros.every((line) => text.includes(line))) break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(zeros.filter((line) => !text.includes(line))).toEqual([]);
    expect(edge.engine.report().busy).toEqual({});
    await until(() => one.open() + two.open() === 0, "the end of every connection upstream");
    await edge[Symbol.asyncDispose]();
  },
);

interface CrookedServer extends AsyncDisposable {
  readonly port: number;
  /** Connections now. */
  open(): number;
}

async function listening(server: net.Server | http2.Http2Server): Promise<CrookedServer> {
  let open = 0;
  server.on("connection", (socket: net.Socket) => {
    open += 1;
    socket.on("close", () => {
      open -= 1;
    });
    socket.on("error", () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as net.AddressInfo).port,
    open: () => open,
    [Symbol.asyncDispose]: async () => {
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function crookedServer(random: Random): Promise<CrookedServer> {
  const server = net.createServer((socket) => {
    let tunnel = false;
    socket.on("data", (bytes) => {
      if (tunnel) {
        if (random() < 0.2) socket.resetAndDestroy();
        else socket.write(bytes);
      } else if (bytes.includes("Upgrade: websocket") && random() < 0.7) {
        tunnel = true;
        socket.write("HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello");
      } else answerAtRandom(socket, random);
    });
  });
  return listening(server);
}

/** Right, wrong, late, or not at all. */
function answerAtRandom(socket: net.Socket, random: Random): void {
  const dice = random();
  if (dice < 0.05) socket.destroy();
  else if (dice < 0.1) socket.resetAndDestroy();
  else if (dice < 0.15) socket.end("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort");
  else if (dice < 0.2) socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnever\r\n");
  else if (dice < 0.25) socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nf\r\nstalled");
  else if (dice < 0.35)
    socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  else if (dice < 0.45) setTimeout(() => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate"), 3);
  else if (dice < 0.46) socket.write("HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
  else socket.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine");
}

function crookedHttp2Server(random: Random): Promise<CrookedServer> {
  const server = http2.createServer();
  server.on("session", (session) => session.on("error", () => undefined));
  server.on("stream", (stream) => {
    stream.on("error", () => undefined);
    stream.resume();
    const dice = random();
    if (dice < 0.02) stream.session?.destroy();
    else if (dice < 0.1) stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
    else if (dice < 0.15) stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
    else if (dice < 0.2) return; // Never.
    else {
      stream.respond({ ":status": 200 });
      if (dice < 0.25) stream.close(http2.constants.NGHTTP2_CANCEL);
      else if (dice < 0.3) stream.write("stalled");
      else if (dice < 0.35) stream.session?.close();
      else if (dice < 0.45) setTimeout(() => stream.destroyed || stream.end("late"), 3);
      else stream.end("fine");
    }
  });
  return listening(server);
}

const ABUSES = [
  get(),
  get() + get() + get(),
  get().replace("shop.test", "two.test"),
  "GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n",
  "GET / HTTP/1.1\r\nHost: sh",
  "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello",
  "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 50\r\n\r\nhello",
  "PUT / HTTP/1.1\r\nHost: two.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
  "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz",
  get("/", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
  "\u0000\u0001\u0002",
];

/** One client that sends a few things and leaves, one way or another. */
function abuse(port: number, random: Random, note: (requests: number) => void): Promise<void> {
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
      const text = ABUSES[Math.floor(random() * ABUSES.length)]!;
      note(text.split(" HTTP/1.1\r\n").length - 1);
      socket.write(text);
      if (random() < 0.3) socket.end();
      setTimeout(turn, random() * 6);
    };
    socket.on("error", () => undefined);
    socket.on("data", () => undefined);
    socket.on("close", () => resolve());
    socket.once("connect", turn);
  });
}

/** The same over HTTP/2: streams that are reset, left open, or whose connection goes away. */
function abuse2(port: number, random: Random, note: (requests: number) => void): Promise<void> {
  return new Promise((resolve) => {
    const session = http2.connect(`http://127.0.0.1:${port}`);
    let turns = Math.ceil(random() * 6);
    const turn = (): void => {
      turns -= 1;
      if (session.destroyed || session.closed) return;
      if (turns < 0) {
        if (random() < 0.3) session.close();
        // Politely or not, it ends: what it waits for may never come.
        setTimeout(() => session.destroy(), random() * 6);
        return;
      }
      const body = random() < 0.3;
      const host = random() < 0.5 ? "shop.test" : "two.test";
      note(1);
      const stream = session.request(
        { ":authority": host, ":method": body ? "POST" : "GET" },
        { endStream: !body },
      );
      stream.on("error", () => undefined);
      stream.resume();
      if (body) stream.write("hello");
      if (body && random() < 0.6) stream.end();
      if (random() < 0.3) setTimeout(() => stream.close(http2.constants.NGHTTP2_CANCEL), random() * 4);
      setTimeout(turn, random() * 4);
    };
    session.on("error", () => undefined);
    session.on("close", () => resolve());
    session.once("connect", turn);
  });
}
