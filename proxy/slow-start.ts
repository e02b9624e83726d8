import type { Random } from "../base/random.ts";

/** A new endpoint gets at least this share of what it would get, or it would never be measured. */
const SHARE_MIN = 0.1;

/** The share of its requests that an endpoint takes `ageMs` after it came: grows evenly to all of them. */
export function warmShare(ageMs: number, windowMs: number): number {
  if (ageMs >= windowMs) return 1;
  return Math.max(SHARE_MIN, ageMs / windowMs);
}

/** Whether an endpoint that was chosen takes the request, or leaves it to one that has been there longer. */
export function takesRequest(ageMs: number, windowMs: number, random: Random): boolean {
  const share = warmShare(ageMs, windowMs);
  return share >= 1 || random() < share;
}
