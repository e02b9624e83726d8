import { expect, test } from "vitest";
import { TICKET_KEYS_BYTES, TicketRatchet, periodOf } from "./tickets.ts";

const HOUR_MS = 3_600_000;
const START = { period: 10, secret: "ab".repeat(32) };

test("keys change with the period and not before", () => {
  const ratchet = new TicketRatchet(START, HOUR_MS);
  const first = ratchet.keys;
  expect(first).toHaveLength(TICKET_KEYS_BYTES);
  expect(ratchet.advance(11 * HOUR_MS - 1)).toBe(false);
  expect(ratchet.keys).toEqual(first);
  expect(ratchet.advance(11 * HOUR_MS)).toBe(true);
  expect(ratchet.keys).not.toEqual(first);
  expect(periodOf(11 * HOUR_MS, HOUR_MS)).toBe(11);
});

test("who starts later from what was handed on has the same keys", () => {
  const keeper = new TicketRatchet(START, HOUR_MS);
  const early = new TicketRatchet(keeper.current, HOUR_MS);
  keeper.advance(13.5 * HOUR_MS);
  const late = new TicketRatchet(keeper.current, HOUR_MS);
  early.advance(13.9 * HOUR_MS);
  expect(late.keys).toEqual(early.keys);
  expect(keeper.current.period).toBe(13);
});

test("a clock that is set back changes nothing", () => {
  const ratchet = new TicketRatchet(START, HOUR_MS);
  ratchet.advance(12 * HOUR_MS);
  const { keys } = ratchet;
  expect(ratchet.advance(10 * HOUR_MS)).toBe(false);
  expect(ratchet.keys).toEqual(keys);
});
