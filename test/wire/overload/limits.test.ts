import type net from "node:net";
import { expect, test } from "vitest";
import { ManualClock } from "../../../base/manual-clock.ts";
import type { PressureLevel } from "../../../proxy/pressure.ts";
import { LOCAL, answering, cluster, get, ok, rawServer, rig, until, untilMetric } from "../kit.ts";
import type { RawClient } from "../kit.ts";

/** Who is let in when not everybody can be served. */

const call = (fields = ""): string => `GET / HTTP/1.1\r\nHost: api\r\n${fields}\r\n`;

/** A server that holds every request until `answer` is called. */
async function holding(): Promise<
  { port: number; held: net.Socket[]; answer: () => void } & AsyncDisposable
> {
  const held: net.Socket[] = [];
  const server = await rawServer((socket) => {
    socket.on("data", () => held.push(socket));
  });
  return {
    port: server.port,
    held,
    answer: () => held.shift()!.write(ok("answer")),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

test.for([{ inFlightMax: 5 }, { inFlightPerEndpointMax: 5 }])(
  "%o: the sixth request waits until one is answered",
  async (policy) => {
    await using server = await holding();
    await using mesh = await rig([], {
      clusters: [cluster("api.shop", [server.port], { policy })],
      routes: [],
      listener: LOCAL,
      clock: new ManualClock(),
    });
    const clients = await Promise.all(Array.from({ length: 6 }, () => mesh.client()));
    for (const client of clients) client.write(call());
    await untilMetric(mesh, "gilliam_waiting", 1);
    await until(() => server.held.length === 5, "five requests");
    server.answer();
    await untilMetric(mesh, "gilliam_waiting", 0);
    await until(() => server.held.length === 5, "the sixth");
    while (server.held.length > 0) server.answer();
    for (const client of clients) await client.untilText("answer");
    for (const client of clients) client.socket.destroy();
  },
);

test("those of low priority leave room for the others, and those of high priority wait in front", async () => {
  await using server = await holding();
  await using mesh = await rig([], {
    clusters: [cluster("api.shop", [server.port], { policy: { inFlightMax: 5 } })],
    routes: [],
    listener: LOCAL,
    clock: new ManualClock(),
  });
  const ask = async (priority: string): Promise<RawClient> => {
    const client = await mesh.client();
    client.write(call(`x-request-priority: ${priority}\r\nx-name: ${priority}\r\n`));
    return client;
  };
  for (let count = 1; count <= 4; count += 1) {
    await ask("normal");
    await until(() => server.held.length === count, "a request");
  }
  await using low = await ask("low");
  await low.untilText("x-gilliam-reason: shed\r\n");
  expect(low.text).toMatch(/^HTTP\/1\.1 503 .*\r\nretry-after: 1\r\n/s);
  await ask("normal");
  await until(() => server.held.length === 5, "the fifth");
  await using normal = await ask("normal");
  await untilMetric(mesh, "gilliam_waiting", 1);
  await using high = await ask("high");
  await untilMetric(mesh, "gilliam_waiting", 2);
  server.answer();
  await until(() => server.held.length === 5, "the next one");
  server.held.at(-1)!.write(ok("first"));
  await high.untilText("first");
  expect(normal.text).toBe("");
});

test.for<{ level: PressureLevel; served: string[] }>([
  { level: 0, served: ["low", "normal", "high", "none"] },
  { level: 1, served: ["normal", "high", "none"] },
  { level: 2, served: ["high"] },
])("under pressure of level $level these are served: $served", async ({ level, served }) => {
  await using server = await rawServer(answering(() => ok("answer")));
  await using mesh = await rig([], {
    clusters: [cluster("api.shop", [server.port])],
    routes: [],
    listener: LOCAL,
    pressure: { level },
  });
  const answers = await Promise.all(
    ["low", "normal", "high", "none"].map(async (priority) => {
      const answer = await mesh.ask(
        call(priority === "none" ? "" : `x-request-priority: ${priority}\r\n`),
        "\r\n\r\n",
      );
      return answer.startsWith("HTTP/1.1 200") ? [priority] : [];
    }),
  );
  expect(answers.flat()).toEqual(served);
});

test("the edge takes no priority from strangers; the policy's own travels on", async () => {
  await using server = await rawServer(answering(() => ok("answer")));
  await using edge = await rig([], {
    clusters: [cluster("web.shop", [server.port], { policy: { priority: "low" } })],
  });
  await edge.ask(get("/", "x-request-priority: high\r\npriority: u=0\r\n"), "answer");
  expect(server.received[0]).toContain("priority: u=0\r\n"); // RFC 9218 is for everyone on the way, and not ours.
  expect(server.received[0]!.match(/x-request-priority.*/g)).toEqual(["x-request-priority: low"]);
});

test("a limit that follows the cluster lets fewer in when answers take longer", async () => {
  const clock = new ManualClock();
  await using server = await holding();
  await using mesh = await rig([], {
    clusters: [
      cluster("api.shop", [server.port], {
        policy: { adaptive: { limitInitial: 12, limitMin: 2 }, connectionsPerEndpointMax: 50 },
      }),
    ],
    routes: [],
    listener: LOCAL,
    clock,
  });
  const clients = await Promise.all(Array.from({ length: 12 }, () => mesh.client()));
  /** Everybody asks once and is answered after `tookMs`; how many were let in together. */
  const round = async (tookMs: number): Promise<number> => {
    for (const client of clients) client.text = "";
    for (const client of clients) client.write(call());
    await until(() => server.held.length + waiting === clients.length || settled(), "the requests");
    const together = server.held.length;
    await clock.advance(tookMs);
    while (clients.some(({ text }) => !text.includes("answer"))) {
      if (server.held.length > 0) server.answer();
      else await new Promise((resolve) => setImmediate(resolve));
    }
    return together;
  };
  const waiting = 0;
  let before = -1;
  const settled = (): boolean => {
    const same = server.held.length > 0 && server.held.length === before;
    before = server.held.length;
    return same;
  };
  for (let count = 0; count < 10; count += 1) expect(await round(10)).toBeGreaterThan(0);
  const easy = await mesh.metric("gilliam_admission_limit");
  for (let count = 0; count < 10; count += 1) await round(150);
  expect(await mesh.metric("gilliam_admission_limit")).toBeLessThan(easy);
  for (const client of clients) client.socket.destroy();
});

test("one client cannot take all connections", async () => {
  await using server = await rawServer(answering(() => ok("answer")));
  await using edge = await rig([server.port], { limits: { connectionsPerClientMax: 3 } });
  const clients = await Promise.all([1, 2, 3].map(() => edge.client()));
  expect(await edge.ask(get())).toMatch(/^HTTP\/1\.1 503 .*x-gilliam-reason: too_many_connections\r\n/s);
  clients[0]!.socket.destroy();
  await untilMetric(edge, 'gilliam_connections{side="downstream"', 2);
  expect(await edge.ask(get(), "answer")).toContain("200 OK");
  for (const client of clients) client.socket.destroy();
});

test("before sockets run out no more clients are taken on, and then again", async () => {
  await using server = await holding();
  await using edge = await rig([server.port], { limits: { socketsMax: 10 } });
  const clients: RawClient[] = [];
  for (let count = 0; count < 8; count += 1) clients.push(await edge.client());
  expect(await edge.ask(get())).toMatch(/^HTTP\/1\.1 503 .*x-gilliam-reason: too_many_connections\r\n/s);
  clients[0]!.write(get()); // There is room for what those that are in need upstream.
  await until(() => server.held.length === 1, "the request");
  server.answer();
  await clients[0]!.untilText("answer");
  for (const client of clients) client.socket.destroy();
  await untilMetric(edge, 'gilliam_connections{side="downstream"', 0);
  await using again = await edge.client();
  again.write(get());
  await until(() => server.held.length === 1, "the request");
});
