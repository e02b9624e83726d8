import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CANCEL, NO_ERROR } from "./constants.ts";
import { HpackEncoder } from "./hpack-encoder.ts";
import { EMPTY_SETTINGS, GET, HELLO, POST, Probe, data, encodedBlock, frame, headers } from "./test-kit.ts";

const TARGET = { method: "GET", scheme: "http", authority: "a.test", path: "/" };
const SERVER_HELLO = Buffer.concat([EMPTY_SETTINGS, frame(4, 1, 0)]);
const content = Buffer.alloc(100_000, "c");

/** A server that has received a request on stream 1. */
function served(...more: Uint8Array[]) {
  const probe = new Probe();
  probe.feed(HELLO, headers(1, GET), ...more);
  probe.frames();
  return { probe, stream: probe.streams.get(1)!, connection: probe.connection };
}

/** A client that has sent a request on stream 1. */
function asked(method = "GET") {
  const probe = new Probe("client");
  probe.feed(SERVER_HELLO);
  const stream = probe.connection.request({ ...TARGET, method }, [], true)!;
  probe.frames();
  return { probe, stream, connection: probe.connection };
}

const bytesOf = (probe: Probe, type = 0) =>
  probe.frames().reduce((sum, { type: seen, payload }) => sum + (seen === type ? payload.length : 0), 0);

describe("sending", () => {
  test("a response and its content leave in one write", () => {
    const probe = new Probe("server", {
      onHead: (stream) => {
        probe.connection.respond(stream, 200, ["content-length", "2"], false);
        probe.connection.sendData(stream, content, 0, 2, true);
      },
    });
    probe.feed(HELLO);
    probe.frames();
    const before = probe.writes;
    probe.feed(headers(1, GET), headers(3, GET));
    expect(probe.writes).toBe(before + 1);
    expect(probe.frames().map(({ type, flags, streamId }) => [type, flags, streamId])).toEqual([
      [1, 4, 1],
      [0, 1, 1],
      [1, 4, 3],
      [0, 1, 3],
    ]);
    expect(probe.connection.streamCount).toBe(0);
  });

  test("content stops at the stream's window and goes on when it opens (5.2)", () => {
    const { probe, stream, connection } = served();
    connection.respond(stream, 200, [], false);
    expect(connection.sendData(stream, content, 0, 100_000, true)).toBe(false);
    expect(bytesOf(probe)).toBe(65_535);
    probe.feed(frame(8, 0, 1, "00010000"));
    expect(bytesOf(probe)).toBe(0); // The connection's window is shut as well.
    probe.feed(frame(8, 0, 0, "00010000"));
    expect(bytesOf(probe)).toBe(100_000 - 65_535);
    expect(probe.log.at(-1)).toBe("head 1 GET / [] end");
    expect(connection.streamCount).toBe(0);
  });

  test("onDrain follows when queued content of an open stream has left", () => {
    const { probe, stream, connection } = served(frame(8, 0, 0, "00100000"));
    connection.respond(stream, 200, [], false);
    expect(connection.sendData(stream, content, 0, 100_000, false)).toBe(false);
    expect(probe.log).not.toContain("drain 1");
    probe.feed(frame(8, 0, 1, "00010000"));
    expect(probe.log.at(-1)).toBe("drain 1");
  });

  test("SETTINGS may shrink a window below zero (6.9.2)", () => {
    const { probe, stream, connection } = served();
    connection.respond(stream, 200, [], false);
    connection.sendData(stream, content, 0, 60_000, false);
    probe.feed(frame(4, 0, 0, "0004 00000001"));
    probe.frames();
    connection.sendData(stream, content, 0, 10, false);
    expect(bytesOf(probe)).toBe(0);
    probe.feed(frame(8, 0, 1, "0000ea60")); // 60,000 more make it exactly 1.
    expect(bytesOf(probe)).toBe(1);
  });

  test("streams with queued content take turns", () => {
    const probe = new Probe();
    probe.feed(
      HELLO,
      headers(1, GET),
      headers(3, GET),
      frame(8, 0, 1, "00100000"),
      frame(8, 0, 3, "00100000"),
    );
    for (const stream of probe.streams.values()) {
      probe.connection.respond(stream, 200, [], false);
      probe.connection.sendData(stream, content, 0, 100_000, true);
    }
    probe.frames();
    probe.feed(frame(8, 0, 0, "00010000"));
    const turns = probe.frames().map(({ streamId }) => streamId);
    expect(new Set(turns.slice(0, 2))).toEqual(new Set([1, 3]));
  });

  test("a transport that is full holds content back until it drains", () => {
    const { probe, stream, connection } = served();
    connection.respond(stream, 200, [], false);
    probe.accepts = false;
    connection.flush();
    expect(connection.sendData(stream, content, 0, 5_000, true)).toBe(false);
    expect(bytesOf(probe)).toBe(0);
    probe.accepts = true;
    connection.writable();
    expect(bytesOf(probe)).toBe(5_000);
  });

  test("trailers stand behind queued content", () => {
    const { probe, stream, connection } = served();
    connection.respond(stream, 200, [], false);
    connection.sendData(stream, content, 0, 70_000, false);
    connection.sendTrailers(stream, ["grpc-status", "0"]);
    probe.frames();
    probe.feed(frame(8, 0, 0, "00010000"), frame(8, 0, 1, "00010000"));
    const last = probe.frames().at(-1)!;
    expect([last.type, last.flags]).toEqual([1, 5]);
    expect(connection.streamCount).toBe(0);
  });

  test("a head longer than a frame continues (6.10)", () => {
    const { probe, stream, connection } = served();
    connection.respond(stream, 200, ["x-long", "v".repeat(40_000)], true);
    expect(probe.frames().map(({ type, flags }) => [type, flags])).toEqual([
      [1, 1],
      [9, 0],
      [9, 4],
    ]);
  });

  test("nothing is sent on a stream that is closed, reset or ended", () => {
    const { probe, stream, connection } = served();
    connection.reset(stream, CANCEL);
    connection.respond(stream, 200, [], true);
    connection.sendData(stream, content, 0, 10, true);
    connection.sendTrailers(stream, []);
    connection.reset(stream, CANCEL);
    expect(probe.frames().map(({ type }) => type)).toEqual([3]);
  });
});

describe("receiving", () => {
  test("content not consumed stops the peer at our window; more is an error (6.9.1)", () => {
    const probe = new Probe("server", {
      limits: { streamWindowBytes: 65_535, connectionWindowBytes: 1_000_000 },
    });
    probe.consumes = false;
    probe.feed(HELLO, headers(1, POST, false));
    for (let sent = 0; sent < 4; sent++) probe.feed(data(1, "x".repeat(16_384 - (sent === 3 ? 1 : 0))));
    expect(probe.errors()).toEqual([]);
    probe.feed(data(1, "x"));
    expect(probe.errors()).toEqual(["RST_STREAM 1 FLOW_CONTROL_ERROR"]);
  });

  test("consumed content opens both windows, in few frames", () => {
    const probe = new Probe("server", {
      limits: { streamWindowBytes: 65_535, connectionWindowBytes: 65_535 },
    });
    probe.feed(HELLO, headers(1, POST, false));
    for (let turn = 0; turn < 40; turn++) probe.feed(data(1, "x".repeat(10_000)));
    const updates = probe.frames().filter(({ type }) => type === 8);
    expect(updates.length).toBeLessThan(25);
    expect(new Set(updates.map(({ streamId }) => streamId))).toEqual(new Set([0, 1]));
    expect(probe.content(1).length).toBe(400_000);
  });

  test("octets of a reset stream still open the connection's window", () => {
    const probe = new Probe("server", { limits: { connectionWindowBytes: 65_535 } });
    probe.consumes = false;
    probe.feed(HELLO, headers(1, POST, false), data(1, "x".repeat(16_000)), data(1, "x".repeat(16_000)));
    probe.frames();
    probe.connection.reset(probe.streams.get(1)!, NO_ERROR);
    probe.feed(data(1, "x".repeat(16_000)));
    expect(probe.frames().filter(({ type, streamId }) => type === 8 && streamId === 0).length).toBe(1);
  });

  test("a peer's reset ends the exchange", () => {
    const { probe, connection } = served(frame(3, 0, 1, "00000008"));
    expect(probe.log.at(-1)).toBe("reset 1 CANCEL");
    expect(connection.streamCount).toBe(0);
  });

  test("equal heads are the same object, so that what is derived from them can be kept", () => {
    const heads: object[] = [];
    const probe = new Probe("server", { onHead: (_, head) => heads.push(head) });
    const encoder = new HpackEncoder();
    const next = (id: number) => frame(1, 5, id, encodedBlock(encoder, [...GET, "user-agent", "probe"]));
    probe.feed(HELLO, ...[1, 3, 5, 7, 9].map(next));
    expect(heads[4]).toBe(heads[3]);
    expect(heads[4]).toEqual(heads[0]);
  });
});

describe("a client", () => {
  test("sees an exchange with interim response, content and trailers", () => {
    const { probe } = asked();
    probe.feed(
      headers(1, [":status", "103", "link", "</a>"], false),
      headers(1, [":status", "200", "content-type", "application/grpc"], false),
      data(1, "hello"),
      headers(1, ["grpc-status", "0"]),
    );
    expect(probe.log).toEqual([
      "interim 1 103",
      "head 1 200 [content-type application/grpc]",
      "trailers 1 [grpc-status 0]",
    ]);
    expect(probe.content(1)).toBe("hello");
    expect(probe.connection.streamCount).toBe(0);
  });

  test.for([
    ["8.3.2 no :status", headers(1, ["x-a", "b"])],
    ["8.3.2 :status of two digits", headers(1, [":status", "99"])],
    ["8.3.2 :status out of range", headers(1, [":status", "600"])],
    ["8.3.2 :status with a sign", headers(1, [":status", "+20"])],
    ["8.3.2 a request's pseudo-header", headers(1, [":status", "200", ":path", "/"])],
    ["8.6 status 101", headers(1, [":status", "101"], false)],
    ["8.1 interim response that ends the stream", headers(1, [":status", "100"], true)],
    ["8.1 DATA before the head", data(1, "x")],
    ["8.2.2 connection", headers(1, [":status", "200", "connection", "close"])],
    [
      "8.1.1 less content than its length",
      Buffer.concat([headers(1, [":status", "200", "content-length", "3"], false), data(1, "ab", true)]),
    ],
    ["8.1.1 content in a 204", Buffer.concat([headers(1, [":status", "204"], false), data(1, "ab", true)])],
    [
      "RFC 9110 8.6 two lengths",
      headers(1, [":status", "200", "content-length", "0", "content-length", "1"]),
    ],
  ] as [string, Buffer][])("refuses a response: %s", ([, bytes]) => {
    const { probe } = asked();
    probe.feed(bytes);
    expect(probe.errors()).toEqual(["RST_STREAM 1 PROTOCOL_ERROR"]);
    expect(probe.log.at(-1)).toBe("reset 1 PROTOCOL_ERROR");
  });

  test.for([
    ["HEADERS on a stream it never opened (5.1)", headers(3, [":status", "200"])],
    ["HEADERS on an even stream (8.4)", headers(2, [":status", "200"])],
    ["PUSH_PROMISE (8.4)", frame(5, 4, 1, "00000002 82")],
    ["ENABLE_PUSH of 1 (6.5.2)", frame(4, 0, 0, "0002 00000001")],
  ] as [string, Buffer][])("ends the connection on %s", ([, bytes]) => {
    const { probe } = asked();
    probe.feed(bytes);
    expect(probe.errors()).toEqual(["GOAWAY PROTOCOL_ERROR"]);
    expect(probe.log).toEqual(["reset 1 PROTOCOL_ERROR", "close PROTOCOL_ERROR"]);
  });

  test("the length of a response to HEAD announces nothing (8.1.1)", () => {
    const { probe } = asked("HEAD");
    probe.feed(headers(1, [":status", "200", "content-length", "3"]));
    expect(probe.log).toEqual(["head 1 200 [content-length 3] end"]);
  });

  test("opens no more streams than the peer allows (5.1.2)", () => {
    const probe = new Probe("client");
    probe.feed(frame(4, 0, 0, "0003 00000002"));
    const opened = [1, 2, 3].map(() => probe.connection.request(TARGET, [], true)?.id);
    expect(opened).toEqual([1, 3, undefined]);
    probe.feed(headers(1, [":status", "204"]));
    expect(probe.connection.request(TARGET, [], true)?.id).toBe(5);
  });

  test("a GOAWAY resets what the peer has not seen as safe to send again (6.8)", () => {
    const { probe, connection } = asked();
    connection.request(TARGET, [], true);
    probe.feed(frame(7, 0, 0, "00000001 00000000"));
    expect(probe.log).toEqual(["reset 3 REFUSED_STREAM", "goaway NO_ERROR"]);
    expect(connection.capacity).toBe(0);
    probe.feed(headers(1, [":status", "204"]));
    expect(probe.log.slice(2)).toEqual(["head 1 204 [] end", "close NO_ERROR"]);
  });

  test("a server that resets each stream behind its whole response is no flood (8.1)", () => {
    const { probe, connection } = asked();
    for (let id = 1; id < 1_000; id += 2) {
      probe.feed(headers(id, [":status", "204"]), frame(3, 0, id, "00000000"));
      connection.request(TARGET, [], true);
    }
    expect(connection.closed).toBe(false);
  });

  test("too many interim responses reset the stream", () => {
    const { probe } = asked();
    for (let turn = 0; turn < 33; turn++) probe.feed(headers(1, [":status", "102"], false));
    expect(probe.errors()).toEqual(["RST_STREAM 1 ENHANCE_YOUR_CALM"]);
  });
});

describe("a graceful end", () => {
  test("GOAWAY in two steps: what was on its way is served, then nothing new (6.8)", () => {
    const { probe, stream, connection } = served();
    connection.shutdown();
    const [goaway, ping] = probe.frames();
    expect(goaway!.payload.readUInt32BE(0)).toBe(0x7fff_ffff);
    probe.feed(headers(3, GET));
    expect(probe.log.at(-1)).toBe("head 3 GET / [] end");
    probe.feed(frame(6, 1, 0, ping!.payload));
    expect(probe.frames()[0]!.payload.readUInt32BE(0)).toBe(3);
    probe.feed(headers(5, GET));
    expect(probe.log.at(-1)).toBe("head 3 GET / [] end");
    connection.respond(stream, 204, [], true);
    expect(connection.closed).toBe(false);
    connection.respond(probe.streams.get(3)!, 204, [], true);
    expect(probe.log.at(-1)).toBe("close NO_ERROR");
  });

  test("a peer that does not answer is not waited for", () => {
    const { probe, connection } = served();
    connection.shutdown();
    probe.frames();
    connection.tick(10_000);
    expect(probe.frames()).toEqual([]);
    connection.tick(10_001);
    expect(probe.frames()[0]!.payload.readUInt32BE(0)).toBe(1);
  });

  test("a peer that has ended its direction is not asked for a round trip", () => {
    const { probe, stream, connection } = served();
    connection.shutdown();
    connection.shutdown(true);
    expect(connection.closed).toBe(false);
    connection.respond(stream, 204, [], true);
    expect(probe.log.at(-1)).toBe("close NO_ERROR");
  });

  test("a lost transport resets everything and says nothing", () => {
    const { probe, connection } = served();
    connection.abort("socket closed");
    expect(probe.log.slice(1)).toEqual(["reset 1 INTERNAL_ERROR", "close INTERNAL_ERROR"]);
    expect(probe.frames()).toEqual([]);
  });
});

describe("floods end the connection, or are bounded", () => {
  const calm = "GOAWAY ENHANCE_YOUR_CALM";
  const flood = (probe: Probe, times: number, piece: (turn: number) => Buffer) => {
    for (let turn = 0; turn < times && !probe.connection.closed; turn++) probe.feed(piece(turn));
    return probe.errors();
  };

  test.for([
    [
      "rapid reset (CVE-2023-44487)",
      (turn: number) =>
        Buffer.concat([headers(2 * turn + 1, GET, false), frame(3, 0, 2 * turn + 1, "00000008")]),
    ],
    [
      "resets provoked from us (CVE-2025-8671)",
      (turn: number) =>
        Buffer.concat([headers(2 * turn + 1, GET, false), frame(8, 0, 2 * turn + 1, "00000000")]),
    ],
    ["malformed requests", (turn: number) => headers(2 * turn + 1, ["x", "y"])],
    ["PING (CVE-2019-9512)", () => frame(6, 0, 0, "0000000000000000")],
    ["SETTINGS (CVE-2019-9515)", () => frame(4, 0, 0)],
    ["PRIORITY (CVE-2019-9513)", () => frame(2, 0, 1, "0000000010")],
    ["unknown frames", () => frame(0xfe, 0, 0)],
    ["empty DATA (CVE-2019-9518)", (turn: number) => (turn === 0 ? headers(1, POST, false) : data(1, ""))],
    ["unasked acknowledgements", () => frame(4, 1, 0)],
  ] as [string, (turn: number) => Buffer][])("%s", ([, piece]) => {
    const probe = new Probe().feed(HELLO);
    expect(flood(probe, 2_000, piece).at(-1)).toBe(calm);
  });

  test("WINDOW_UPDATE", () => {
    const probe = new Probe("server", { limits: { windowUpdatesBurst: 500 } }).feed(HELLO);
    expect(flood(probe, 501, () => frame(8, 0, 0, "00000001"))).toEqual([calm]);
  });

  test("CONTINUATION (CVE-2024-27316), full or empty", () => {
    for (const payload of ["", "00".repeat(16_000)]) {
      const probe = new Probe().feed(HELLO, frame(1, 0, 1, ""));
      expect(flood(probe, 50, () => frame(9, 0, 1, payload))).toEqual([calm]);
    }
  });

  test("the same at a modest pace passes", () => {
    const probe = new Probe().feed(HELLO);
    for (let turn = 0; turn < 2_000; turn++) {
      probe.nowMs += 50;
      probe.feed(frame(6, 0, 0, "0000000000000000"));
    }
    expect(probe.connection.closed).toBe(false);
  });

  test("answers that nobody reads", () => {
    const limits = { controlsBurst: 100_000, unreadBytesMax: 10_000 };
    const probe = new Probe("server", { limits }).feed(HELLO);
    probe.accepts = false;
    expect(flood(probe, 2_000, () => frame(6, 0, 0, "0000000000000000"))).toEqual([calm]);
  });

  test("a head that never ends", () => {
    const probe = new Probe().feed(HELLO, frame(1, 0, 1, ""));
    probe.connection.tick(10_000);
    expect(probe.connection.closed).toBe(false);
    probe.connection.tick(10_001);
    expect(probe.errors()).toEqual([calm]);
  });

  test("a window that stays shut resets the stream alone", () => {
    const { probe, stream, connection } = served();
    connection.respond(stream, 200, [], false);
    connection.sendData(stream, content, 0, 100_000, true);
    probe.frames();
    for (let now = 0; now <= 60_000; now += 5_000) {
      connection.tick(now);
      probe.feed(frame(6, 1, 0, "616c6976653f2020"));
    }
    expect(connection.streamCount).toBe(1);
    connection.tick(60_001);
    expect(probe.errors()).toEqual(["RST_STREAM 1 ENHANCE_YOUR_CALM"]);
    expect(probe.log.at(-1)).toBe("reset 1 ENHANCE_YOUR_CALM");
  });

  test("SETTINGS that are never acknowledged", () => {
    const probe = new Probe();
    probe.connection.tick(10_001);
    expect(probe.errors()).toEqual(["GOAWAY SETTINGS_TIMEOUT"]);
  });

  test("a peer with open streams that fell silent (half-open TCP)", () => {
    const { probe, connection } = asked();
    connection.tick(10_000);
    connection.tick(20_000);
    expect(probe.frames().filter(({ type }) => type === 6).length).toBe(1);
    connection.tick(30_001);
    expect(probe.log).toEqual(["reset 1 NO_ERROR", "close NO_ERROR"]);
  });
});

describe("properties", () => {
  const dialogue = Buffer.concat([
    HELLO,
    headers(1, [...POST, "x-a", "b"], false),
    data(1, "hello "),
    frame(6, 0, 0, "0102030405060708"),
    frame(1, 0x21, 3, Buffer.concat([Buffer.alloc(5), Buffer.from("828684", "hex")])),
    frame(9, 0, 3, "41 06"),
    frame(9, 4, 3, Buffer.from("a.test")),
    data(1, "world"),
    headers(1, ["x-sum", "1"]),
    headers(5, [...GET, "Bad", "name"]),
    frame(8, 0, 0, "00000001"),
    headers(7, GET, false),
    frame(3, 0, 7, "00000008"),
    frame(5, 4, 1, "00"),
  ]);
  const feedIn = (cuts: number[]) => {
    const probe = new Probe();
    let at = 0;
    for (const cut of [...cuts.toSorted((a, b) => a - b), dialogue.length]) {
      probe.feed(dialogue.subarray(at, cut));
      at = cut;
    }
    return { log: probe.log, content: probe.content(1), frames: probe.frames() };
  };

  test("any cut of the octets gives the same events and answers", () => {
    const whole = feedIn([]);
    expect(whole.log.at(-1)).toBe("close PROTOCOL_ERROR");
    expect(whole.content).toBe("hello world");
    fc.assert(
      fc.property(fc.array(fc.nat({ max: dialogue.length }), { maxLength: 60 }), (cuts) => {
        expect(feedIn(cuts)).toEqual(whole);
      }),
    );
  });

  test("octet by octet as well", () => {
    expect(feedIn(Array.from(dialogue.keys()))).toEqual(feedIn([]));
  });

  test("arbitrary frames never throw, and whatever is reset is told once", () => {
    const anyFrame = fc
      .tuple(
        fc.nat({ max: 10 }),
        fc.nat({ max: 255 }),
        fc.constantFrom(0, 1, 2, 3, 5),
        fc.uint8Array({ maxLength: 40 }),
      )
      .map(([type, flags, id, payload]) => frame(type, flags, id, payload));
    const sane = fc.constantFrom(
      headers(1, GET),
      headers(3, POST, false),
      data(3, "abc"),
      headers(3, ["x", "y"]),
    );
    fc.assert(
      fc.property(
        fc.constantFrom("server" as const, "client" as const),
        fc.array(fc.oneof(anyFrame, sane), { maxLength: 30 }),
        (role, frames) => {
          const probe = new Probe(role);
          if (role === "client") {
            probe.connection.request(TARGET, [], true);
            probe.connection.request({ ...TARGET, method: "POST" }, [], false);
          }
          probe.feed(role === "server" ? HELLO : SERVER_HELLO, ...frames);
          const endings = probe.log.filter((line) => line.startsWith("reset "));
          expect(new Set(endings.map((line) => line.split(" ")[1])).size).toBe(endings.length);
          if (probe.connection.closed) expect(probe.connection.streamCount).toBe(0);
        },
      ),
      { numRuns: 3_000 },
    );
  });

  test("arbitrary octets never throw", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), (octets) => {
        new Probe().feed(octets);
        new Probe("client").feed(octets);
        new Probe().feed(HELLO, octets);
      }),
      { numRuns: 1_000 },
    );
  });

  test("a client and a server of our own exchange any content over any windows", () => {
    const lengths = fc.array(fc.nat({ max: 200_000 }), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(lengths, fc.integer({ min: 1_000, max: 100_000 }), (wanted, streamWindowBytes) => {
        const got: number[] = [];
        const server = new Probe("server", {
          limits: { streamWindowBytes },
          onData: (stream, _, start, end, endStream) => {
            if (start === 0 && end === 0 && !endStream) return;
            server.connection.consumed(stream, end - start);
            got[stream.id] = (got[stream.id] ?? 0) + end - start;
            if (endStream) server.connection.respond(stream, 204, [], true);
          },
        });
        const client = new Probe("client");
        for (const length of wanted) {
          const stream = client.connection.request({ ...TARGET, method: "POST" }, [], false)!;
          client.connection.sendData(stream, Buffer.alloc(length), 0, length, true);
        }
        shuttle(client, server);
        expect(client.log.filter((line) => line.endsWith("204 [] end")).length).toBe(wanted.length);
        expect(wanted.map((_, index) => got[2 * index + 1])).toEqual(wanted);
        expect([client.connection.streamCount, server.connection.streamCount]).toEqual([0, 0]);
      }),
      { numRuns: 60 },
    );
  });
});

/** Carries what either side sends to the other until both are silent. */
function shuttle(client: Probe, server: Probe): void {
  for (let quiet = 0; quiet < 2;) {
    const up = client.raw();
    server.feed(up);
    const down = server.raw();
    client.feed(down);
    quiet = up.length + down.length === 0 ? quiet + 1 : 0;
  }
}
