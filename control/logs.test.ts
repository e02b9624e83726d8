import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ManualClock } from "../base/manual-clock.ts";
import type { LogLine } from "../model/api.ts";
import { Executors } from "./executors.ts";
import { relayLogs } from "./logs.ts";

const TOKEN = "host-token-for-tests";

/** An executor's log API on a free port: what is kept, and whoever follows. */
class LogServer {
  readonly #server: Server;
  readonly followers = new Set<ServerResponse>();
  readonly queries: URLSearchParams[] = [];
  kept: LogLine[] = [];
  url = "";

  constructor() {
    this.#server = createServer((request, response) => {
      const { searchParams } = new URL(request.url ?? "/", "http://x");
      this.queries.push(searchParams);
      if (request.headers.authorization !== `Bearer ${TOKEN}`) {
        response.writeHead(401).end();
        return;
      }
      const sinceMs = Number(searchParams.get("sinceMs") ?? 0);
      for (const line of this.kept.filter(({ atMs }) => atMs >= sinceMs)) {
        response.write(`${JSON.stringify(line)}\n`);
      }
      if (searchParams.get("follow") === "true") {
        response.flushHeaders();
        this.followers.add(response);
        response.on("close", () => this.followers.delete(response));
      } else response.end();
    });
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  write(line: LogLine): void {
    this.kept.push(line);
    for (const follower of this.followers) follower.write(`${JSON.stringify(line)}\n`);
  }

  /** As when the executor dies: every stream is cut. */
  cut(): void {
    for (const follower of this.followers) follower.destroy();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

let one: LogServer;
let two: LogServer;
let clock: ManualClock;
let urls: Record<string, string>;
beforeEach(async () => {
  one = new LogServer();
  two = new LogServer();
  await one.listen();
  await two.listen();
  clock = new ManualClock();
  urls = { h1: one.url, h2: two.url };
});
afterEach(async () => {
  await one.close();
  await two.close();
});

function line(atMs: number, text: string, instanceId = "shop-web-r1-aaaaa"): LogLine {
  return { atMs, service: "web", instanceId, release: 1, stream: "stdout", text };
}

function parts() {
  const executors = new Executors({
    urlOf: (hostId) => urls[hostId],
    hostToken: TOKEN,
    clock,
    timeoutMs: 5_000,
  });
  return { executors, clock, hostIds: () => Object.keys(urls) };
}

describe("the past", () => {
  test("of several hosts is merged by time", async () => {
    one.kept = [line(1, "a"), line(4, "d"), line(5, "e")];
    two.kept = [line(2, "b"), line(3, "c"), line(6, "f")];
    const seen: string[] = [];
    const request = { formation: "shop", service: "web", tail: 5, follow: false };
    await relayLogs(request, parts(), async ({ text }) => void seen.push(text), new AbortController().signal);
    expect(seen.join("")).toBe("abcdef");
    expect(one.queries.map((query) => query.toString())).toEqual(["formation=shop&service=web&tail=5"]);
  });

  test("of a host that cannot be reached is missing with a reason, the others are there", async () => {
    one.kept = [line(1, "a")];
    await two.close();
    const seen: LogLine[] = [];
    const request = { formation: "shop", follow: false };
    await relayLogs(request, parts(), async (told) => void seen.push(told), new AbortController().signal);
    expect(seen.map(({ stream }) => stream).sort()).toEqual(["stdout", "system"]);
    expect(seen.find(({ stream }) => stream === "system")?.text).toContain(
      "no log from host h2: The executor of host h2 cannot be reached",
    );
    two = new LogServer();
    await two.listen();
  });
});

describe("following", () => {
  let seen: string[];
  let stop: AbortController;
  let done: Promise<void>;
  const texts = (count: number) =>
    expect.poll(() => seen.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(count);
  const followers = (server: LogServer) => expect.poll(() => server.followers.size, { timeout: 10_000 });

  beforeEach(() => {
    seen = [];
    stop = new AbortController();
    one.kept = [line(1, "a"), line(7, "b"), line(7, "c")];
    const request = { formation: "shop", tail: 10, follow: true };
    done = relayLogs(request, parts(), async ({ text }) => void seen.push(text), stop.signal);
  });
  afterEach(async () => {
    stop.abort(new Error("enough"));
    await done;
  });

  test("shows every line once, also over a broken stream", async () => {
    await followers(one).toBe(1);
    one.write(line(7, "d")); // In the very millisecond of the last two.
    one.write(line(9, "e"));
    await texts(5);
    one.cut();
    one.kept.push(line(9, "f"), line(10, "g")); // Written while nobody listened.
    await followers(one).toBe(0);
    await clock.advance(2_000);
    await texts(7);
    expect(seen.filter((text) => !text.startsWith("no log")).join("")).toBe("abcdefg");
  });

  test("finds a host that is new", async () => {
    await followers(two).toBe(1);
    const three = new LogServer();
    await three.listen();
    urls["h3"] = three.url;
    three.kept = [line(20, "new")];
    await clock.advance(2_000);
    await texts(4);
    expect(seen.at(-1)).toBe("new");
    await three.close();
  });

  test("says once that a host is away, however often it is asked", async () => {
    await followers(two).toBe(1);
    await two.close();
    for (let attempt = 0; attempt < 4; attempt++) {
      await clock.advance(2_000);
      await expect
        .poll(() => seen.filter((text) => text.startsWith("no log")).length, { timeout: 10_000 })
        .toBe(1);
    }
    two = new LogServer();
    await two.listen();
  });
});
