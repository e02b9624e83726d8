/**
 * What a caller says about its call besides the request itself: how long the answer is of use, and how much it
 * matters. Both are for one hop: they are read, obeyed, and written anew for the next.
 */

/** Milliseconds that remain, in plain digits: a clock-free deadline, as gRPC's. Eight digits are a day and more. */
const REMAINING = /^\d{1,8}$/;
const GRPC_TIMEOUT = /^(\d{1,8})([HMSmun])$/;
const MS_BY_UNIT: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 0.001,
  n: 0.000_001,
};

/**
 * The value of `x-request-deadline`: milliseconds that remain from the moment the head is received. Undefined for
 * anything else, so that a time of day (13 digits) is never taken for a duration.
 */
export function parseRequestDeadline(text: string): number | undefined {
  return REMAINING.test(text) ? Number(text) : undefined;
}

/** The value of `grpc-timeout` in milliseconds (gRPC's PROTOCOL-HTTP2: up to 8 digits and a unit); else undefined. */
export function parseGrpcTimeout(text: string): number | undefined {
  const [, digits, unit = ""] = GRPC_TIMEOUT.exec(text) ?? [];
  return digits === undefined ? undefined : Number(digits) * MS_BY_UNIT[unit]!;
}

/** Lines for the next hop, which has `remainingMs` from now; at least one millisecond. */
export function deadlineLines(remainingMs: number, grpc: boolean): string {
  const ms = Math.min(99_999_999, Math.max(1, Math.floor(remainingMs)));
  return grpc ? `x-request-deadline: ${ms}\r\ngrpc-timeout: ${ms}m\r\n` : `x-request-deadline: ${ms}\r\n`;
}

/** How much a request matters when not all can be served. */
export const PRIORITY = { low: 0, normal: 1, high: 2 } as const;
export type Priority = (typeof PRIORITY)[keyof typeof PRIORITY];
const NAMES = ["low", "normal", "high"] as const;

/** The value of `x-request-priority`, or the urgency of `priority` (RFC 9218 4.1: 0 to 7, 3 is usual); else undefined. */
export function parsePriority(text: string): Priority | undefined {
  if (text === "low" || text === "normal" || text === "high") return PRIORITY[text];
  const urgency = /^(?:[^"]*[,;])?\s*u=([0-7])(?![\d.])/.exec(text)?.[1];
  if (urgency === undefined) return undefined;
  if (Number(urgency) <= 1) return PRIORITY.high;
  return Number(urgency) <= 4 ? PRIORITY.normal : PRIORITY.low;
}

/** A line for the next hop. */
export function priorityLine(priority: Priority): string {
  return `x-request-priority: ${NAMES[priority]}\r\n`;
}
