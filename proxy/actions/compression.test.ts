import { expect, test } from "vitest";
import { BODY } from "../http1/request-head.ts";
import { ResponseHead } from "../http1/response-head.ts";
import { type Coding, isCompressible, negotiate, negotiatedHead } from "./compression.ts";

const ALL: readonly Coding[] = ["zstd", "br", "gzip"];

test.for([
  [undefined, undefined],
  ["", undefined],
  ["gzip", "gzip"],
  ["gzip, deflate, br, zstd", "zstd"],
  ["gzip;q=1.0, br;q=0.9", "gzip"],
  ["GZIP ; Q=0.5", "gzip"],
  ["*", "zstd"],
  ["*;q=0.1, zstd;q=0", "br"],
  ["gzip;q=0", undefined],
  ["identity, gzip;q=0.5", undefined],
  ["identity;q=0.5, gzip;q=0.5", "gzip"],
  ["gzip;q=2, br;q=0.1", "br"], // What is no weight is no wish.
  ["deflate", undefined],
] as const)("who accepts %j gets %s", ([accepted, coding]) => {
  expect(negotiate(accepted, ALL)).toBe(coding);
});

function response(fields: string, change: Partial<ResponseHead> = {}): ResponseHead {
  return Object.assign(new ResponseHead(), { status: 200, body: BODY.chunked, fields, ...change });
}

const JSON_TYPE = "Content-Type: application/json; charset=utf-8\r\n";

test.for([
  [response(JSON_TYPE), true],
  [response("content-type: text/html\r\n"), true],
  [response("content-type: application/problem+json\r\n"), true],
  [response("content-type: text/event-stream\r\n"), false], // Would wait for more.
  [response("content-type: application/grpc\r\n"), false],
  [response("content-type: image/png\r\n"), false],
  [response(""), false],
  [response(`${JSON_TYPE}content-encoding: br\r\n`), false],
  [response(`${JSON_TYPE}Content-Range: bytes 0-1/2\r\n`), false],
  [response(`${JSON_TYPE}cache-control: public, no-transform\r\n`), false],
  [response(`${JSON_TYPE}repr-digest: sha-256=:x:\r\n`), false],
  [response(JSON_TYPE, { status: 206 }), false],
  [response(JSON_TYPE, { body: BODY.none }), false],
  [response(JSON_TYPE, { body: BODY.length, contentLength: 1023 }), false],
  [response(JSON_TYPE, { body: BODY.length, contentLength: 1024 }), true],
] as const)("case %$: may it be compressed", ([head, may]) => {
  expect(isCompressible(head, 1024)).toBe(may);
});

test("the head says what was done, and that others get something else", () => {
  const head = response(`${JSON_TYPE}Content-Length: 5000\r\nETag: "a"\r\nAccept-Ranges: bytes\r\n`, {
    body: BODY.length,
    contentLength: 5000,
  });
  const told = negotiatedHead(head, "br");
  expect(told.fields).toBe(`${JSON_TYPE}ETag: W/"a"\r\ncontent-encoding: br\r\nvary: accept-encoding\r\n`);
  expect(told.body).toBe(BODY.chunked);
  expect(negotiatedHead(head, undefined).fields).toBe(`${head.fields}vary: accept-encoding\r\n`);
  expect(head.fields).toContain("5000"); // It may be shared: untouched.
  const varied = response('vary: Origin, Accept-Encoding\r\netag: W/"b"\r\n');
  expect(negotiatedHead(varied, "gzip").fields).toBe(
    'vary: Origin, Accept-Encoding\r\netag: W/"b"\r\ncontent-encoding: gzip\r\n',
  );
});
