import type { EdgeTraffic } from "../../model/mesh.ts";
import type { SiblingState } from "./messages.ts";

/**
 * One report for the leading worker and those beside it, whether they serve or drain: an epoch counts as applied when it
 * is in force in all of them, and whatever any of them has in flight is in flight. So control's receipts stay true.
 */
export function mergeSiblings(own: SiblingState, siblings: readonly SiblingState[]): SiblingState {
  if (siblings.length === 0) return own;
  const busy: Record<string, number> = { ...own.busy };
  const ejected: Record<string, string> = { ...own.ejected };
  let { epoch } = own;
  for (const sibling of siblings) {
    epoch = Math.min(epoch, sibling.epoch);
    for (const [id, count] of Object.entries(sibling.busy)) busy[id] = (busy[id] ?? 0) + count;
    for (const [id, reason] of Object.entries(sibling.ejected)) ejected[id] ??= reason;
  }
  const traffic = sumTraffic([own.traffic, ...siblings.map((sibling) => sibling.traffic)]);
  return { epoch, busy, ejected, traffic };
}

export function sumTraffic(parts: readonly (readonly EdgeTraffic[])[]): EdgeTraffic[] {
  return combine(parts.flat(), 1, []);
}

/** What came on top of `before`; nothing where less is known now than then. */
export function trafficSince(
  now: readonly EdgeTraffic[],
  before: readonly EdgeTraffic[],
): readonly EdgeTraffic[] {
  if (before.length === 0) return now;
  return combine(before, -1, now).map((edge) => ({
    ...edge,
    requests: Math.max(0, edge.requests),
    failures: Math.max(0, edge.failures),
    retries: Math.max(0, edge.retries),
    durationMsSum: Math.max(0, edge.durationMsSum),
  }));
}

function combine(added: readonly EdgeTraffic[], sign: 1 | -1, to: readonly EdgeTraffic[]): EdgeTraffic[] {
  const keyOf = ({ from, to: target, release }: EdgeTraffic) => `${from} ${target} ${release}`;
  const sums = new Map(to.map((edge) => [keyOf(edge), edge]));
  for (const edge of added) {
    const { from, release, to: target } = edge;
    const before = sums.get(keyOf(edge));
    sums.set(keyOf(edge), {
      from,
      to: target,
      release,
      requests: (before?.requests ?? 0) + sign * edge.requests,
      failures: (before?.failures ?? 0) + sign * edge.failures,
      retries: (before?.retries ?? 0) + sign * edge.retries,
      durationMsSum: (before?.durationMsSum ?? 0) + sign * edge.durationMsSum,
    });
  }
  return [...sums.values()];
}
