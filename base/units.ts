const DURATION_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;
const BYTES = { B: 1, kB: 1000, KiB: 1024, MB: 1e6, MiB: 1024 ** 2, GB: 1e9, GiB: 1024 ** 3 } as const;

/** Milliseconds of "250ms", "30s", "5m" or "1h"; undefined for anything else, a bare number included. */
export function parseDurationMs(text: string): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)$/.exec(text);
  if (match === null) return undefined;
  return Number(match[1]) * DURATION_MS[match[2] as keyof typeof DURATION_MS];
}

/** Bytes of "512B", "64KiB", "256MiB", "1GiB", "10kB", "5MB" or "2GB"; undefined for anything else. */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(B|kB|KiB|MB|MiB|GB|GiB)$/.exec(text);
  if (match === null) return undefined;
  return Math.floor(Number(match[1]) * BYTES[match[2] as keyof typeof BYTES]);
}

/** The shortest of "850ms", "12s", "4m10s", "3h5m", "2d4h" that says how long; for people. */
export function formatDuration(durationMs: number): string {
  if (durationMs < 1000) return `${Math.round(durationMs)}ms`;
  const seconds = Math.floor(durationMs / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  const pair = (big: number, bigUnit: string, small: number, smallUnit: string) =>
    small === 0 ? `${big}${bigUnit}` : `${big}${bigUnit}${small}${smallUnit}`;
  if (seconds < 60) return `${seconds}s`;
  if (minutes < 60) return pair(minutes, "m", seconds % 60, "s");
  if (hours < 24) return pair(hours, "h", minutes % 60, "m");
  return pair(days, "d", hours % 24, "h");
}

/** "0 B", "1.5 KiB", "256 MiB"; for people. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : Math.round(value * 10) / 10} ${units[unit]}`;
}
