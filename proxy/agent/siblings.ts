import type { SiblingState } from "./messages.ts";

/**
 * One report for a leading worker and those that still drain beside it: an epoch counts as applied when it is in
 * force in all of them, and whatever any of them has in flight is in flight. So control's receipts stay true
 * while a proxy is restarted.
 */
export function mergeSiblings(
  own: SiblingState,
  siblings: readonly SiblingState[],
): { epoch: number; busy: Record<string, number> } {
  const busy: Record<string, number> = { ...own.busy };
  let { epoch } = own;
  for (const sibling of siblings) {
    epoch = Math.min(epoch, sibling.epoch);
    for (const [id, count] of Object.entries(sibling.busy)) busy[id] = (busy[id] ?? 0) + count;
  }
  return { epoch, busy };
}
