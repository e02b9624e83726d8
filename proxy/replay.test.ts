import { expect, test } from "vitest";
import { ReplayBody } from "./replay.ts";

const text = ({ bytes, from, to }: ReplayBody) => bytes.toString("latin1", from, to);

test("what is not sent yet survives the buffer it came in", () => {
  const shared = Buffer.from("..hello..");
  const body = new ReplayBody();
  body.begin(shared, 2, 7);
  body.keep();
  shared.fill("x");
  expect(text(body)).toBe("hello");
  body.add(Buffer.from(" world!"), 0, 6);
  expect(text(body)).toBe("hello world");
});

test("what may be sent again is kept up to its bound, and not beyond", () => {
  const body = new ReplayBody();
  body.begin(Buffer.from("hello"), 0, 5);
  body.noteSent(true, 8);
  body.noteMoreSent(Buffer.from("abc"), 0, 3, true, 8);
  expect([text(body), body.replayable]).toEqual(["helloabc", true]);
  body.noteMoreSent(Buffer.from("d"), 0, 1, true, 8);
  expect([text(body), body.replayable]).toEqual(["", false]);
  body.noteMoreSent(Buffer.from("e"), 0, 1, true, 8);
  expect(body.replayable).toBe(false);
});

test("what must not be sent twice is let go, but an empty body can be sent twice", () => {
  const body = new ReplayBody();
  body.begin(Buffer.from("hello"), 0, 5);
  body.noteSent(false, 8);
  expect(body.replayable).toBe(false);
  body.begin(Buffer.from("hello"), 2, 2);
  body.noteSent(false, 8);
  expect([body.replayable, body.to]).toEqual([true, 0]);
});
