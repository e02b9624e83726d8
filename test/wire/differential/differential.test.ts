import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LOCAL, type Rig, cluster, rig } from "../kit.ts";
import { message, requestLine } from "../messages.ts";
import { NODE_METHODS, readWithNode } from "../node-parser.ts";
import { ATTACKS } from "./attacks.ts";
import { Lane, Oracles, PRESENT, Recorder, type Told } from "./oracles.ts";

/**
 * The same bytes through us, nginx, HAProxy and node:http's parser. A request that we pass on must be the one that each of
 * them sees that passes it on at all: what two of them read differently, we refuse. Requests that we refuse need no
 * agreement; one that nginx and HAProxy both refuse, we refuse, too. `DIFFERENTIAL_RUNS=1000000 SEED=1` runs for as long as you like.
 */
const RUNS = Number(process.env["DIFFERENTIAL_RUNS"] ?? 3000);
const SEED = Number(process.env["SEED"] ?? 20_261_122);
const LANES = 8;
/** Behind every case, so that a body taken for longer or shorter than it is shows in what follows. */
const SENTINELS = Array.from({ length: 4 }, (_, index) => sentinel(index)).join("");

describe.skipIf(!PRESENT)("whoever reads a request differently, we are not the one who passes it on", () => {
  let oracles: Oracles;
  let nginx: Lane[];
  let haproxy: Lane[];
  const ours: Lane[] = [];
  const opened: (Rig | Recorder)[] = [];

  beforeAll(async () => {
    const behind = { nginx: [] as Recorder[], haproxy: [] as Recorder[] };
    oracles = await Oracles.start(LANES, async (where, proxy) => {
      const recorder = await Recorder.listen(where);
      behind[proxy].push(recorder);
      opened.push(recorder);
    });
    nginx = oracles.nginx.map((to, lane) => new Lane(to, behind.nginx[lane]!));
    haproxy = oracles.haproxy.map((to, lane) => new Lane(to, behind.haproxy[lane]!));
    for (let lane = 0; lane < LANES; lane += 1) {
      const recorder = await Recorder.listen(0);
      // Local listeners take any host; the edge also looks at paths.
      const proxy =
        lane % 2 === 0
          ? await rig([], { listener: LOCAL, clusters: [cluster("api.shop", [recorder.port])], routes: [] })
          : await rig([recorder.port], {
              routes: [{ id: "r", host: "a.test", path: "/", cluster: "web.shop" }],
            });
      opened.push(proxy, recorder);
      ours.push(new Lane({ host: "127.0.0.1", port: proxy.port }, recorder));
    }
  });
  afterAll(async () => {
    for (const each of opened) await each[Symbol.asyncDispose]();
    await oracles?.[Symbol.asyncDispose]();
  });

  /** What is wrong with how `text` was read through lane `lane`; empty when nothing is. */
  async function differences(text: string, lane: number): Promise<{ wrong: string; passed: number }> {
    const bytes = Buffer.from(text + SENTINELS, "latin1");
    const [we, second, third] = await Promise.all(
      [ours, nginx, haproxy].map((lanes) => lanes[lane]!.read(bytes)),
    );
    const node: Told[] = (readWithNode("request", bytes) ?? []).filter(({ complete }) => complete);
    const passedOn = we!.told.slice(0, firstRefusal(we!.answers));
    const wrong: string[] = [];
    for (const [name, told] of [
      ["nginx", second!.told],
      ["HAProxy", third!.told],
      ["node:http", node],
    ] as const) {
      const at = passedOn.findIndex((mine, index) => {
        const theirs = told[index];
        return theirs !== undefined && comparable(mine, name) && !same(mine, theirs);
      });
      if (at >= 0) {
        wrong.push(
          `request ${at}: ${name} reads ${JSON.stringify(told[at])}, we ${JSON.stringify(passedOn[at])}`,
        );
      }
    }
    if (passedOn.length > 0 && second!.told.length === 0 && third!.told.length === 0) {
      wrong.push(`nginx and HAProxy refuse it, we read ${JSON.stringify(passedOn[0])}`);
    }
    if (we!.unsound.length > 0) wrong.push(`what we pass on is refused: ${we!.unsound.join(", ")}`);
    return { wrong: wrong.join("\n"), passed: passedOn.length };
  }

  /** Every text through the next free lane, or through each; how many were passed on. */
  async function check(texts: readonly string[]): Promise<number> {
    let next = 0;
    let passed = 0;
    const found: string[] = [];
    const walk = async (lane: number) => {
      for (let index = next++; index < texts.length && found.length === 0; index = next++) {
        const text = texts[index]!;
        const { wrong, passed: count } = await differences(text, lane);
        passed += Math.min(1, count);
        if (wrong !== "") found.push(`SEED=${SEED}, case ${index}, ${JSON.stringify(text)}\n${wrong}`);
      }
    };
    await Promise.all(ours.map((_, lane) => walk(lane)));
    expect(found).toEqual([]);
    return passed;
  }

  test("attacks that have worked somewhere, on the edge and on a local port", async () => {
    const walk = async (lane: number) => {
      for (const text of ATTACKS.filter((_, index) => index % (LANES / 2) === lane >> 1)) {
        expect(await differences(text, lane), JSON.stringify(text)).toMatchObject({ wrong: "" });
      }
    };
    await Promise.all(ours.map((_, lane) => walk(lane)));
  });

  test(
    `${RUNS} messages, good ones and ones with a byte wrong (SEED=${SEED})`,
    { timeout: 60_000 + RUNS * 20 },
    async () => {
      const lines = fc.oneof(
        requestLine,
        fc.constantFrom("GET /x HTTP/1.1\r\n", "POST /p HTTP/1.1\r\n", "POST /p HTTP/1.0\r\n"),
      );
      const BATCH = 20_000;
      let passed = 0;
      for (let from = 0; from < RUNS; from += BATCH) {
        const numRuns = Math.min(BATCH, RUNS - from);
        passed += await check(fc.sample(message(lines), { numRuns, seed: SEED + from }));
      }
      expect(passed).toBeGreaterThan(RUNS / 20); // Else nothing was compared.
    },
  );
});

/** How many requests were passed on before the first that was not: what follows that one has another number. */
function firstRefusal(answers: string): number {
  const statuses = [...answers.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => status);
  const finals = statuses.filter((status) => status !== "100");
  const at = finals.findIndex((status) => status !== "200");
  return at < 0 ? finals.length : at;
}

function sentinel(index: number): string {
  return `GET /sentinel-${index} HTTP/1.1\r\nHost: a.test\r\n${index === 3 ? "Connection: close\r\n" : ""}\r\n`;
}

/** Node's parser knows a list of methods and ends at others; the recorders behind the proxies are node:http, too. */
function comparable(told: Told, oracle: string): boolean {
  return oracle !== "node:http" || NODE_METHODS.has(told.method);
}

function same(a: Told, b: Told): boolean {
  return a.method === b.method && a.body === b.body && path(a.target) === path(b.target);
}

function path(target: string): string {
  const rest = target.replace(/^https?:\/\/[^/?]*/i, "");
  return rest.startsWith("/") || rest === "*" ? rest : `/${rest}`;
}
