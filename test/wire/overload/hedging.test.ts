import { expect, test } from "vitest";
import { ManualClock } from "../../../base/manual-clock.ts";
import { LOCAL, answering, cluster, ok, rawServer, rig, until, untilMetric } from "../kit.ts";
import type { RawServer, Rig } from "../kit.ts";

/** A second attempt beside a slow first one: the first answer wins, and nobody is blamed for losing. */

const call = (method = "GET", body = ""): string =>
  `${method} / HTTP/1.1\r\nHost: api\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

/** Two instances of which the one asked first is silent, whichever that is; `second` answers. */
async function pair(
  answer: string,
): Promise<{ servers: RawServer[]; asked: () => number } & AsyncDisposable> {
  let asked = 0;
  const servers = await Promise.all(
    [0, 1].map(() =>
      rawServer((socket) => {
        socket.on("data", () => {
          asked += 1;
          if (asked > 1) socket.write(answer);
        });
      }),
    ),
  );
  return {
    servers,
    asked: () => asked,
    [Symbol.asyncDispose]: async () => {
      for (const server of servers) await server[Symbol.asyncDispose]();
    },
  };
}

function mesh(
  servers: readonly RawServer[],
  clock: ManualClock,
  policy: Record<string, unknown>,
): Promise<Rig> {
  const clusters = [
    cluster(
      "api.shop",
      servers.map(({ port }) => port),
      { policy },
    ),
  ];
  return rig([], { clusters, routes: [], listener: LOCAL, clock });
}

test.for([
  { method: "GET", body: "" },
  { method: "PUT", body: "hello" },
])("a slow $method is asked a second time elsewhere, and the loser is cut without blame", async (row) => {
  const clock = new ManualClock();
  await using two = await pair(ok("second"));
  await using rig = await mesh(two.servers, clock, {
    hedge: { delayMs: 50 },
    outlier: { consecutiveFailuresMax: 1, ejectedPercentMax: 100 },
  });
  await using client = await rig.client();
  client.write(call(row.method, row.body));
  await until(() => two.asked() === 1, "the first attempt");
  await clock.advance(49);
  expect(two.asked()).toBe(1);
  await clock.advance(1);
  await client.untilText("second");
  expect(rig.events).toMatchObject([{ status: 200, retries: 1, reason: "" }]);
  expect(rig.engine.report().ejected).toEqual({});
  const seen = two.servers.flatMap(({ received }) => received);
  for (const text of seen) expect(text.endsWith(`\r\n\r\n${row.body}`)).toBe(true);
  await until(
    () => two.servers.some(({ sockets }) => sockets.some((one) => one.readableEnded)),
    "the loser's end",
  );
  expect(await rig.metric('gilliam_hedges_total{won="true"')).toBe(1);
  await untilMetric(rig, "gilliam_in_flight", 0);
});

test.for([
  { what: "a POST", method: "POST", policy: { hedge: { delayMs: 50 } } },
  { what: "without the policy", method: "GET", policy: {} },
  {
    what: "without budget",
    method: "GET",
    policy: { hedge: { delayMs: 50 }, retry: { budgetRatio: 0, budgetBurst: 0 } },
  },
])("no second attempt: $what", async ({ method, policy }) => {
  const clock = new ManualClock();
  await using two = await pair(ok("second"));
  await using rig = await mesh(two.servers, clock, policy);
  await using client = await rig.client();
  client.write(call(method));
  await until(() => two.asked() === 1, "the first attempt");
  await clock.advance(1_000);
  expect(two.asked()).toBe(1);
  expect(client.text).toBe("");
});

test("when the first attempt fails while the second is under way, the second one's answer counts", async () => {
  const clock = new ManualClock();
  let asked = 0;
  let first: (() => void) | undefined;
  let second: (() => void) | undefined;
  const serve = (): Promise<RawServer> =>
    rawServer((socket) => {
      socket.on("data", () => {
        asked += 1;
        if (asked === 1) first = () => socket.destroy();
        else second = () => socket.write(ok("second"));
      });
    });
  await using one = await serve();
  await using other = await serve();
  await using rig = await mesh([one, other], clock, { hedge: { delayMs: 50 }, retry: { retriesMax: 0 } });
  await using client = await rig.client();
  client.write(call());
  await until(() => asked === 1, "the first attempt");
  await clock.advance(50);
  await until(() => asked === 2, "the second attempt");
  first!();
  await untilMetric(rig, 'gilliam_connections{side="upstream"', 1);
  second!();
  await client.untilText("second");
  expect(rig.events).toMatchObject([{ status: 200, retries: 1 }]);
});

test("an instance that lost is known to be slow: peak EWMA asks the other one first", async () => {
  const clock = new ManualClock();
  await using two = await pair(ok("second"));
  await using rig = await mesh(two.servers, clock, { hedge: { delayMs: 50 }, balancing: "ewma" });
  await using client = await rig.client();
  client.write(call());
  await until(() => two.asked() === 1, "the first attempt");
  const slow = two.servers.findIndex(({ received }) => received.length > 0);
  await clock.advance(50);
  await client.untilText("second");
  for (let count = 2; count < 8; count += 1) {
    await rig.ask(call(), "second");
    expect(two.servers[slow]!.received).toHaveLength(1);
  }
});

test("a client that leaves ends both attempts", async () => {
  const clock = new ManualClock();
  await using two = await pair("");
  await using rig = await mesh(two.servers, clock, { hedge: { delayMs: 50 } });
  const client = await rig.client();
  client.write(call());
  await until(() => two.asked() === 1, "the first attempt");
  await clock.advance(50);
  await until(() => two.asked() === 2, "the second attempt");
  client.socket.resetAndDestroy();
  await untilMetric(rig, "gilliam_in_flight", 0);
  await untilMetric(rig, 'gilliam_connections{side="upstream"', 0);
});

test("without a delay of its own, the second attempt waits as long as 95 % of answers take", async () => {
  const clock = new ManualClock();
  let silent = false;
  let asked = 0;
  const serve = (): Promise<RawServer> =>
    rawServer((socket) => {
      const answer = answering(() => ok("quick"));
      socket.on("data", () => {
        asked += 1;
      });
      if (!silent) answer(socket);
    });
  await using one = await serve();
  await using other = await serve();
  await using rig = await mesh([one, other], clock, { hedge: {} });
  await using client = await rig.client();
  // Answered at once, by the clock: the estimate falls from its first value of a second towards a millisecond.
  for (let count = 1; count <= 2_000; count += 1) {
    client.write(call());
    await client.until(({ text }) => text.split("quick").length - 1 === count, "the answer");
  }
  silent = true;
  for (const socket of [...one.sockets, ...other.sockets]) {
    socket.removeAllListeners("data");
    socket.on("data", () => {
      asked += 1;
    });
  }
  const before = asked;
  client.write(call());
  await until(() => asked === before + 1, "the first attempt");
  await clock.advance(20);
  await until(() => asked === before + 2, "the second attempt");
});
