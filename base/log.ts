import { pino, type Logger } from "pino";

/** Structured log, one JSON line an event; the only file that knows pino. */
export type Log = Logger;

export interface LogOptions {
  /** Which part speaks: "control", "executor", "edge", "sidecar". */
  readonly part: string;
  /** trace, debug, info, warn, error, fatal or silent. @default "info" */
  readonly level?: string;
  /** Pretty lines for a terminal instead of JSON. @default false */
  readonly pretty?: boolean;
}

/** Field names that never reach a log, at any depth up to two. */
const SECRET_PATHS = ["token", "password", "secret", "authorization", "environment"].flatMap((name) => [
  name,
  `*.${name}`,
  `*.*.${name}`,
]);

export function createLog({ part, level = "info", pretty = false }: LogOptions): Log {
  return pino({
    level,
    base: { part },
    redact: { paths: SECRET_PATHS, censor: "[hidden]" },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label) => ({ level: label }) },
    ...(pretty ? { transport: { target: "pino-pretty", options: { ignore: "pid,hostname" } } } : {}),
  });
}

export const silentLog: Log = pino({ level: "silent" });
