import * as fc from "fast-check";
import net from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Rig, rig } from "../kit.ts";
import { message, statusLine } from "../messages.ts";
import { type ReadMessage, readWithNode } from "../node-parser.ts";
import { Oracles, PRESENT, converse } from "./oracles.ts";

/**
 * The same upstream's bytes through us, nginx, HAProxy and node:http's parser. A response that reaches our client whole
 * must be the one that each of them delivers that delivers one whole; else the client gets a 502, or sees it cut.
 * `DIFFERENTIAL_RUNS=1000000 SEED=1` runs for as long as you like.
 */
const RUNS = Number(process.env["DIFFERENTIAL_RUNS"] ?? 2000);
const SEED = Number(process.env["SEED"] ?? 20_261_122);
const LANES = 8;

/** A server that answers the first bytes of every connection with the lane's text, and then ends it. */
class Scripted implements AsyncDisposable {
  text = "";
  readonly #server = net.createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => socket.end(this.text, "latin1"));
  });

  async listen(where: string | number): Promise<this> {
    await new Promise<void>((resolve) => {
      if (typeof where === "string") this.#server.listen(where, resolve);
      else this.#server.listen(where, "127.0.0.1", resolve);
    });
    return this;
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const ASK = Buffer.from("GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");

describe.skipIf(!PRESENT)("whoever reads a response differently, we are not the one who passes it on", () => {
  let oracles: Oracles;
  const scripts: Scripted[][] = Array.from({ length: LANES }, () => []);
  const proxies: Rig[] = [];

  beforeAll(async () => {
    oracles = await Oracles.start(LANES, async (where, _proxy, lane) => {
      scripts[lane]!.push(await new Scripted().listen(where));
    });
    for (const script of scripts) {
      const upstream = await new Scripted().listen(0);
      script.push(upstream);
      proxies.push(
        await rig([upstream.port], {
          routes: [{ id: "r", host: "a.test", path: "/", cluster: "web.shop" }],
        }),
      );
    }
  });
  afterAll(async () => {
    for (const proxy of proxies) await proxy[Symbol.asyncDispose]();
    await oracles?.[Symbol.asyncDispose]();
    for (const script of scripts.flat()) await script[Symbol.asyncDispose]();
  });

  /** Whether we passed `text` on, and what is wrong with how; empty when nothing is. */
  async function differences(text: string, lane: number): Promise<{ passed: boolean; wrong: string }> {
    for (const script of scripts[lane]!) script.text = text;
    const to = [
      { host: "127.0.0.1", port: proxies[lane]!.port },
      oracles.nginx[lane]!,
      oracles.haproxy[lane]!,
    ];
    const answers = await Promise.all(to.map((each) => converse(each, ASK)));
    const [we, nginx, haproxy] = answers.map((answer) => delivered(Buffer.from(answer, "latin1")));
    if (we === undefined || answers[0]!.includes("x-gilliam-reason")) return { passed: false, wrong: "" };
    const others: [string, Delivered | undefined][] = [
      ["nginx", nginx],
      ["HAProxy", haproxy],
      ["node:http", delivered(Buffer.from(text, "latin1"))],
    ];
    const wrong = others
      .filter(([, theirs]) => theirs !== undefined && theirs.status !== 502 && !same(we, theirs))
      .map(([name, theirs]) => `${name} delivers ${JSON.stringify(theirs)}, we ${JSON.stringify(we)}`);
    return { passed: true, wrong: wrong.join("\n") };
  }

  test(
    `${RUNS} responses, good ones and ones with a byte wrong (SEED=${SEED})`,
    { timeout: 60_000 + RUNS * 20 },
    async () => {
      const lines = fc.oneof(statusLine, fc.constantFrom("HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\n"));
      const texts = fc.sample(message(lines), { numRuns: RUNS, seed: SEED });
      const found: string[] = [];
      let next = 0;
      let passed = 0;
      const walk = async (lane: number) => {
        for (let index = next++; index < texts.length && found.length === 0; index = next++) {
          const outcome = await differences(texts[index]!, lane);
          passed += outcome.passed ? 1 : 0;
          if (outcome.wrong !== "") {
            found.push(`SEED=${SEED}, case ${index}, ${JSON.stringify(texts[index])}\n${outcome.wrong}`);
          }
        }
      };
      await Promise.all(proxies.map((_, lane) => walk(lane)));
      expect(found).toEqual([]);
      expect(passed).toBeGreaterThan(RUNS / 20); // Else nothing was compared.
    },
  );
});

interface Delivered {
  readonly status: number;
  readonly body: string;
}

/** The first final response, if it came whole. */
function delivered(bytes: Buffer): Delivered | undefined {
  const all: ReadMessage[] = readWithNode("response", bytes) ?? [];
  const final = all.find(({ status }) => status >= 200);
  return final?.complete === true ? { status: final.status, body: final.body } : undefined;
}

function same(a: Delivered, b: Delivered): boolean {
  return a.status === b.status && a.body === b.body;
}
