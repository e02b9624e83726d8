import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import type { DeadlineWheel } from "./deadlines.ts";
import type { AccessEvent } from "./engine.ts";
import type { Http2Limits } from "./http2/limits.ts";
import type { EngineLimits } from "./limits.ts";
import type { Mesh } from "./mesh.ts";
import type { Pressure } from "./pressure.ts";
import type { EngineStats } from "./stats.ts";

/** What every part of one engine shares. */
export interface EngineContext {
  readonly name: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly limits: EngineLimits;
  readonly http2Limits: Http2Limits;
  /** Sends what the HTTP/2 connections of this engine have collected, together. */
  readonly scheduleFlush: (flush: () => void) => void;
  readonly mesh: Mesh;
  readonly stats: EngineStats;
  readonly wheel: DeadlineWheel;
  readonly pressure: Pressure;
  readonly onAccess: ((event: AccessEvent) => void) | undefined;
  /** Unique over all engines, as good as surely; 26 characters at most. */
  readonly newRequestId: () => string;
  /** `date: …CRLF` of now. */
  readonly dateField: () => string;
  /** An exception reached a connection's boundary: a fault of ours. */
  readonly onFault: (error: unknown) => void;
}
