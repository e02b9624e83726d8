import net from "node:net";
import type { Latencies } from "./generators.ts";

/**
 * node open-loop.ts PORT PER_SECOND CONNECTIONS SECONDS: requests leave at their time, whether or not earlier ones
 * are answered, and latency counts from that time. So a proxy that stalls cannot hide the requests that would have
 * come meanwhile (coordinated omission). Prints one JSON object.
 */
const [port, perSecond, connections, seconds] = process.argv.slice(2).map(Number) as [
  number,
  number,
  number,
  number,
];
const REQUEST = Buffer.from(`GET / HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUser-Agent: open-loop\r\n\r\n`);
const WARM_UP_MS = 500;
/** How long the loop sleeps when nothing is due. Blocking is finer than timers, which know milliseconds only. */
const NAP_MS = 0.05;
const nap = new Int32Array(new SharedArrayBuffer(4));

interface Connection {
  readonly socket: net.Socket;
  /** When the request under way was due; below 0 when there is none. */
  dueMs: number;
  /** Bytes of the answer still missing; -1 before its head. */
  missing: number;
  head: string;
}

const idle: Connection[] = [];
const overdue: number[] = [];
const latenciesMs: number[] = [];
let failures = 0;
let startedMs = 0;
let sent = 0;

function open(): Promise<void> {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: "127.0.0.1", noDelay: true });
    const connection: Connection = { socket, dueMs: -1, missing: -1, head: "" };
    socket.on("connect", () => {
      idle.push(connection);
      resolve();
    });
    socket.on("data", (bytes: Buffer) => receive(connection, bytes));
    socket.on("error", () => {});
    socket.on("close", () => {
      if (connection.dueMs >= 0) failures += 1;
      const at = idle.indexOf(connection);
      if (at >= 0) idle.splice(at, 1);
      if (!stopped) void open();
      resolve();
    });
  });
}

function receive(connection: Connection, bytes: Buffer): void {
  let body = bytes.length;
  if (connection.missing < 0) {
    connection.head += bytes.toString("latin1");
    const end = connection.head.indexOf("\r\n\r\n");
    if (end < 0) return;
    const length = /^content-length: *(\d+)/im.exec(connection.head)?.[1];
    if (length === undefined || !connection.head.startsWith("HTTP/1.1 200")) failures += 1;
    connection.missing = Number(length ?? 0);
    body = connection.head.length - end - 4;
  }
  connection.missing -= body;
  if (connection.missing > 0) return;
  const now = performance.now();
  if (connection.dueMs - startedMs > WARM_UP_MS) latenciesMs.push(now - connection.dueMs);
  connection.dueMs = -1;
  connection.missing = -1;
  connection.head = "";
  const due = overdue.shift();
  if (due === undefined) idle.push(connection);
  else send(connection, due);
}

function send(connection: Connection, dueMs: number): void {
  connection.dueMs = dueMs;
  connection.socket.write(REQUEST);
}

let stopped = false;
await Promise.all(Array.from({ length: connections }, open));
startedMs = performance.now();
const intervalMs = 1_000 / perSecond;
const endMs = startedMs + seconds * 1_000;

function turn(): void {
  const now = performance.now();
  for (
    let due = startedMs + sent * intervalMs;
    due <= now && due < endMs;
    due = startedMs + sent * intervalMs
  ) {
    sent += 1;
    const connection = idle.shift();
    if (connection === undefined) overdue.push(due);
    else send(connection, due);
  }
  if (now > endMs + 500) return finish();
  // Sleeps first, so that what arrived meanwhile is read right after.
  Atomics.wait(nap, 0, 0, NAP_MS);
  setImmediate(turn);
}

function finish(): void {
  stopped = true;
  latenciesMs.sort((a, b) => a - b);
  const at = (share: number) => latenciesMs[Math.floor(latenciesMs.length * share)] ?? Number.NaN;
  const result: Latencies = {
    perSecondWanted: perSecond,
    perSecond: latenciesMs.length / (seconds - WARM_UP_MS / 1_000),
    failures: failures + overdue.length,
    msP50: at(0.5),
    msP99: at(0.99),
    msP999: at(0.999),
  };
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}
turn();
