import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { run } from "./processes.ts";

export interface Load {
  readonly requests: number;
  readonly perSecond: number;
  /** Answers that were none, or not 2xx. */
  readonly failures: number;
}

/** As fast as it goes over `connections` keep-alive connections: wrk. */
export async function wrk(core: string, url: string, connections: number, seconds: number): Promise<Load> {
  return parseWrk(await run(core, ["wrk", "-t1", `-c${connections}`, `-d${seconds}s`, url]));
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
  const folder = mkdtempSync(path.join(tmpdir(), "gilliam-loadtest-"));
  try {
    const file = path.join(folder, "body");
    writeFileSync(file, post.body);
    command.push("-d", file, ...post.fields.flatMap((field) => ["-H", field]));
    return parseH2load(await run(core, [...command, url]));
  } finally {
    rmSync(folder, { recursive: true });
  }
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
  const program = path.join(import.meta.dirname, "open-loop.ts");
  const args = [port, Math.round(perSecond), connections, seconds].map(String);
  return JSON.parse(await run(core, [process.execPath, "--no-warnings", program, ...args])) as Latencies;
}
