import { formatDuration } from "../../base/units.ts";

/** "3m ago", "just now"; "" for never. A wall clock that ran backwards is "just now". */
export function ago(thenMs: number | null, nowMs: number): string {
  if (thenMs === null) return "";
  const passedMs = nowMs - thenMs;
  return passedMs < 1000 ? "just now" : `${formatDuration(passedMs)} ago`;
}

/** "1 instance", "3 instances". */
export function count(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}

/** "a", "a and b", "a, b and c". */
export function list(items: readonly string[]): string {
  return items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`;
}

/** Requests per second: "0", "0.4", "12", "1.2k". */
export function rate(perSecond: number): string {
  if (perSecond >= 10_000) return `${Math.round(perSecond / 1000)}k`;
  if (perSecond >= 1_000) return `${(perSecond / 1000).toFixed(1)}k`;
  return perSecond >= 10 || perSecond === 0 ? String(Math.round(perSecond)) : perSecond.toFixed(1);
}
