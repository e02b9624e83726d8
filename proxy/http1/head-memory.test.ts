import { expect, test } from "vitest";
import { upstreamHeadText, downstreamHeadText } from "../headers.ts";
import { DEFAULT_LIMITS, type EngineLimits } from "../limits.ts";
import { FAILED, NEED_MORE } from "./fields.ts";
import { RequestHead, parseRequestHead } from "./request-head.ts";
import { ResponseHead, parseResponseHead } from "./response-head.ts";

/** As if never seen: what is remembered belongs to one object of limits. */
const unseen = (): EngineLimits => ({ ...DEFAULT_LIMITS });

function readRequest(text: string, limits: EngineLimits, trusted = false): [number, RequestHead] {
  const head = new RequestHead();
  // At another place in its buffer each time.
  const bytes = Buffer.from(`..${text}`, "latin1");
  return [parseRequestHead(bytes, 2, bytes.length, head, limits, trusted) - 2, head];
}

function readResponse(text: string, limits: EngineLimits, method = "GET"): [number, ResponseHead] {
  const head = new ResponseHead();
  const bytes = Buffer.from(text, "latin1");
  return [parseResponseHead(bytes, 0, bytes.length, head, method, limits), head];
}

const without = (head: object) => Object.assign({}, head, { remembered: undefined });

const REQUESTS = [
  "GET /a?b=1 HTTP/1.1\r\nHost: Shop.test\r\nAccept: */*\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
  "HEAD / HTTP/1.0\r\n\r\n",
  "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncookie: a=1\r\ncookie: b=2\r\nx-request-id: r1\r\n\r\nhello",
  "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\nte: trailers\r\nx: \xe9\r\n\r\n",
  "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade, x-y\r\nupgrade: websocket\r\nx-y: 1\r\n\r\n",
  "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-request-deadline: 1500\r\n\r\n",
];

test.for(REQUESTS)("a request read again means what it meant when it was new (%#)", (text) => {
  const limits = unseen();
  const [end, first] = readRequest(text, limits);
  readRequest(text, limits);
  const [endAgain, again] = readRequest(text, limits);
  expect(end).toBeGreaterThan(0);
  expect(endAgain).toBe(end);
  expect(again.remembered).toBeInstanceOf(RequestHead);
  expect(without(again)).toEqual(without(first));
  expect(upstreamHeadText(again, again.host, "via: x\r\n", "r")).toBe(
    upstreamHeadText(first, first.host, "via: x\r\n", "r"),
  );
});

const RESPONSES = [
  "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\n\r\nok",
  "HTTP/1.1 204 No Content\r\nkeep-alive: timeout=5\r\nconnection: keep-alive\r\n\r\n",
  "HTTP/1.0 404\r\nx: \xe9\r\n\r\nbody until the end",
  "HTTP/1.1 500 Gone Wrong\r\ntransfer-encoding: chunked\r\nconnection: close, x-y\r\nx-y: 1\r\n\r\n",
];

test.for(RESPONSES)("a response read again means what it meant when it was new (%#)", (text) => {
  const limits = unseen();
  const [end, first] = readResponse(text, limits);
  readResponse(text, limits);
  const [endAgain, again] = readResponse(text, limits);
  expect(end).toBeGreaterThan(0);
  expect(endAgain).toBe(end);
  expect(again.remembered).toBeInstanceOf(ResponseHead);
  expect(without(again)).toEqual(without(first));
  expect(downstreamHeadText(again, "a: 1\r\n", "b: 2\r\n")).toBe(
    downstreamHeadText(first, "a: 1\r\n", "b: 2\r\n"),
  );
});

test("who trusts forwarded fields and who does not read the same bytes differently", () => {
  const limits = unseen();
  const text = REQUESTS[0]!;
  for (let time = 0; time < 3; time += 1) {
    expect(readRequest(text, limits, false)[1].fields).not.toContain("1.2.3.4");
    expect(readRequest(text, limits, true)[1].fields).toContain("1.2.3.4");
  }
});

test("the answer to HEAD has no body, the same one to GET has", () => {
  const limits = unseen();
  for (let time = 0; time < 3; time += 1) {
    expect(readResponse(RESPONSES[0]!, limits, "HEAD")[1].body).toBe(0);
    expect(readResponse(RESPONSES[0]!, limits, "GET")[1].body).toBe(1);
  }
});

test("one byte makes it another head, and nothing that was refused is remembered", () => {
  const limits = unseen();
  const text = "GET /abc HTTP/1.1\r\nhost: shop.test\r\nx-a: 1\r\n\r\n";
  for (let at = 0; at < text.length; at += 1) {
    for (const byte of ["\0", "\r", "\n", " ", ":", "B"]) {
      const changed = text.slice(0, at) + byte + text.slice(at + 1);
      const fresh = readRequest(changed, unseen());
      for (let time = 0; time < 2; time += 1) expect(readRequest(text, limits)[0]).toBe(text.length);
      for (let time = 0; time < 3; time += 1) {
        const [end, { method, target, host, fields, problem }] = readRequest(changed, limits);
        expect(end).toBe(fresh[0]);
        if (end > 0) expect({ method, target, host, fields }).toMatchObject(pick(fresh[1]));
        else expect(problem).toBe(fresh[1].problem);
      }
    }
  }
});

const pick = ({ method, target, host, fields }: RequestHead) => ({ method, target, host, fields });

test("a head cut short is awaited, however well its beginning is known", () => {
  const limits = unseen();
  const text = REQUESTS[0]!;
  readRequest(text, limits);
  readRequest(text, limits);
  for (let length = 1; length < text.length; length += 1) {
    expect(readRequest(text.slice(0, length), limits)[0] + 2).toBe(NEED_MORE);
  }
});

test("what stands behind a head does not count", () => {
  const limits = unseen();
  const [text, other] = ["GET /1 HTTP/1.1\r\nhost: a\r\n\r\n", "GET /1 HTTP/1.1\r\nhost: a\r\nbroken"];
  readRequest(text + other, limits);
  readRequest(text + other, limits);
  expect(readRequest(text + other, limits)[0]).toBe(text.length);
  expect(readRequest(`${other}\n${" ".repeat(text.length - 1)}`, limits)[0] + 2).toBe(FAILED);
});

test("a head that was changed on its way is sent as it was changed", () => {
  const limits = unseen();
  const text = REQUESTS[0]!;
  readRequest(text, limits);
  readRequest(text, limits);
  const [, request] = readRequest(text, limits);
  const before = upstreamHeadText(request, request.host, "", "r");
  request.target = "/other";
  request.fields += "x-new: 1\r\n";
  const changed = upstreamHeadText(request, "elsewhere", "", "r");
  expect(changed).toMatch(/^GET \/other HTTP\/1.1\r\nhost: elsewhere\r\n[^]*x-new: 1\r\n/);
  expect(upstreamHeadText(readRequest(text, limits)[1], request.host, "", "r")).toBe(before);

  readResponse(RESPONSES[0]!, limits);
  readResponse(RESPONSES[0]!, limits);
  const [, response] = readResponse(RESPONSES[0]!, limits);
  response.status = 500;
  response.fields = "";
  expect(downstreamHeadText(response, "", "")).toBe("HTTP/1.1 500 OK\r\n\r\n");
  expect(downstreamHeadText(readResponse(RESPONSES[0]!, limits)[1], "", "")).toContain("date: now");
});
