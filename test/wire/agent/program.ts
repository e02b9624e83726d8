import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, vi } from "vitest";

/** An edge or sidecar as its users run it: a real process, watched through its log. */
export interface Program {
  readonly child: ChildProcess;
  readonly lines: Record<string, unknown>[];
  readonly errors: string[];
  /** Address of a listener by its id, as the log tells it. */
  address(listener: string): string;
  /** Process id of the worker that serves now. */
  workerPid(): number;
  /** Replaces the worker once, so that the next one starts from the compile cache as all but the first do. */
  warmUp(): Promise<void>;
  waitForLog(message: string, times?: number): Promise<void>;
  /** Resolves with the exit code, or the signal's name. */
  readonly exited: Promise<number | string>;
}

const running = new Set<ChildProcess>();

/** Ends what a test left running. */
export async function endPrograms(): Promise<void> {
  const ends = [...running].map((child) => new Promise((resolve) => child.once("close", resolve)));
  for (const child of running) child.kill("SIGTERM");
  await Promise.all(ends);
}

export function startProgram(
  entry: string,
  environment: Record<string, string>,
  command: readonly string[] = [],
): Program {
  const words = [...command, process.execPath, join(import.meta.dirname, "../../..", entry)];
  const child = spawn(words[0] ?? "", words.slice(1), {
    env: {
      PATH: process.env["PATH"] ?? "",
      NODE_COMPILE_CACHE: join(tmpdir(), `gilliam-test-cache-${process.getuid?.()}`),
      ...environment,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  const lines: Record<string, unknown>[] = [];
  const errors: string[] = [];
  let rest = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    const parts = (rest + text).split("\n");
    rest = parts.pop() ?? "";
    for (const part of parts) lines.push(JSON.parse(part) as Record<string, unknown>);
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => errors.push(text));
  const exited = new Promise<number | string>((resolve) => {
    child.on("exit", (code, signal) => resolve(code ?? signal ?? "unknown"));
    child.on("close", () => running.delete(child));
  });
  const withMessage = (message: string) => lines.filter(({ msg }) => msg === message);
  const waitForLog = async (message: string, times = 1) => {
    const told = () => withMessage(message).length >= times || child.exitCode !== null;
    await vi.waitUntil(told, { timeout: 45_000, interval: 20 });
    expect(withMessage(message).length, `${message}: ${errors.join("")}`).toBeGreaterThanOrEqual(times);
  };
  return {
    child,
    lines,
    errors,
    exited,
    address: (listener) => {
      const line = withMessage("listening").findLast((one) => one["listener"] === listener);
      expect(line, `${listener} is not told as listening`).toBeDefined();
      return line?.["address"] as string;
    },
    workerPid: () => withMessage("worker serves").at(-1)?.["pid"] as number,
    waitForLog,
    warmUp: async () => {
      await waitForLog("compile cache written");
      const served = withMessage("worker serves").length;
      const drained = withMessage("drained").length;
      child.kill("SIGHUP");
      await waitForLog("worker serves", served + 1);
      await waitForLog("drained", drained + 1);
    },
  };
}

/**
 * Asks every 10 ms while `during` runs and until an answer comes after it. Returns the longest time without a
 * good answer, in milliseconds.
 */
export async function longestOutage(
  good: () => Promise<boolean>,
  during: () => Promise<void>,
): Promise<number> {
  const over = { value: false };
  const done = during().then(() => {
    over.value = true;
  });
  let longestMs = 0;
  for (let lastGoodMs = performance.now(), last = false; !(over.value && last);) {
    last = await good();
    const nowMs = performance.now();
    longestMs = Math.max(longestMs, nowMs - lastGoodMs);
    if (last) lastGoodMs = nowMs;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await done;
  return Math.round(longestMs);
}

export interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers: http.IncomingHttpHeaders;
}

export function ask(options: http.RequestOptions & { body?: string }): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request({ agent: false, ...options }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, body, headers: response.headers }),
      );
    });
    request.on("error", reject).end(options.body);
  });
}

export function get(address: string, path = "/", host?: string): Promise<Answer> {
  const url = new URL(`http://${address}`);
  return ask({
    host: url.hostname.replaceAll(/[[\]]/g, ""),
    port: url.port,
    path,
    ...(host === undefined ? {} : { headers: { host } }),
  });
}

/** Resident memory in MiB: all of it, and the part no other process shares. */
export function memoryOf(pid: number): { residentMiB: number; privateMiB: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0);
  const round = (value: number) => Math.round((value / 1024) * 10) / 10;
  return { residentMiB: round(kib("Rss")), privateMiB: round(kib("Private_Clean") + kib("Private_Dirty")) };
}
