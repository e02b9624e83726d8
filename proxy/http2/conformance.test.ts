import { describe, expect, test } from "vitest";
import { PREFACE } from "./constants.ts";
import { EMPTY_SETTINGS, GET, HELLO, POST, Probe, data, frame, headers, plainBlock } from "./test-kit.ts";

/** Without the given pseudo-headers or with others. */
const request = (...fields: string[]) => headers(1, fields);
const getWith = (...fields: string[]) => headers(1, [...GET, ...fields]);
const word = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
};
const openPost = headers(1, POST, false);

describe("a server ends the connection", () => {
  test.for([
    ["3.4 wrong preface", "PROTOCOL_ERROR", Buffer.from("GET / HTTP/1.1\r\n\r\n")],
    ["3.4 first frame is not SETTINGS", "PROTOCOL_ERROR", Buffer.concat([PREFACE, headers(1, GET)])],
    ["3.4 SETTINGS acknowledged before any", "PROTOCOL_ERROR", Buffer.concat([PREFACE, frame(4, 1, 0)])],
    [
      "4.2 frame above SETTINGS_MAX_FRAME_SIZE",
      "FRAME_SIZE_ERROR",
      frame(0, 0, 1, Buffer.alloc(16_385)),
      true,
    ],
    ["4.3 block that does not decode", "COMPRESSION_ERROR", frame(1, 5, 1, "80"), true],
    [
      "4.3 head interrupted by another type",
      "PROTOCOL_ERROR",
      Buffer.concat([frame(1, 1, 1, plainBlock(...GET)), frame(6, 0, 0, "0000000000000000")]),
      true,
    ],
    [
      "4.3 head continued on another stream",
      "PROTOCOL_ERROR",
      Buffer.concat([frame(1, 1, 1, plainBlock(...GET)), frame(9, 4, 3, "")]),
      true,
    ],
    ["5.1 DATA on an idle stream", "PROTOCOL_ERROR", data(1, "x"), true],
    ["5.1 RST_STREAM on an idle stream", "PROTOCOL_ERROR", frame(3, 0, 1, "00000008"), true],
    ["5.1 WINDOW_UPDATE on an idle stream", "PROTOCOL_ERROR", frame(8, 0, 1, "00000001"), true],
    [
      "5.1 HEADERS on a closed stream",
      "STREAM_CLOSED",
      Buffer.concat([headers(3, GET, false), frame(3, 0, 3, "00000008"), headers(3, GET)]),
      true,
    ],
    [
      "5.1 DATA on a closed stream",
      "STREAM_CLOSED",
      Buffer.concat([openPost, frame(3, 0, 1, "00000008"), data(1, "x")]),
      true,
    ],
    ["5.1.1 HEADERS on an even stream", "PROTOCOL_ERROR", headers(2, GET), true],
    [
      "5.1.1 HEADERS on a lower stream that was skipped",
      "STREAM_CLOSED",
      Buffer.concat([headers(5, GET, false), headers(3, GET)]),
      true,
    ],
    ["6.1 DATA on stream 0", "PROTOCOL_ERROR", data(0, "x"), true],
    [
      "6.1 padding longer than DATA",
      "PROTOCOL_ERROR",
      Buffer.concat([openPost, frame(0, 8, 1, "05 61")]),
      true,
    ],
    [
      "6.1 padded DATA without length",
      "FRAME_SIZE_ERROR",
      Buffer.concat([openPost, frame(0, 8, 1, "")]),
      true,
    ],
    ["6.2 HEADERS on stream 0", "PROTOCOL_ERROR", headers(0, GET), true],
    ["6.2 padding longer than HEADERS", "PROTOCOL_ERROR", frame(1, 0xd, 1, "ff 82"), true],
    ["6.2 priority cut off", "PROTOCOL_ERROR", frame(1, 0x25, 1, "00 00 00"), true],
    ["6.3 PRIORITY on stream 0", "PROTOCOL_ERROR", frame(2, 0, 0, "0000000000"), true],
    ["6.4 RST_STREAM on stream 0", "PROTOCOL_ERROR", frame(3, 0, 0, "00000008"), true],
    [
      "6.4 RST_STREAM of 3 octets",
      "FRAME_SIZE_ERROR",
      Buffer.concat([openPost, frame(3, 0, 1, "000008")]),
      true,
    ],
    ["6.5 SETTINGS on a stream", "PROTOCOL_ERROR", frame(4, 0, 1), true],
    ["6.5 SETTINGS of 5 octets", "FRAME_SIZE_ERROR", frame(4, 0, 0, "0001000000"), true],
    ["6.5 acknowledgement with content", "FRAME_SIZE_ERROR", frame(4, 1, 0, "000100000000"), true],
    ["6.5.2 ENABLE_PUSH of 2", "PROTOCOL_ERROR", frame(4, 0, 0, "0002 00000002"), true],
    ["6.5.2 INITIAL_WINDOW_SIZE above 2^31-1", "FLOW_CONTROL_ERROR", frame(4, 0, 0, "0004 80000000"), true],
    ["6.5.2 MAX_FRAME_SIZE below 16384", "PROTOCOL_ERROR", frame(4, 0, 0, "0005 00003fff"), true],
    ["6.5.2 MAX_FRAME_SIZE above 2^24-1", "PROTOCOL_ERROR", frame(4, 0, 0, "0005 01000000"), true],
    ["RFC 8441 3 ENABLE_CONNECT_PROTOCOL of 2", "PROTOCOL_ERROR", frame(4, 0, 0, "0008 00000002"), true],
    ["6.6 PUSH_PROMISE from a client", "PROTOCOL_ERROR", frame(5, 4, 1, "00000002 82"), true],
    ["6.7 PING on a stream", "PROTOCOL_ERROR", frame(6, 0, 1, "0000000000000000"), true],
    ["6.7 PING of 6 octets", "FRAME_SIZE_ERROR", frame(6, 0, 0, "000000000000"), true],
    ["6.8 GOAWAY on a stream", "PROTOCOL_ERROR", frame(7, 0, 1, "0000000000000000"), true],
    ["6.8 GOAWAY of 7 octets", "FRAME_SIZE_ERROR", frame(7, 0, 0, "00000000000000"), true],
    ["6.9 WINDOW_UPDATE by 0 on the connection", "PROTOCOL_ERROR", frame(8, 0, 0, "00000000"), true],
    ["6.9 WINDOW_UPDATE of 3 octets", "FRAME_SIZE_ERROR", frame(8, 0, 0, "000001"), true],
    [
      "6.9.1 the connection's window above 2^31-1",
      "FLOW_CONTROL_ERROR",
      frame(8, 0, 0, word(0x7fffffff)),
      true,
    ],
    [
      "6.9.2 INITIAL_WINDOW_SIZE overflows a stream",
      "FLOW_CONTROL_ERROR",
      Buffer.concat([openPost, frame(8, 0, 1, word(0x7fff0000)), frame(4, 0, 0, "0004 7fffffff")]),
      true,
    ],
    ["6.10 CONTINUATION without HEADERS", "PROTOCOL_ERROR", frame(9, 4, 1, plainBlock(...GET)), true],
    [
      "6.10 CONTINUATION behind END_HEADERS",
      "PROTOCOL_ERROR",
      Buffer.concat([openPost, frame(9, 4, 1, "")]),
      true,
    ],
  ] as [string, string, Buffer, boolean?][])("%s: %s", ([, code, bytes, greeted]) => {
    const probe = new Probe();
    probe.feed(...(greeted ? [HELLO] : []), bytes);
    expect(probe.errors()).toEqual([`GOAWAY ${code}`]);
    expect(probe.log.at(-1)).toBe(`close ${code}`);
    expect(probe.connection.closed).toBe(true);
    // Nothing that follows is heard or answered.
    const before = probe.log.length;
    probe.feed(headers(7, GET), frame(6, 0, 0, "0000000000000000"));
    expect(probe.frames()).toEqual([]);
    expect(probe.log.length).toBe(before);
  });
});

describe("a server refuses a request and goes on", () => {
  test.for([
    ["8.2.1 upper case in a name", "PROTOCOL_ERROR", getWith("X-Upper", "a")],
    ["8.2.1 LF in a value", "PROTOCOL_ERROR", getWith("x-split", "a\nb")],
    ["8.2.1 CR in a value", "PROTOCOL_ERROR", getWith("x-split", "a\rb")],
    ["8.2.1 NUL in a value", "PROTOCOL_ERROR", getWith("x-nul", "a\0b")],
    ["8.2.1 space at the start of a value", "PROTOCOL_ERROR", getWith("x-space", " a")],
    ["8.2.1 colon in a name", "PROTOCOL_ERROR", getWith("x:y", "a")],
    ["8.2.2 connection", "PROTOCOL_ERROR", getWith("connection", "close")],
    ["8.2.2 keep-alive", "PROTOCOL_ERROR", getWith("keep-alive", "1")],
    ["8.2.2 proxy-connection", "PROTOCOL_ERROR", getWith("proxy-connection", "close")],
    ["8.2.2 transfer-encoding", "PROTOCOL_ERROR", getWith("transfer-encoding", "chunked")],
    ["8.2.2 upgrade", "PROTOCOL_ERROR", getWith("upgrade", "h2c")],
    ["8.2.2 te other than trailers", "PROTOCOL_ERROR", getWith("te", "gzip, trailers")],
    ["8.3 unknown pseudo-header", "PROTOCOL_ERROR", request(...GET, ":own", "a")],
    ["8.3 a response's pseudo-header", "PROTOCOL_ERROR", request(...GET, ":status", "200")],
    ["8.3 pseudo-header behind a field", "PROTOCOL_ERROR", request("x-a", "a", ...GET)],
    ["8.3 pseudo-header twice", "PROTOCOL_ERROR", request(...GET, ":path", "/b")],
    ["8.3.1 no :method", "PROTOCOL_ERROR", request(...GET.slice(2))],
    ["8.3.1 :method is no token", "PROTOCOL_ERROR", request(":method", "G T", ...GET.slice(2))],
    ["8.3.1 no :scheme", "PROTOCOL_ERROR", request(":method", "GET", ":path", "/", ":authority", "a.test")],
    [
      "8.3.1 unknown :scheme",
      "PROTOCOL_ERROR",
      request(":method", "GET", ":scheme", "ftp", ":path", "/", ":authority", "a"),
    ],
    [
      "8.3.1 no :path",
      "PROTOCOL_ERROR",
      request(":method", "GET", ":scheme", "http", ":authority", "a.test"),
    ],
    [
      "8.3.1 empty :path",
      "PROTOCOL_ERROR",
      request(":method", "GET", ":scheme", "http", ":path", "", ":authority", "a"),
    ],
    [
      "8.3.1 :path without slash",
      "PROTOCOL_ERROR",
      request(":method", "GET", ":scheme", "http", ":path", "x", ":authority", "a"),
    ],
    [
      "8.3.1 space in :path (request smuggling)",
      "PROTOCOL_ERROR",
      request(":method", "GET", ":scheme", "http", ":path", "/ HTTP/1.1", ":authority", "a"),
    ],
    [
      "8.3.1 fragment in :path",
      "PROTOCOL_ERROR",
      request(":method", "GET", ":scheme", "http", ":path", "/#a", ":authority", "a"),
    ],
    [
      "8.3.1 asterisk without OPTIONS",
      "PROTOCOL_ERROR",
      request(":method", "GET", ":scheme", "http", ":path", "*", ":authority", "a"),
    ],
    [
      "8.3.1 neither :authority nor host",
      "PROTOCOL_ERROR",
      request(":method", "GET", ":scheme", "http", ":path", "/"),
    ],
    [
      "8.3.1 user information in :authority",
      "PROTOCOL_ERROR",
      request(...GET.slice(0, 6), ":authority", "me@a.test"),
    ],
    ["8.3.1 host differs from :authority", "PROTOCOL_ERROR", getWith("host", "b.test")],
    [
      "8.5 CONNECT with :path",
      "PROTOCOL_ERROR",
      request(":method", "CONNECT", ":path", "/", ":authority", "a.test:1"),
    ],
    ["8.5 CONNECT without :authority", "PROTOCOL_ERROR", request(":method", "CONNECT")],
    [
      "RFC 8441 4 :protocol that was not offered",
      "PROTOCOL_ERROR",
      request(
        ":method",
        "CONNECT",
        ":scheme",
        "http",
        ":path",
        "/",
        ":authority",
        "a",
        ":protocol",
        "websocket",
      ),
    ],
    ["8.1.1 END_STREAM, but content-length says 1", "PROTOCOL_ERROR", getWith("content-length", "1")],
    [
      "RFC 9110 8.6 content-length twice",
      "PROTOCOL_ERROR",
      getWith("content-length", "0", "content-length", "0"),
    ],
    ["RFC 9110 8.6 content-length is no number", "PROTOCOL_ERROR", getWith("content-length", "+0")],
    [
      "RFC 9110 8.6 content-length above 2^53",
      "PROTOCOL_ERROR",
      getWith("content-length", "9007199254740993"),
    ],
    ["8.1 an empty head", "PROTOCOL_ERROR", request()],
  ] as [string, string, Buffer][])("%s", ([, code, bytes]) => {
    const probe = new Probe();
    probe.feed(HELLO, bytes);
    expect(probe.errors()).toEqual([`RST_STREAM 1 ${code}`]);
    expect(probe.log).toEqual([`refused 1 ${code}`]);
    probe.feed(headers(3, GET));
    expect(probe.log.at(-1)).toBe("head 3 GET / [] end");
  });

  test("a head above the limit is answered 431 (10.5.1)", () => {
    const probe = new Probe("server", { limits: { headBytesMax: 1_000 } });
    probe.feed(HELLO, headers(1, [...POST, "x-long", "a".repeat(1_000)], false), data(1, "late"));
    const frames = probe.frames().filter(({ streamId }) => streamId === 1);
    expect(frames.map(({ type }) => type)).toEqual([1, 3]);
    expect(probe.connection.closed).toBe(false);
  });

  test("streams above our limit are refused so that they may be sent again (5.1.2, 8.7)", () => {
    const probe = new Probe("server", { limits: { streamsMax: 2 } });
    probe.feed(HELLO, headers(1, GET, false), headers(3, GET, false), headers(5, GET, false));
    expect(probe.errors()).toEqual(["RST_STREAM 5 REFUSED_STREAM"]);
  });
});

describe("a server resets a stream it has handed out", () => {
  test.for([
    ["5.1 DATA behind END_STREAM", "STREAM_CLOSED", Buffer.concat([headers(1, POST, true), data(1, "x")])],
    [
      "5.1 HEADERS behind END_STREAM",
      "STREAM_CLOSED",
      Buffer.concat([headers(1, POST, true), headers(1, ["x-a", "b"])]),
    ],
    ["6.9 WINDOW_UPDATE by 0", "PROTOCOL_ERROR", Buffer.concat([openPost, frame(8, 0, 1, "00000000")])],
    [
      "6.9.1 the stream's window above 2^31-1",
      "FLOW_CONTROL_ERROR",
      Buffer.concat([openPost, frame(8, 0, 1, word(0x7fffffff))]),
    ],
    ["6.3 PRIORITY of 4 octets", "FRAME_SIZE_ERROR", Buffer.concat([openPost, frame(2, 0, 1, "00000000")])],
    [
      "8.1 trailers without END_STREAM",
      "PROTOCOL_ERROR",
      Buffer.concat([openPost, headers(1, ["x-a", "b"], false)]),
    ],
    [
      "8.1 pseudo-header in trailers",
      "PROTOCOL_ERROR",
      Buffer.concat([openPost, headers(1, [":path", "/"])]),
    ],
    [
      "8.2.2 connection in trailers",
      "PROTOCOL_ERROR",
      Buffer.concat([openPost, headers(1, ["connection", "x"])]),
    ],
    [
      "RFC 9110 6.5.1 content-length in trailers",
      "PROTOCOL_ERROR",
      Buffer.concat([openPost, headers(1, ["content-length", "0"])]),
    ],
    [
      "8.1.1 more content than its length",
      "PROTOCOL_ERROR",
      Buffer.concat([headers(1, [...POST, "content-length", "2"], false), data(1, "abc")]),
    ],
    [
      "8.1.1 less content than its length",
      "PROTOCOL_ERROR",
      Buffer.concat([headers(1, [...POST, "content-length", "2"], false), data(1, "a", true)]),
    ],
    [
      "8.1.1 less content than its length, then trailers",
      "PROTOCOL_ERROR",
      Buffer.concat([
        headers(1, [...POST, "content-length", "2"], false),
        data(1, "a"),
        headers(1, ["x-a", "b"]),
      ]),
    ],
  ] as [string, string, Buffer][])("%s", ([, code, bytes]) => {
    const probe = new Probe();
    probe.feed(HELLO, bytes);
    expect(probe.errors()).toEqual([`RST_STREAM 1 ${code}`]);
    expect(probe.log.at(-1)).toBe(`reset 1 ${code}`);
    // Late frames of the same stream are forgiven, though the window counts them (5.1 "closed").
    probe.feed(data(1, "late"), headers(1, ["x-late", "1"]), frame(3, 0, 1, "00000008"), headers(3, GET));
    expect(probe.log.at(-1)).toBe("head 3 GET / [] end");
  });
});

describe("a server takes what is right, however odd", () => {
  test.for([
    [
      "padding and priority on HEADERS (6.2)",
      frame(
        1,
        0x2d,
        1,
        Buffer.concat([Buffer.from([3, 0, 0, 0, 0, 15]), plainBlock(...GET), Buffer.alloc(3)]),
      ),
      "head 1 GET / [] end",
    ],
    [
      "OPTIONS * (8.3.1)",
      request(":method", "OPTIONS", ":scheme", "http", ":path", "*", ":authority", "a"),
      "head 1 OPTIONS * [] end",
    ],
    ["host instead of :authority", request(...GET.slice(0, 6), "host", "a.test"), "head 1 GET / [] end"],
    ["host equal to :authority", getWith("host", "a.test", "x-a", "b"), "head 1 GET / [x-a b] end"],
    [
      "crumbs of cookie (8.2.3)",
      getWith("cookie", "a=1", "x-a", "b", "cookie", "c=2"),
      "head 1 GET / [cookie a=1; c=2 x-a b] end",
    ],
    ["te: trailers (8.2.2)", getWith("te", "trailers"), "head 1 GET / [te trailers] end"],
    ["an empty value", getWith("x-empty", ""), "head 1 GET / [x-empty ] end"],
    ["CONNECT (8.5)", request(":method", "CONNECT", ":authority", "a.test:443"), "head 1 CONNECT  [] end"],
    ["a reserved bit in the stream id (4.1)", headers(0x8000_0001, GET), "head 1 GET / [] end"],
    [
      "unknown frame types, flags and settings (5.5)",
      Buffer.concat([frame(0xfa, 0xff, 1, "00"), frame(4, 0, 0, "00f0 00000001"), headers(1, GET)]),
      "head 1 GET / [] end",
    ],
    [
      "PRIORITY on an idle stream (6.3)",
      Buffer.concat([frame(2, 0, 1, "0000000010"), headers(1, GET)]),
      "head 1 GET / [] end",
    ],
    [
      "a head in many pieces (6.10)",
      Buffer.concat([
        frame(1, 1, 1, plainBlock(...GET).subarray(0, 3)),
        frame(9, 0, 1, plainBlock(...GET).subarray(3, 20)),
        frame(9, 4, 1, plainBlock(...GET).subarray(20)),
      ]),
      "head 1 GET / [] end",
    ],
    [
      "padded DATA (6.1)",
      Buffer.concat([headers(1, [...POST, "content-length", "2"], false), frame(0, 9, 1, "02 6162 0000")]),
      "end 1",
    ],
    [
      "trailers (8.1)",
      Buffer.concat([openPost, data(1, "x"), headers(1, ["x-sum", "1"])]),
      "trailers 1 [x-sum 1]",
    ],
    [
      "WINDOW_UPDATE behind END_STREAM (5.1)",
      Buffer.concat([headers(1, GET), frame(8, 0, 1, "00000001")]),
      "head 1 GET / [] end",
    ],
  ] as [string, Buffer, string][])("%s", ([, bytes, last]) => {
    const probe = new Probe();
    probe.feed(HELLO, bytes);
    expect(probe.errors()).toEqual([]);
    expect(probe.log.at(-1)).toBe(last);
  });

  test("an extended CONNECT once it is offered (RFC 8441, 4)", () => {
    const probe = new Probe("server", { extendedConnect: true });
    probe.feed(
      HELLO,
      headers(
        1,
        [
          ":method",
          "CONNECT",
          ":scheme",
          "http",
          ":path",
          "/chat",
          ":authority",
          "a",
          ":protocol",
          "websocket",
        ],
        false,
      ),
    );
    expect(probe.log).toEqual(["head 1 CONNECT /chat []"]);
    expect(probe.frames()[0]!.payload.toString("hex")).toContain("000800000001");
  });

  test("SETTINGS and PING are acknowledged, content in place (6.5.3, 6.7)", () => {
    const probe = new Probe();
    probe.frames();
    probe.feed(PREFACE, EMPTY_SETTINGS, frame(6, 0, 0, "0102030405060708"));
    const answers = probe.frames().map(({ type, flags, payload }) => [type, flags, payload.toString("hex")]);
    expect(answers).toEqual([
      [4, 1, ""],
      [6, 1, "0102030405060708"],
    ]);
  });
});
