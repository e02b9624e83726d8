import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { run, startInteractive } from "./processes.ts";

export interface Load {
  readonly requests: number;
  readonly perSecond: number;
  /** Answers that were none, or not 2xx. */
  readonly failures: number;
}

/** As fast as it goes over `connections` keep-alive connections: wrk. `script` is Lua, as wrk's `-s` takes it. */
export async function wrk(
  core: string,
  url: string,
  connections: number,
  seconds: number,
  script?: string,
): Promise<Load> {
  const command = ["wrk", "-t1", `-c${connections}`, `-d${seconds}s`];
  if (script === undefined) return parseWrk(await run(core, [...command, url]));
  return withFile(script, async (file) => parseWrk(await run(core, [...command, "-s", file, url])));
}

export function parseWrk(out: string): Load {
  const requests = Number(/(\d+) requests in/.exec(out)?.[1] ?? Number.NaN);
  const perSecond = Number(/Requests\/sec:\s+([\d.]+)/.exec(out)?.[1] ?? Number.NaN);
  if (Number.isNaN(requests) || Number.isNaN(perSecond))
    throw new Error(`wrk said what is not understood:\n${out}`);
  const errors = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(out);
  const socketErrors = errors === null ? 0 : errors.slice(1).reduce((sum, count) => sum + Number(count), 0);
  const refused = Number(/Non-2xx or 3xx responses: (\d+)/.exec(out)?.[1] ?? 0);
  return { requests, perSecond, failures: socketErrors + refused };
}

/** HTTP/2 over `connections` connections of `streams` streams each: h2load. */
export async function h2load(
  core: string,
  url: string,
  connections: number,
  streams: number,
  seconds: number,
  post?: { readonly fields: readonly string[]; readonly body: string },
): Promise<Load> {
  const command = ["h2load", `-c${connections}`, `-m${streams}`, "-t1", `-D${seconds}`];
  if (post === undefined) return parseH2load(await run(core, [...command, url]));
  return withFile(post.body, async (file) => {
    const fields = post.fields.flatMap((field) => ["-H", field]);
    return parseH2load(await run(core, [...command, "-d", file, ...fields, url]));
  });
}

export function parseH2load(out: string): Load {
  const perSecond = Number(/, ([\d.]+) req\/s/.exec(out)?.[1] ?? Number.NaN);
  const counts = /(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout/.exec(out);
  if (counts === null || Number.isNaN(perSecond))
    throw new Error(`h2load said what is not understood:\n${out}`);
  const [succeeded, failed, errored, timeout] = counts.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
  ];
  return { requests: succeeded, perSecond, failures: failed + errored + timeout };
}

/**
 * A full TLS 1.3 handshake and one request on each connection: `openssl s_time`, several side by side. wrk will not
 * do: it resumes its sessions. s_time writes HTTP/1.0 behind what it is asked for, so that becomes a field's value.
 */
export async function newTlsConnections(
  core: string,
  port: number,
  clients: number,
  seconds: number,
): Promise<Load> {
  const request = "/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nUser-Agent: s_time";
  const connect = ["-connect", `localhost:${port}`, "-new", "-tls1_3"];
  const command = ["openssl", "s_time", ...connect, "-time", String(seconds), "-www", request];
  const outputs = await Promise.all(Array.from({ length: clients }, () => run(core, command)));
  const loads = outputs.map(parseSTime);
  return {
    requests: loads.reduce((sum, { requests }) => sum + requests, 0),
    perSecond: loads.reduce((sum, { perSecond }) => sum + perSecond, 0),
    failures: loads.reduce((sum, { failures }) => sum + failures, 0),
  };
}

export function parseSTime(out: string): Load {
  const counts = /(\d+) connections in (\d+) real seconds, (\d+) bytes read per connection/.exec(out);
  if (counts === null) throw new Error(`openssl s_time said what is not understood:\n${out}`);
  const [requests, seconds, bytes] = counts.slice(1).map(Number) as [number, number, number];
  // It does not look at answers; every one of ours has more than a head's bytes.
  return { requests, perSecond: requests / seconds, failures: bytes > 100 ? 0 : requests };
}

/** One message under way on each of `connections` WebSocket connections. `begun` is called when all are open. */
export async function echoOverWebSocket(
  core: string,
  port: number,
  connections: number,
  seconds: number,
  begun: () => void,
): Promise<Load> {
  const clients = startInteractive(core, ownCommand("websocket-clients.ts", [port, connections, seconds]));
  try {
    await clients.nextLine();
    begun();
    clients.ask();
    return JSON.parse(await clients.nextLine()) as Load;
  } finally {
    clients.end();
  }
}

export interface Latencies {
  readonly perSecondWanted: number;
  readonly perSecond: number;
  readonly failures: number;
  readonly msP50: number;
  readonly msP99: number;
  readonly msP999: number;
}

/** At a fixed rate, whatever the answers take: our own open-loop generator. */
export async function openLoop(
  core: string,
  port: number,
  perSecond: number,
  connections: number,
  seconds: number,
): Promise<Latencies> {
  const args = [port, Math.round(perSecond), connections, seconds];
  return JSON.parse(await ownProgram(core, "open-loop.ts", args)) as Latencies;
}

/** The command of a generator written here. */
export function ownCommand(file: string, args: readonly number[]): string[] {
  return [process.execPath, "--no-warnings", path.join(import.meta.dirname, file), ...args.map(String)];
}

function ownProgram(core: string, file: string, args: readonly number[]): Promise<string> {
  return run(core, ownCommand(file, args));
}

async function withFile<T>(content: string, use: (file: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(path.join(tmpdir(), "gilliam-loadtest-"));
  try {
    const file = path.join(folder, "input");
    writeFileSync(file, content);
    return await use(file);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
