/** As much of a log as a keeper needs; pino's logger satisfies it. */
export interface PlainLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/**
 * JSON lines like base/log.ts writes them, without loading pino: a keeper lives as long as its host and does
 * almost nothing, so every megabyte it loads is a megabyte lost.
 */
export function createPlainLog(part: string, write: (line: string) => void, wallMs: () => number): PlainLog {
  const line = (level: string) => (fields: object, message: string) => {
    const time = new Date(wallMs()).toISOString();
    write(`${JSON.stringify({ level, time, part, ...fields, msg: message })}\n`);
  };
  return { info: line("info"), warn: line("warn"), error: line("error") };
}
