import { once } from "node:events";
import { createServer, request as httpRequest, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ExecMessage } from "../../model/api.ts";
import type { AssignmentsMessage } from "../../model/host.ts";
import type { FeedMessage } from "../../model/mesh.ts";
import { ADMIN, FakeHost, HOST, TestBed } from "../doubles.ts";

let bed: TestBed;
beforeEach(async () => {
  bed = new TestBed();
  await bed.start();
  await bed.control.listen();
});
afterEach(() => bed.cleanUp());

async function open(
  path: string,
  { token = ADMIN, body, headers = {} }: { token?: string; body?: unknown; headers?: object } = {},
): Promise<{ response: IncomingMessage; lines: AsyncIterator<string>; leave: () => void }> {
  const request = httpRequest(new URL(path, bed.control.url), {
    method: body === undefined ? "GET" : "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers },
  });
  request.end(body === undefined ? undefined : JSON.stringify(body));
  const [response] = (await once(request, "response")) as [IncomingMessage];
  const lines = createInterface({ input: response })[Symbol.asyncIterator]();
  return { response, lines, leave: () => request.destroy() };
}

async function next<T>(lines: AsyncIterator<string>): Promise<T> {
  const { value } = await lines.next();
  return JSON.parse(String(value)) as T;
}

test("an executor's stream has the whole list at once, then at every change, and is alive in between", async () => {
  const host = new FakeHost(bed);
  await host.connect();
  const { lines, response, leave } = await open("/v1/hosts/h1/assignments", { token: HOST });
  expect(response.headers["content-type"]).toBe("application/x-ndjson");
  await bed.control.parts.controller.poke();
  expect(await next<AssignmentsMessage>(lines)).toMatchObject({ kind: "assignments", instances: [] });
  await bed.deploy();
  await host.settle(1);
  let count = 0;
  while (count === 0) {
    const list = await next<AssignmentsMessage>(lines);
    if (list.kind === "assignments") count = list.instances.length;
  }
  await bed.clock.advance(10_000);
  const kinds: string[] = [];
  while (kinds.at(-1) !== "alive") kinds.push((await next<AssignmentsMessage>(lines)).kind);
  leave();
  await expect.poll(() => bed.control.parts.streams.count).toBe(0);
});

test("a proxy's stream starts with the whole configuration and goes on with differences", async () => {
  const host = new FakeHost(bed);
  await host.connect();
  await bed.deploy();
  await host.settle();
  const { lines, leave } = await open("/v1/feed/edge-2?epoch=0&kind=edge&host=h1", { token: HOST });
  const first = await next<FeedMessage>(lines);
  expect(first.kind).toBe("config");
  leave();
  await expect.poll(() => bed.control.parts.streams.count).toBe(0);
  expect(bed.control.parts.hub.proxies().find(({ id }) => id === "edge-2")?.connected).toBe(false);
});

test("events come as they happen, resume after an id, and beat", async () => {
  const { lines, response, leave } = await open("/v1/events");
  expect(response.headers["content-type"]).toContain("text/event-stream");
  await bed.deploy();
  const read = async (from: AsyncIterator<string>, count: number) => {
    const found: string[] = [];
    while (found.length < count) {
      const text = String((await from.next()).value);
      if (text !== "") found.push(text);
    }
    return found;
  };
  const [retry, id = "", event, data = ""] = await read(lines, 4);
  expect([retry, event]).toEqual(["retry: 2000", "event: release"]);
  expect(JSON.parse(data.slice("data: ".length))).toMatchObject({ kind: "release", formation: "shop" });
  await bed.clock.advance(10_000);
  expect(await read(lines, 1)).toEqual([": alive"]);
  leave();
  await bed.ask("POST", "/v1/formations/shop/scale", { counts: { web: 3 } });
  const resumed = await open("/v1/events", { headers: { "last-event-id": id.slice("id: ".length) } });
  expect((await read(resumed.lines, 3)).at(2)).toBe("event: formation");
  resumed.leave();
});

test("a stream more than allowed is refused", async () => {
  const { streams } = bed.control.parts;
  const opened = await Promise.all(Array.from({ length: 6 }, () => open("/v1/events")));
  await expect.poll(() => streams.count).toBe(6);
  expect(await bed.ask("GET", "/v1/events")).toMatchObject({
    status: 503,
    body: { code: "too_many_streams" },
  });
  for (const { leave } of opened) leave();
  await expect.poll(() => streams.count).toBe(0);
});

describe("relayed to an executor", () => {
  let executor: Server;
  let asked: { url: string; authorization: string | undefined; body: unknown }[];
  let answer: (ExecMessage | "hang" | "cut")[];
  let left: boolean;

  beforeEach(async () => {
    asked = [];
    left = false;
    executor = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => (body += chunk.toString()));
      request.on("end", () => {
        const parsed: unknown = body === "" ? undefined : JSON.parse(body);
        asked.push({ url: request.url ?? "", authorization: request.headers.authorization, body: parsed });
        response.on("close", () => (left = true));
        response.writeHead(200, { "content-type": "application/x-ndjson" });
        response.flushHeaders();
        for (const message of answer) {
          if (message === "cut") response.destroy();
          else if (message !== "hang") response.write(`${JSON.stringify(message)}\n`);
        }
        if (answer.at(-1) !== "hang") response.end();
      });
    });
    await new Promise<void>((resolve) => executor.listen(0, "127.0.0.1", resolve));
    const host = new FakeHost(bed);
    host.executor.url = `http://127.0.0.1:${(executor.address() as AddressInfo).port}`;
    await host.connect();
    await bed.deploy();
    await host.settle(4);
  });
  afterEach(async () => {
    executor.closeAllConnections();
    await new Promise((resolve) => executor.close(resolve));
  });

  const web = () =>
    bed.control.parts.store.instances.values.find(({ service }) => service === "web")?.id ?? "";

  test("exec goes to the instance's host, with the host token, and its lines come back", async () => {
    answer = [
      { kind: "output", stream: "stdout", data: "hi" },
      { kind: "exit", code: 3 },
    ];
    const { lines } = await open(`/v1/instances/${web()}/exec`, { body: { command: ["ls"] } });
    expect([await next(lines), await next(lines), (await lines.next()).done]).toEqual([...answer, true]);
    expect(asked).toEqual([
      { url: `/v1/instances/${web()}/exec`, authorization: `Bearer ${HOST}`, body: { command: ["ls"] } },
    ]);
  });

  test("run carries the whole spec, secrets filled in", async () => {
    answer = [{ kind: "exit", code: 0 }];
    const { lines } = await open("/v1/formations/shop/run", { body: { service: "db", command: ["psql"] } });
    expect(await next(lines)).toEqual({ kind: "exit", code: 0 });
    const secrets = { POSTGRES_PASSWORD: expect.stringMatching(/^[\w-]{32}$/) as string };
    const body = { command: ["psql"], spec: { service: "db", secrets } };
    expect(asked[0]).toMatchObject({ url: "/v1/run", body });
  });

  test("an executor that dies in the middle is said to have", async () => {
    answer = [{ kind: "output", stream: "stdout", data: "hi" }, "hang"];
    const { lines } = await open(`/v1/instances/${web()}/exec`, { body: { command: ["ls"] } });
    expect(await next(lines)).toMatchObject({ kind: "output" });
    executor.closeAllConnections();
    expect(await next(lines)).toMatchObject({ kind: "failed", message: expect.stringContaining("host h1") });
  });

  test("a client that leaves ends what it asked for", async () => {
    answer = ["hang"];
    const { leave } = await open(`/v1/instances/${web()}/exec`, { body: { command: ["sleep"] } });
    leave();
    await expect.poll(() => left).toBe(true);
  });

  test("an unknown instance, an unknown service and an executor that is away are told apart", async () => {
    answer = [{ kind: "exit", code: 0 }];
    const exec = { command: ["ls"] };
    expect(await bed.ask("POST", "/v1/instances/nope/exec", exec)).toMatchObject({ status: 404 });
    const run = { service: "nope", command: ["ls"] };
    expect(await bed.ask("POST", "/v1/formations/shop/run", run)).toMatchObject({
      status: 404,
      body: { code: "no_such_service" },
    });
    executor.closeAllConnections();
    await new Promise((resolve) => executor.close(resolve));
    expect(await bed.ask("POST", `/v1/instances/${web()}/exec`, exec)).toMatchObject({
      status: 502,
      body: { code: "executor_unreachable" },
    });
    executor.listen(0, "127.0.0.1");
  });
});
