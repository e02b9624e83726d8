import * as fc from "fast-check";
import { expect, test } from "vitest";
import { upstreamHeadText } from "../../proxy/headers.ts";
import { ChunkedDecoder } from "../../proxy/http1/chunked.ts";
import { FAILED, NEED_MORE } from "../../proxy/http1/fields.ts";
import { BODY, RequestHead, parseRequestHead } from "../../proxy/http1/request-head.ts";
import { ResponseHead, parseResponseHead } from "../../proxy/http1/response-head.ts";
import { DEFAULT_LIMITS } from "../../proxy/limits.ts";
import { NODE_METHODS, readWithNode } from "./node-parser.ts";

/**
 * Differential tests: whatever our parser accepts must mean the same to node:http's, both as it came in and as it
 * goes out. Refusing more than Node is what we are for; reading anything differently is a hole.
 */
const RUNS = Number(process.env["FUZZ_RUNS"] ?? 3000);
const params = {
  numRuns: RUNS,
  ...(process.env["SEED"] === undefined ? {} : { seed: Number(process.env["SEED"]) }),
};

interface OurMessage {
  readonly head: RequestHead;
  readonly body: string;
  readonly end: number;
}

function readRequest(bytes: Buffer): OurMessage | "refused" | "incomplete" {
  const head = new RequestHead();
  const end = parseRequestHead(bytes, 0, bytes.length, head, DEFAULT_LIMITS, true);
  if (end === FAILED) return "refused";
  if (end === NEED_MORE) return "incomplete";
  const body = readBody(bytes, end, head.body, head.contentLength);
  return typeof body === "string" ? body : { head, body: body.text, end: body.end };
}

function readBody(
  bytes: Buffer,
  from: number,
  kind: number,
  length: number,
): { text: string; end: number } | "refused" | "incomplete" {
  if (kind === BODY.none) return { text: "", end: from };
  if (kind === BODY.close) return { text: bytes.toString("latin1", from), end: bytes.length };
  if (kind === BODY.length) {
    if (bytes.length - from < length) return "incomplete";
    return { text: bytes.toString("latin1", from, from + length), end: from + length };
  }
  const copy = Buffer.from(bytes);
  const decoder = new ChunkedDecoder();
  if (!decoder.decode(copy, from, copy.length)) return "refused";
  if (!decoder.done) return "incomplete";
  return { text: copy.toString("latin1", decoder.dataStart, decoder.dataEnd), end: decoder.end };
}

const SENTINEL = "GET /sentinel HTTP/1.1\r\nHost: s\r\n\r\n";
const end = fc.constantFrom("\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\n\r\n");
const space = fc.constantFrom("", " ", " ", " ", " ", "\t", "  ", "\u000b", "\u00a0", " \r\n ");
const name = fc.constantFrom(
  "Host",
  "host",
  "Content-Length",
  "content-length",
  "Content_Length",
  "Transfer-Encoding",
  "TRANSFER-ENCODING",
  "Connection",
  "Upgrade",
  "Expect",
  "TE",
  "Trailer",
  "X-A",
  "Cookie",
  "Keep-Alive",
  "X-Forwarded-For",
  "x\u00e9",
  "X-Gilliam-From",
  "Content-Length ",
  " X",
  "",
  "X\u0000Y",
);
const value = fc.constantFrom(
  "a",
  "a.test",
  "a.test:80",
  "0",
  "3",
  "5",
  "+5",
  "05",
  "5, 5",
  "0x5",
  "-1",
  "5 5",
  "99999999999999999999",
  "chunked",
  "Chunked",
  "chunked, chunked",
  "gzip, chunked",
  "chunked, gzip",
  "identity",
  "\tchunked",
  "chunked\u000b",
  "close",
  "keep-alive",
  "upgrade",
  "Upgrade, x-a",
  "websocket",
  "h2c",
  "100-continue",
  "",
  "a\u0000b",
  "a\rb",
  "a\nb",
  "caf\u00e9",
  "x".repeat(300),
);
const field = fc
  .tuple(name, space, fc.constantFrom(":", ":", ":", ":", ":", "", "="), space, value, space, end)
  .map(
    ([name, before, colon, after, value, behind, eol]) =>
      `${name}${before === " " ? "" : before}${colon}${after}${value}${behind}${eol}`,
  );
const goodField = fc.constantFrom(
  "X-B: c d \r\n",
  "Content-Length: 5\r\n",
  "Transfer-Encoding: chunked\r\n",
  "X-A: b\r\n",
  "Connection: close\r\n",
);
const requestLine = fc
  .tuple(
    fc.constantFrom(
      "GET",
      "POST",
      "PUT",
      "HEAD",
      "OPTIONS",
      "DELETE",
      "PATCH",
      "CONNECT",
      "TRACE",
      "get",
      "G\u00e9T",
      "PRI",
      "",
    ),
    fc.constantFrom(" ", " ", " ", " ", "  ", "\t"),
    fc.constantFrom(
      "/",
      "/",
      "/a?b",
      "*",
      "http://a.test/",
      "http://a.test",
      "http://u@a.test/",
      "a.test:80",
      "//b",
      "/\u00e9",
      "/a#b",
      "/a b",
      "",
    ),
    fc.constantFrom(" ", " ", " ", " ", "  ", ""),
    fc.constantFrom(
      "HTTP/1.1",
      "HTTP/1.1",
      "HTTP/1.1",
      "HTTP/1.0",
      "HTTP/1.2",
      "HTTP/2.0",
      "HTTP/0.9",
      "http/1.1",
      "HTTP/1.01",
      "HTTP/11",
      "",
    ),
    end,
  )
  .map((parts) => parts.join(""));
const chunk = fc
  .tuple(
    fc.constantFrom("5", "5", "5", "05", "0x5", "+5", " 5", "5 ", "a", "fffffffffffffffff", "g", ""),
    fc.constantFrom("", "", "", ";a=b", ';a="b"', "; a", " ;a", ";\n", ";a\rb"),
    end,
    fc.constantFrom("hello", "hello", "hell", "hello!"),
    end,
  )
  .map((parts) => parts.join(""));
const goodChunk = fc.constantFrom("5\r\nhello\r\n", "A\r\n0123456789\r\n", "1;x=y\r\n!\r\n");
const lastChunk = fc.constantFrom(
  "0\r\n\r\n",
  "0\r\n\r\n",
  "000\r\n\r\n",
  "0\r\nX-T: 1\r\n\r\n",
  "0\n\n",
  "0\r\nContent-Length: 9\r\n\r\n",
  "0\r\n X: y\r\n\r\n",
);
const body = fc.oneof(
  fc.constantFrom("", "hello", "hello world"),
  fc
    .tuple(fc.array(fc.oneof(goodChunk, goodChunk, chunk), { maxLength: 3 }), lastChunk)
    .map(([chunks, last]) => chunks.join("") + last),
);
const edit = fc.tuple(
  fc.nat(),
  fc.constantFrom("insert", "delete", "replace"),
  fc.constantFrom("\r", "\n", "\u0000", " ", "\t", ":", ",", ";", "\u000b", "\u00ff", "\r\n", "0", "a"),
);
const message = (first: fc.Arbitrary<string>) =>
  fc
    .tuple(
      first,
      fc.constantFrom("Host: a.test\r\n", "Host: a.test\r\n", "Host: a.test\r\n", ""),
      fc.array(fc.oneof({ weight: 9, arbitrary: goodField }, { weight: 1, arbitrary: field }), {
        maxLength: 4,
      }),
      fc.oneof({ weight: 9, arbitrary: fc.constant("\r\n") }, { weight: 1, arbitrary: end }),
      body,
      fc.oneof(
        { weight: 2, arbitrary: fc.constant([]) },
        { weight: 1, arbitrary: fc.array(edit, { maxLength: 2 }) },
      ),
    )
    .map(([line, host, fields, empty, body, edits]) => {
      let text = line + host + fields.join("") + empty + body;
      for (const [place, kind, what] of edits) {
        const at = place % (text.length + 1);
        text =
          text.slice(0, at) + (kind === "delete" ? "" : what) + text.slice(kind === "insert" ? at : at + 1);
      }
      return text;
    });

test("a request we accept means the same to node's parser, before and behind us", () => {
  let accepted = 0;
  fc.assert(
    fc.property(
      message(fc.oneof(requestLine, fc.constantFrom("GET / HTTP/1.1\r\n", "POST /p HTTP/1.1\r\n"))),
      (text) => {
        const bytes = Buffer.from(text, "latin1");
        const ours = readRequest(bytes);
        if (typeof ours === "string") return;
        if (!NODE_METHODS.has(ours.head.method)) return; // Node knows a list; we carry any token.
        accepted += 1;
        const alone = bytes.subarray(0, ours.end);
        const goesOn = ours.head.upgrade === "" && ours.head.keepAlive;
        const theirs = readWithNode(
          "request",
          goesOn ? Buffer.concat([alone, Buffer.from(SENTINEL)]) : alone,
        );
        if (goesOn) expect(theirs?.map(({ target }) => target)[1]).toBe("/sentinel");
        const [first] = theirs ?? [];
        expect(first).toMatchObject({ method: ours.head.method, body: ours.body, complete: true });
        if (first!.target.startsWith("/")) expect(first!.target).toBe(ours.head.target);
        const sent = upstreamHeadText(ours.head, ours.head.host, "", "id") + framed(ours);
        const received = readWithNode("request", Buffer.from(sent + SENTINEL, "latin1"));
        expect(received).toHaveLength(ours.head.upgrade === "" ? 2 : 1);
        expect(received![0]).toMatchObject({
          method: ours.head.method,
          target: ours.head.target,
          body: ours.body,
        });
        expect(received![0]!.fields.filter(([name]) => name === "host")).toEqual([["host", ours.head.host]]);
      },
    ),
    params,
  );
  expect(accepted).toBeGreaterThan(RUNS / 20);
});

function framed({ head, body }: OurMessage): string {
  if (head.body !== BODY.chunked) return body;
  return body === "" ? "0\r\n\r\n" : `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
}

test("a response we accept means the same to node's parser", () => {
  const statusLine = fc
    .tuple(
      fc.constantFrom("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "http/1.1"),
      fc.constantFrom(" ", " ", " ", "  ", "\t"),
      fc.constantFrom("200", "200", "204", "304", "404", "099", "600", "2x0", "20", "1000"),
      fc.constantFrom(" OK", " OK", "", " ", " a\u0000", " caf\u00e9"),
      end,
    )
    .map((parts) => parts.join(""));
  let accepted = 0;
  fc.assert(
    fc.property(
      message(fc.oneof(statusLine, fc.constant("HTTP/1.1 200 OK\r\n"))),
      fc.boolean(),
      (text, head) => {
        const bytes = Buffer.from(text, "latin1");
        const response = new ResponseHead();
        const end = parseResponseHead(
          bytes,
          0,
          bytes.length,
          response,
          head ? "HEAD" : "GET",
          DEFAULT_LIMITS,
        );
        if (end < 0) return;
        const ours = readBody(bytes, end, response.body, response.contentLength);
        if (typeof ours === "string") return;
        accepted += 1;
        const theirs = readWithNode("response", bytes.subarray(0, ours.end), head);
        expect(theirs).toHaveLength(1);
        expect(theirs![0]).toMatchObject({ status: response.status, body: ours.text });
      },
    ),
    params,
  );
  expect(accepted).toBeGreaterThan(RUNS / 20);
});

test("a head means the same wherever the network cuts it, and is never taken for whole too early", () => {
  const text = "POST /a HTTP/1.1\r\nHost: a.test\r\nX-A:  b \r\nContent-Length: 5\r\nConnection: x-a\r\n\r\n";
  const bytes = Buffer.from(text);
  const head = new RequestHead();
  for (let length = 0; length < bytes.length; length += 1) {
    expect(parseRequestHead(bytes, 0, length, head, DEFAULT_LIMITS, true)).toBe(NEED_MORE);
  }
  expect(parseRequestHead(bytes, 0, bytes.length, head, DEFAULT_LIMITS, true)).toBe(bytes.length);
  expect(head).toMatchObject({ method: "POST", target: "/a", host: "a.test", contentLength: 5 });
  expect(head.fields).toBe("Content-Length: 5\r\n");
});

test("chunks come out the same wherever the network cuts them", () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 6 });
  fc.assert(
    fc.property(sizes, fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }), (sizes, cuts) => {
      const data = sizes.map((size, index) => String.fromCharCode(97 + index).repeat(size));
      const text = `${data.map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join("")}0\r\nx: y\r\n\r\nNEXT`;
      const decoder = new ChunkedDecoder();
      let out = "";
      let at = 0;
      for (let turn = 0; !decoder.done && at < text.length; turn += 1) {
        const piece = Buffer.from(text.slice(at, at + cuts[turn % cuts.length]!));
        expect(decoder.decode(piece, 0, piece.length)).toBe(true);
        out += piece.toString("latin1", decoder.dataStart, decoder.dataEnd);
        at += decoder.end;
      }
      expect(out).toBe(data.join(""));
      expect(text.slice(at)).toBe("NEXT");
    }),
    params,
  );
});
