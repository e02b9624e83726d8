import type { RecordedRequest } from "./load.ts";

/**
 * Judges recorded requests. I1: no healthy request fails unless its own instance or connection died.
 * I2: an order reaches the application at most once, and an acknowledged one is not lost. Pure.
 */

/** A failure that a fault explains: requests under way between `fromMs` and `toMs` that `covers` says yes to. */
export interface Excuse {
  readonly why: string;
  readonly fromMs: number;
  readonly toMs: number;
  readonly covers: (request: RecordedRequest) => boolean;
  /** Most requests that it may explain. */
  readonly countMax: number;
}

export interface OrderSums {
  readonly count: number;
  readonly executions: number;
}

export interface Verdict {
  readonly requests: number;
  readonly excused: number;
  /** One line each; empty when the invariants hold. */
  readonly violations: string[];
}

export function judge(history: readonly RecordedRequest[], excuses: readonly Excuse[] = []): Verdict {
  const left = excuses.map(({ countMax }) => countMax);
  const violations: string[] = [];
  let excused = 0;
  for (const request of history.filter(({ failure }) => failure !== "")) {
    const at = excuses.findIndex(
      (excuse, index) =>
        (left[index] ?? 0) > 0 &&
        request.startMs <= excuse.toMs &&
        request.endMs >= excuse.fromMs &&
        excuse.covers(request),
    );
    if (at < 0) violations.push(describe(request));
    else {
      left[at] = (left[at] ?? 0) - 1;
      excused += 1;
    }
  }
  return { requests: history.length, excused, violations };
}

/** `before` and `after` are what the shop itself counts; in between only `history` was sent. */
export function judgeOrders(
  history: readonly RecordedRequest[],
  before: OrderSums,
  after: OrderSums,
): string[] {
  const orders = history.filter(({ kind }) => kind === "order");
  const acknowledged = orders.filter(({ status }) => status === 201).length;
  const placed = after.count - before.count;
  const executions = after.executions - before.executions;
  return [
    ...(executions > placed ? [`${executions - placed} orders were executed more than once`] : []),
    ...(placed < acknowledged ? [`${acknowledged - placed} acknowledged orders are lost`] : []),
    ...(placed > orders.length ? [`${placed - orders.length} orders came from nowhere`] : []),
  ];
}

function describe({ kind, connection, startMs, endMs, failure, servedBy }: RecordedRequest): string {
  const by = servedBy === "" ? "" : `, answered by ${servedBy}`;
  return `${kind} over a ${connection} connection, ${Math.round(startMs)}–${Math.round(endMs)} ms${by}: ${failure}`;
}
