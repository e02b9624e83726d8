/** What is measured of a proxy. Every figure has a unit and a better end. */
export const FIGURES = {
  cpu: { heading: "CPU µs/request", digits: 1 },
  perSecond: { heading: "requests/s", digits: 0 },
  residentMb: { heading: "memory MB", digits: 0 },
  failures: { heading: "failures", digits: 0 },
  p50: { heading: "p50 ms", digits: 2 },
  p99: { heading: "p99 ms", digits: 2 },
  p999: { heading: "p99.9 ms", digits: 2 },
  /** Over what the same requests take without a proxy. */
  addedP99: { heading: "added p99 ms", digits: 2 },
  held: { heading: "connections held", digits: 0 },
  baseMb: { heading: "base MB", digits: 1 },
  /** Over the base, for each idle connection. */
  idleKb: { heading: "kB each", digits: 2 },
  /** The longest the event loop stood still around a swap. */
  pauseMs: { heading: "longest pause ms", digits: 1 },
} as const;
export type Figure = keyof typeof FIGURES;

/** What one round found; a figure the scenario does not have is absent. */
export type Sample = Readonly<Partial<Record<Figure, number>>>;

/** What is to be reached: a figure of ours over a peer's, or, without a peer, the figure itself. */
export interface Goal {
  readonly figure: Figure;
  readonly peer: string | undefined;
  readonly most?: number;
  readonly least?: number;
}

export function goalText({ most, least }: Goal): string {
  return most === undefined ? `≥ ${least}` : `≤ ${most}`;
}

/** How far `value` is from the goal, as a share of the goal; 0 when it is reached. */
export function shortfall(goal: Goal, value: number): number {
  if (goal.most !== undefined) return Math.max(0, value / goal.most - 1);
  return Math.max(0, 1 - value / (goal.least ?? 0));
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}
