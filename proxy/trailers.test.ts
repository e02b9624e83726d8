import { expect, test } from "vitest";
import { forwardableTrailers, isRefusedTrailer, lastChunk } from "./trailers.ts";

test("trailers that only belong in a head are left out, whatever their spelling", () => {
  const fields = [
    "x-sum",
    "1",
    "authorization",
    "x",
    "x_forwarded_for",
    "y",
    "x-gilliam-from",
    "z",
    "etag",
    "e",
  ];
  expect(forwardableTrailers(fields)).toEqual(["x-sum", "1", "etag", "e"]);
});

test("trailers that all travel are handed on as they are", () => {
  const fields = ["grpc-status", "0", "grpc-message", ""];
  expect(forwardableTrailers(fields)).toBe(fields);
});

test.for(["content-length", "transfer-encoding", "host", "te", "upgrade"])("%s is no trailer", (name) => {
  expect(isRefusedTrailer(name)).toBe(true);
});

test("the last chunk ends with the trailers and an empty line", () => {
  expect(lastChunk(["a", "1", "b", ""])).toBe("0\r\na: 1\r\nb: \r\n\r\n");
});
