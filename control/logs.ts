import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { LogLine } from "../model/api.ts";
import type { Executors } from "./executors.ts";

export interface LogsRequest {
  readonly formation: string;
  readonly service?: string | undefined;
  readonly instance?: string | undefined;
  /** Lines from the past, for each instance; undefined: all that is kept. */
  readonly tail?: number | undefined;
  readonly follow: boolean;
}

export interface LogsParts {
  readonly executors: Executors;
  /** The hosts to ask; asked again while following, for a formation may move. */
  readonly hostIds: () => readonly string[];
  readonly clock: Clock;
}

/** How often a follower looks for new hosts, and how long it waits before it asks a lost one again. */
const LOOK_MS = 2_000;

const NOTICE_SERVICE = "control";

type Send = (line: LogLine) => Promise<void>;

/**
 * The log of a formation over all its hosts. The past is merged by time; what follows comes as it is written.
 * A host that cannot be reached is said in a `system` line and, when following, asked again from where it stopped.
 */
export async function relayLogs(
  request: LogsRequest,
  parts: LogsParts,
  send: Send,
  signal: AbortSignal,
): Promise<void> {
  /** Where each host's stream stands: its last time, and how many lines of that very time were sent. */
  const positions = new Map<string, { atMs: number; count: number }>();
  const lost = new Set<string>();
  const sendFrom = (hostId: string): Send => {
    return async (line) => {
      if (isNotice(line, hostId)) {
        if (!lost.has(hostId)) await send(line);
        lost.add(hostId); // Said once, not at every attempt.
        return;
      }
      lost.delete(hostId);
      const position = positions.get(hostId);
      const count = position?.atMs === line.atMs ? position.count + 1 : 1;
      positions.set(hostId, { atMs: line.atMs, count });
      await send(line);
    };
  };
  const past = parts.hostIds().map((hostId) => ({
    hostId,
    send: sendFrom(hostId),
    lines: linesOf(hostId, request, { tail: request.tail }, parts, signal),
  }));
  await mergeByTime(past);
  if (!request.follow) return;
  const following = new Set<string>();
  while (!signal.aborted) {
    for (const hostId of parts.hostIds()) {
      if (following.has(hostId)) continue;
      following.add(hostId);
      void followHost(hostId, request, positions.get(hostId), parts, sendFrom(hostId), signal).finally(() =>
        following.delete(hostId),
      );
    }
    await parts.clock.sleep(LOOK_MS, signal).catch(() => undefined);
  }
}

/** One stream until it ends. Lines of the very moment it starts from were sent before as far as `from` counts them. */
async function followHost(
  hostId: string,
  request: LogsRequest,
  from: { atMs: number; count: number } | undefined,
  parts: LogsParts,
  send: Send,
  signal: AbortSignal,
): Promise<void> {
  let repeated = from?.count ?? 0;
  const range = from === undefined ? {} : { sinceMs: from.atMs };
  for await (const line of linesOf(hostId, request, { ...range, follow: true }, parts, signal)) {
    if (repeated > 0 && line.atMs === from?.atMs) repeated -= 1;
    else await send(line);
  }
}

/** Never throws: what goes wrong is a line itself. */
async function* linesOf(
  hostId: string,
  { formation, service, instance }: LogsRequest,
  range: { tail?: number | undefined; sinceMs?: number; follow?: boolean },
  { executors, clock }: LogsParts,
  signal: AbortSignal,
): AsyncGenerator<LogLine> {
  const query = new URLSearchParams({ formation });
  for (const [name, value] of Object.entries({ service, instance, ...range })) {
    if (value !== undefined) query.set(name, String(value));
  }
  try {
    const response = await executors.ask(hostId, `/v1/logs?${query.toString()}`, { signal });
    for await (const text of executors.lines(response)) {
      const line = LogLine.safeParse(parseJson(text));
      if (line.success) yield line.data;
    }
  } catch (error) {
    if (signal.aborted) return;
    yield {
      atMs: clock.wallMs(),
      service: NOTICE_SERVICE,
      instanceId: hostId,
      release: 0,
      stream: "system",
      text: `no log from host ${hostId}: ${messageOf(error)}`,
    };
  }
}

/** A line of ours about the host, not one of its own: it says nothing of where the host's stream stands. */
function isNotice({ stream, service, instanceId }: LogLine, hostId: string): boolean {
  return stream === "system" && service === NOTICE_SERVICE && instanceId === hostId;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** Sends the lines of several sorted streams in the order of their time; equal times in the order of the streams. */
export async function mergeByTime(
  streams: readonly { lines: AsyncGenerator<LogLine>; send: Send }[],
): Promise<void> {
  const heads = await Promise.all(
    streams.map(async ({ lines, send }) => ({ lines, send, head: await lines.next() })),
  );
  for (;;) {
    let first: (typeof heads)[number] | undefined;
    for (const stream of heads) {
      if (stream.head.done === true) continue;
      if (first === undefined || stream.head.value.atMs < (first.head.value as LogLine).atMs) first = stream;
    }
    if (first === undefined) return;
    await first.send(first.head.value as LogLine);
    first.head = await first.lines.next();
  }
}
