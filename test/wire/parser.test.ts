import * as fc from "fast-check";
import { expect, test } from "vitest";
import { upstreamHeadText } from "../../proxy/headers.ts";
import { ChunkedDecoder } from "../../proxy/http1/chunked.ts";
import { FAILED, NEED_MORE } from "../../proxy/http1/fields.ts";
import { BODY, RequestHead, parseRequestHead } from "../../proxy/http1/request-head.ts";
import { ResponseHead, parseResponseHead } from "../../proxy/http1/response-head.ts";
import { DEFAULT_LIMITS } from "../../proxy/limits.ts";
import { message, requestLine, statusLine } from "./messages.ts";
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
